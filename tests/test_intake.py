"""What strangers hand in: whatever it is, it costs at most a failing row of its own."""

import io
import json
import os
import random
import stat
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from classes import RIGHT, SLUG, WRONG, found, lay, notebook, tarred, zipped

from grader import catalog
from grader.batch import notebooks

Kata = Callable[..., "subprocess.CompletedProcess[str]"]
FILE = f"{SLUG}.py"


def _graded(kata: Kata, tmp_path: Path, *words: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of a run over the folder `class`, in which there is nothing to grade."""
    out = tmp_path / "out"
    done = kata("grade", str(tmp_path / "class"), "--out", str(out), *words)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    rows = found(out)
    for who, slug in rows:
        assert (who + slug).isprintable()
        assert rows[who, slug]["gradings"] == []
        assert rows[who, slug]["outcome"] in ("failed", "refused")
    assert "\x1b" not in done.stdout
    return rows


def _tree(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


def test_odd_things_in_folders(kata: Kata, tmp_path: Path) -> None:
    """Pipes, links, folders called like files, what is empty, too large, misnamed or there twice:
    one row each, with the reason; nothing is followed, opened or waited for."""
    folder = lay(
        tmp_path / "class",
        {
            "bob/numpy_lora.py": RIGHT,
            "bob/again/numpy_lora.py": WRONG,
            "cal/galore.py": b"x" * ((1 << 20) + 1),
            "dee/numpy_lora.ipynb": b"no notebook",
            "eva/numpy_lora.ipynb": notebook("print(1)"),
            "fox/solution.txt": b"",
            "gil__numpy_lra.py": RIGHT,
            "hob/lora.py": RIGHT,
            "ivy.zip": b"PK no archive",
            "jay.rar": b"Rar!",
            "ken/hand-in.7z": b"7z",
            "liz__numpy_lora.py.txt": RIGHT,
            "jim/.git/numpy_lora.py": RIGHT,
            "kim/numpy_lora.ipynb": b"[" * 200_000,
            "lee/odd.ipynb": b"{}",
            "\x1b[31mmad\nman/galore.py": b"\0" * (2 << 20),
            "notes.py": b"",
        },
    )
    answer = lay(tmp_path / "answers", {FILE: RIGHT, "mia/numpy_lora.py": RIGHT})
    (folder / "nil").mkdir()
    (folder / "ned").mkdir()
    os.mkfifo(folder / "ned" / FILE)
    (folder / "oda" / FILE).mkdir(parents=True)
    (folder / "pat").mkdir()
    (folder / "pat" / FILE).symlink_to(answer / FILE)
    (folder / "qed").symlink_to(answer / "mia", target_is_directory=True)
    (folder / "rob").mkdir()
    (folder / "rob" / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "sue__numpy_lora.py").symlink_to("/dev/zero")
    deep = folder / "tom"
    for _ in range(40):
        deep /= "d"
    lay(deep, {FILE: RIGHT})
    odd = os.fsencode(folder) + b"/\xff\xfe__galore.py"
    Path(os.fsdecode(odd)).symlink_to("/dev/null")

    rows = _graded(kata, tmp_path)
    said = {who: (slug, row["trouble"]) for (who, slug), row in rows.items()}
    expected = {
        "bob": (SLUG, "more than once, and not alike: class/bob/again/numpy_lora.py, class/bob/nu"),
        "cal": ("galore", "is larger than 1 MiB"),
        "dee": (SLUG, "it is no JSON"),
        "eva": (SLUG, "No cell of the notebook defines LoRA."),
        "fox": ("", "Nothing in it is called like a kata."),
        "gil": ("", "class/gil__numpy_lra.py names no kata (numpy_lora?)."),
        "hob": ("", "class/hob/lora.py names no kata."),
        "ivy": ("", "class/ivy.zip is no zip archive."),
        "jay": ("", "class/jay.rar is an archive of a kind that is not read here (zip and tar"),
        "jim": ("", "Nothing in it is called like a kata."),
        "ken": ("", "class/ken/hand-in.7z is an archive of a kind that is not read here"),
        "liz": ("", "class/liz__numpy_lora.py.txt names no kata (numpy_lora?)."),
        "kim": (SLUG, "it is no JSON"),
        "lee": ("", "no Jupyter notebook"),
        "mad\\nman": ("galore", "is larger than 1 MiB"),
        "ned": (SLUG, "is a pipe or device, not a file."),
        "nil": ("", "Nothing in it is called like a kata."),
        "oda": (SLUG, "is a folder, not a file."),
        "pat": (SLUG, "is a link, not a file."),
        "qed": ("", "class/qed is a link."),
        "rob": ("", "Nothing in it is called like a kata."),
        "sue": (SLUG, "is a link, not a file."),
        "tom": ("", "goes too deep."),
        "\ufffd\ufffd": ("galore", "is a link, not a file."),
    }
    assert said.keys() == expected.keys()
    for who, (slug, words) in expected.items():
        assert (said[who][0], words in said[who][1]) == (slug, True), (who, said[who])
    notes = json.loads((tmp_path / "out" / "results.json").read_bytes())["notes"]
    assert notes == ["class/notes.py names no kata: left alone."]


BOMB = b"\0" * (17 << 20)


def _nested(depth: int) -> bytes:
    packed = RIGHT
    for number in range(depth):
        packed = zipped({f"{number}.zip" if number else FILE: packed})
    return packed


def _many() -> bytes:
    return zipped({f"{number}.py": b"" for number in range(10_000)})


def _too_many() -> bytes:
    return tarred({f"{number}.py": b"" for number in range(20_001)}, "gz")


def _long_list() -> bytes:
    return zipped({f"{'n' * 60_000}{number}.py": b"" for number in range(100)})


def _locked() -> bytes:
    """An archive whose member says that it needs a password."""
    packed = bytearray(zipped({FILE: RIGHT}))
    for start, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        packed[packed.index(start) + at] |= 1
    return bytes(packed)


def _packed_otherwise() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr(FILE, RIGHT)
    return packed.getvalue()


def _overlapping() -> bytes:
    """Two members that share their bytes, as in bombs that need no nesting."""
    packed = zipped({"x.txt": b"x" * 5000, FILE: RIGHT})
    start = packed.index(b"PK\1\2", packed.index(b"PK\1\2") + 1)
    return packed[: start + 42] + struct.pack("<L", 0) + packed[start + 46 :]


ARCHIVES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "up": ("zip", lambda: zipped({f"../ben/{FILE}": RIGHT}), "a name that leads out of it"),
    "up in tar": ("tar", lambda: tarred({f"a/../../ben/{FILE}": RIGHT}), "a name that leads out"),
    "absolute": ("zip", lambda: zipped({f"/tmp/{FILE}": RIGHT}), "a name that leads out"),
    "drive": ("zip", lambda: zipped({f"C:\\{FILE}": RIGHT}), "a name that leads out"),
    "absolute in tar": ("tar", lambda: tarred({f"/tmp/{FILE}": RIGHT}), "a name that leads out"),
    "link": ("zip", lambda: zipped({FILE: b"/etc/passwd"}, stat.S_IFLNK), "is a link"),
    "link in tar": (
        "tar.gz",
        lambda: tarred({FILE: b"/etc/passwd"}, "gz", tarfile.SYMTYPE),
        "is a link",
    ),
    "hard link": (
        "tar",
        lambda: tarred({FILE: b"x.py"}, kind=tarfile.LNKTYPE),
        "is a link",
    ),
    "device": ("tar", lambda: tarred({FILE: b""}, kind=tarfile.CHRTYPE), "is no plain file"),
    "pipe": ("zip", lambda: zipped({FILE: b""}, stat.S_IFIFO), "is no plain file"),
    "bomb": ("zip", lambda: zipped({FILE: BOMB[:3 << 20]}), "is larger than 1 MiB"),
    "tar bomb": ("tgz", lambda: tarred({str(n): BOMB for n in range(8)}, "gz"), "unpacks to"),
    "bomb in xz": ("tar.xz", lambda: tarred({FILE: BOMB[:3 << 20]}, "xz"), "is larger than 1 MiB"),
    "archives in archives": ("zip", lambda: _nested(4), "an archive in an archive in an archive"),
    "bomb inside": ("zip", lambda: zipped({"b.tar": BOMB}), "is larger than 16 MiB"),
    "many": ("zip", _many, "2.py and 9,997 more name no kata"),
    "too many": ("tar.gz", _too_many, "holds more than 20,000 files"),
    "long list": ("zip", _long_list, "holds more than 20,000 files"),
    "locked": ("zip", _locked, "needs a password"),
    "packed otherwise": ("zip", _packed_otherwise, "is packed in a way that is not read here"),
    "overlapping": ("zip", _overlapping, "is damaged"),
    "cut": ("tar", lambda: tarred({FILE: RIGHT * 9})[:6000], "is damaged"),
    "cut gz": ("tgz", lambda: tarred({FILE: RIGHT}, "gz")[:-300], "ends too early"),
    "cut zip": ("zip", lambda: zipped({FILE: RIGHT})[:-9], "is no zip archive"),
    "wrong kind": ("tar", lambda: zipped({FILE: RIGHT}), "no archive of that kind"),
    "empty": ("zip", lambda: b"", "is no zip archive"),
    "nothing in it": ("zip", lambda: zipped({}), "Nothing in it"),
    "twice": ("tar", lambda: tarred({FILE: RIGHT, f"./{FILE}": WRONG}), "more than once"),
    "escapes": ("zip", lambda: zipped({"\x1b]0;x\x07\n/../y": b""}), "a name that leads out"),
}  # fmt: skip


def test_hostile_archives(kata: Kata, tmp_path: Path) -> None:
    """Each costs the person who handed it in one row, which says why; nobody else is harmed, and
    not a byte of it is written anywhere."""
    names = {name: f"{name}.{suffix}" for name, (suffix, _, _) in ARCHIVES.items()}
    packed = {name: make() for name, (_, make, _) in ARCHIVES.items()}
    folder = lay(tmp_path / "class", {names[name]: data for name, data in packed.items()})
    lay(folder, {f"ben/{FILE}": b"x" * (2 << 20)})
    before = _tree(tmp_path)
    rows = _graded(kata, tmp_path)
    out = str(tmp_path / "out")
    assert {path for path in _tree(tmp_path) - before if not path.startswith(out)} == set()
    assert not (Path("/tmp") / FILE).exists()
    assert len(rows) == len(ARCHIVES) + 1
    said = {who: row["trouble"] for (who, _), row in rows.items()}
    assert "larger than 1 MiB" in said.pop("ben")
    for name, (_, _, words) in ARCHIVES.items():
        assert words in said[name], (name, said[name])


def test_archives_of_a_whole_class(kata: Kata, tmp_path: Path) -> None:
    """One archive with a hostile one in it harms no other person in it."""
    big = b"x" * (2 << 20)
    inner = {
        "ada.zip": zipped({f"../ben/{FILE}": RIGHT, f"ben__{SLUG}.py": big}),
        f"ben/{FILE}": big,
    }
    whole = zipped({f"class/{name}": data for name, data in inner.items()})
    lay(tmp_path, {"class.zip": whole})
    out = tmp_path / "out"
    assert kata("grade", str(tmp_path / "class.zip"), "--out", str(out)).returncode == 0
    rows = found(out)
    assert rows.keys() == {("ada", SLUG), ("ben", SLUG)}
    called = "class.zip/class/ada.zip/ben__numpy_lora.py is larger"  # where it is to be found
    assert called in rows["ada", SLUG]["trouble"]
    assert "larger than 1 MiB" in rows["ben", SLUG]["trouble"]


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar", "tar.xz", "tar.bz2"])
def test_damaged_archives_of_every_kind(kata: Kata, tmp_path: Path, kind: str) -> None:
    """Bytes changed at random in an archive never stop a run."""
    draw = random.Random(kind)
    big = {FILE: b"#" * (2 << 20)}
    whole = zipped(big) if kind == "zip" else tarred(big, kind.partition(".")[2])
    files = {}
    for number in range(40):
        spoilt = bytearray(whole)
        for _ in range(draw.choice((1, 5, 50))):
            spoilt[draw.randrange(len(spoilt) if kind != "tar" else 1024)] = draw.randrange(256)
        files[f"p{number}.{kind}"] = bytes(spoilt[: draw.choice((None, len(spoilt) // 2))])
    lay(tmp_path / "class", files)
    rows = _graded(kata, tmp_path)
    assert {who for who, _ in rows} == {f"p{number}" for number in range(40)}


# Rosters


def test_roster_says_who_and_what(kata: Kata, tmp_path: Path) -> None:
    """Each person has a row for each kata asked, handed in or not; strangers and what was not
    asked are named and not graded."""
    big = b"x" * (2 << 20)
    lay(
        tmp_path / "class",
        {
            f"ADA/{FILE}": big,
            "ADA/galore.py": big,
            "ben.zip": b"PK",
            "cem__galore.py": big,
            "dan/lora_linaer.py": RIGHT,
            "eve/numpy_lora.py": big,
        },
    )
    roster = tmp_path / "roster.csv"
    roster.write_bytes(
        "\ufeffWho;Katas\r\nada;numpy_lora\r\nben;numpy-l galore\r\ncem;galore\r\n"
        "dan;lora_lin;\r\nzoë;\r\n\r\n".encode()
    )
    rows = _graded(kata, tmp_path, "--roster", str(roster))
    asked = (
        ("ada", SLUG),
        ("ben", SLUG),
        ("ben", "galore"),
        ("cem", "galore"),
        ("dan", "lora_linear"),
    )
    everything = {("zoë", slug) for slug in (SLUG, "galore", "lora_linear")}
    assert rows.keys() == {*asked, *everything}
    assert rows["ada", SLUG]["outcome"] == "refused"
    assert "no zip archive" in rows["ben", "galore"]["trouble"]
    missing = {key for key, row in rows.items() if row["trouble"] == "Not handed in."}
    assert missing == {("dan", "lora_linear"), *everything}
    assert {rows[key]["outcome"] for key in missing} == {"failed"}
    notes = json.loads((tmp_path / "out" / "results.json").read_bytes())["notes"]
    assert notes == [
        "ada: galore not asked, not graded.",
        "class/dan/lora_linaer.py names no kata (lora_linear?): left alone.",
        "eve is not on the roster: not graded (numpy_lora).",
    ]


def test_roster_that_is_wrong(kata: Kata, tmp_path: Path) -> None:
    """All that is wrong is said at once, with its lines; nothing is graded."""
    lay(tmp_path / "class", {f"ada/{FILE}": RIGHT})
    roster = tmp_path / "roster.csv"
    for data, said in (
        (b"ada,numpy_lira\n,galore\nben,x\n", ["line 1: No kata", "line 2: katas, but", "line 3:"]),
        (b"\xff\xfea\0", ["not UTF-8 text (line 1)"]),
        (b"who,katas\n\n", ["names nobody"]),
        (b'a,"' + b"x" * 200_000 + b'"\n', ["line 1: field larger"]),
    ):
        roster.write_bytes(data)
        words = ("--roster", str(roster), "--out", str(tmp_path / "out"))
        done = kata("grade", str(tmp_path / "class"), *words)
        assert done.returncode == 2
        for line in said:
            assert line in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out").exists()


def test_downloads_of_canvas_and_moodle(kata: Kata, tmp_path: Path) -> None:
    """What these write around a person's name and a file's is no part of either."""
    big = b"x" * (2 << 20)  # which is refused at once
    lay(
        tmp_path / "class",
        {
            "lovelaceada_1234_56789_numpy_lora.py": big,
            "noetheremmy_LATE_1235_56790_numpy_lora-2.py": big,
            "hopper__grace_1236_56791_numpy-lora.ipynb": big * 9,
            "Jean-Luc Dô_42_assignsubmission_file_/numpy_lora.py": big,
            "Mary Ann_43_assignsubmission_file/numpy_lora.py": big,
            "quinn_1_2_numpy_lira.py": RIGHT,
        },
    )
    rows = _graded(kata, tmp_path)
    people = ("lovelaceada", "noetheremmy", "hopper__grace", "Jean-Luc Dô", "Mary Ann")
    assert rows.keys() == {*((who, SLUG) for who in people), ("quinn", "")}
    assert "names no kata" in rows["quinn", ""]["trouble"]
    (tmp_path / "class.csv").write_text("who,katas\nmary ann,numpy_lora\n")
    rows = _graded(kata, tmp_path, "--roster", str(tmp_path / "class.csv"))
    assert "larger than 1 MiB" in rows["mary ann", SLUG]["trouble"]


def test_one_kata_alone(kata: Kata, tmp_path: Path) -> None:
    """With --kata a Python file of any name is an answer, and other katas are left out."""
    big = b"x" * (2 << 20)
    files = {"ada/my answer.py": big, "ben.py": big, f"cem/{FILE}": big, "dan/galore.py": big}
    lay(tmp_path / "class", files)
    rows = _graded(kata, tmp_path, "--kata", "numpy_l")
    assert rows.keys() == {("ada", SLUG), ("ben", SLUG), ("cem", SLUG)}


# Notebooks


NAMES = {card.slug: card.defines for card in catalog.cards()}


def _answer(*cells: str, slug: str = SLUG) -> str | None:
    return notebooks.answer(notebooks.cells(notebook(*cells)), slug, NAMES[slug])


CELLS: list[tuple[list[str], str | None]] = [
    (["class LoRA: a", "class LoRA: b"], "class LoRA: b\n"),
    (["class LoRA: a", f"%%kata {SLUG}\nclass LoRA: b", "class LoRA: c"], "class LoRA: b\n"),
    (
        ["import a, b\nx = a.b", "class LoRA(x): y = b"],
        "import a, b\n\nx = a.b\n\nclass LoRA(x): y = b\n",
    ),
    (
        ["x = boom()\ny = 2", "class LoRA:\n  def f(s, x): return x + y"],
        "y = 2\n\nclass LoRA:\n  def f(s, x): return x + y\n",
    ),
    (
        ["@wrap\ndef f():\n  return g()", "def g(): return 3\nf()", "class LoRA: a = f()"],
        "@wrap\ndef f():\n  return g()\n\ndef g(): return 3\n\nclass LoRA: a = f()\n",
    ),
    (
        ["import x\nfrom __future__ import annotations", "class LoRA: a = x"],
        "from __future__ import annotations\nimport x\n\nclass LoRA: a = x\n",
    ),
    (["%%bash\nclass LoRA: a", "%%time\nclass LoRA: b\n!ls\nx?"], "class LoRA: b\npass\npass\n"),
    (["class LoRA: a", "class LoRA(:"], "class LoRA(:\n"),
    (["class Other: a"], None),
    ([], None),
]


@pytest.mark.parametrize(("cells", "answer"), CELLS)
def test_the_cell_that_answers(cells: list[str], answer: str | None) -> None:
    """The last cell that defines the kata's names, after what it needs of those before."""
    assert _answer(*cells) == answer


def test_names_in_several_cells() -> None:
    """Where no cell defines all of a kata's names, the last definition of each counts."""
    cells = ["def group_by_adapter(): a", "def sgmv(): a", "def sgmv(): b"]
    text = _answer(*cells, slug="segmented_lora")
    assert text == "def group_by_adapter(): a\n\ndef sgmv(): b\n"
    found = notebooks.cells(notebook(*cells))
    assert notebooks.katas(found, NAMES) == ["segmented_lora"]


def test_old_notebooks() -> None:
    """Those before version 4 keep their cells in worksheets."""
    cell = {"cell_type": "code", "input": ["class LoRA:\n", "  a"]}
    data = json.dumps({"worksheets": [{"cells": [cell]}], "nbformat": 3}).encode()
    assert [c.text for c in notebooks.cells(data)] == ["class LoRA:\n  a"]
