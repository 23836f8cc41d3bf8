"""Made-up classes: what people hand in, and what a run made of it."""

import io
import json
import sqlite3
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grader import content
from grader.store.results import FILE

SLUG = "numpy_lora"  # which is quick to grade
RIGHT = content.solution(SLUG).read_bytes()
WRONG = RIGHT.replace(b"/ r\n", b"\n")
assert WRONG != RIGHT


def lay(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files by their paths below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def zipped(files: Mapping[str, bytes], kind: int = 0) -> bytes:
    """A zip archive; `kind`: the file type of its members, as a mode of stat."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = kind << 16
            archive.writestr(info, data)
    return packed.getvalue()


def tarred(files: Mapping[str, bytes], packed: str = "", kind: bytes = tarfile.REGTYPE) -> bytes:
    """A tar archive, `packed` as "gz", "bz2" or "xz"; `kind`: the type of its members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{packed}") as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            else:
                info.linkname = data.decode()
                archive.addfile(info)
    return out.getvalue()


def notebook(*cells: str) -> bytes:
    """A notebook of code cells, between words and pictures."""
    words = {"cell_type": "markdown", "metadata": {}, "source": ["# LoRA\n", "by hand"]}
    code: list[dict[str, Any]] = [
        {
            "cell_type": "code",
            "execution_count": None,
            "metadata": {},
            "outputs": [{"output_type": "stream", "name": "stdout", "text": ["class LoRA: pass"]}],
            "source": cell.splitlines(keepends=True),
        }
        for cell in cells
    ]
    whole = {"cells": [words, *code], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole).encode()


def found(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The submissions of results.json, by person and kata."""
    whole = json.loads((folder / "results.json").read_bytes())
    assert whole["version"] == 1
    rows = {(one["who"], one["slug"] or ""): one for one in whole["submissions"]}
    assert len(rows) == len(whole["submissions"])
    return rows


def outcomes(folder: Path) -> dict[str, str]:
    """What each person's one submission came to."""
    return {who: one["outcome"] for (who, _), one in found(folder).items()}


def begun(folder: Path) -> bool:
    """Whether what there is to grade is stored."""
    return bool(_rows(folder, "SELECT * FROM settings WHERE key = 'options'"))


def graded(folder: Path) -> dict[tuple[str, int], str]:
    """When each grading that is stored was made, by person and seed."""
    sql = "SELECT who, seed, at FROM gradings JOIN submissions ON id = submission"
    rows = _rows(folder, sql)
    times = {(who, seed): at for who, seed, at in rows}
    assert len(times) == len(rows)
    return times


def _rows(folder: Path, sql: str) -> list[Any]:
    if not (folder / FILE).exists():
        return []
    with sqlite3.connect(f"file:{folder / FILE}?mode=ro", uri=True, timeout=20) as database:
        rows = database.execute(sql).fetchall()
    database.close()
    return rows
