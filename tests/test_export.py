"""`kata export`: the bank for Anki, and everything as JSON."""

import csv
import json
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from grader.practice import repetition
from grader.recall import bank
from grader.store import Store
from grader.store.memory import Rating
from grader.views import anki

Kata = Callable[..., "subprocess.CompletedProcess[str]"]

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


def notes(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header lines and rows of an Anki text file."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    headers = [line.rstrip("\n") for line in lines if line.startswith("#")]
    body = "".join(lines[len(headers) :])
    return headers, list(csv.reader(body.splitlines(keepends=True), delimiter="\t"))


def test_anki_gets_every_question_under_our_own_id(kata: Kata, tmp_path: Path) -> None:
    """Headers that Anki reads, our id first, one row per question, no Markdown or LaTeX left."""
    path = tmp_path / "deck.txt"
    done = kata("export", "anki", str(path))
    assert done.returncode == 0, done.stderr
    headers, rows = notes(path)
    assert headers[:2] == ["#separator:tab", "#html:true"]
    assert "#columns:GUID\tFront\tBack\tTags\tDeck" in headers
    assert "#guid column:1" in headers
    assert "#tags column:4" in headers
    assert "#deck column:5" in headers
    assert [row[0] for row in rows] == [f"lora-kata:{q.id}" for q in bank.load()]
    assert all(len(row) == 5 for row in rows)
    text = path.read_text(encoding="utf-8")
    assert "[[" not in re.sub(r"<code>.*?</code>", "", text, flags=re.DOTALL)
    assert text.count("\\(") == text.count("\\)") > 100
    assert not re.search(r"\$[^$\n]+\$", re.sub(r"<(code|pre)>.*?</\1>", "", text, flags=re.S))
    assert rows[0][3].startswith("lora-kata::")


def test_the_same_bank_gives_the_same_file(kata: Kata, tmp_path: Path) -> None:
    """Numeric questions keep their draw, so that a new export changes what changed alone."""
    for name in ("one", "two"):
        assert kata("export", "anki", str(tmp_path / name)).returncode == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    ("markdown", "wanted"),
    [
        ("A **bold** `code` and $a < b$.", r"\(a &lt; b\)"),
        ("$$\\frac{1}{2}$$", r"\[\frac{1}{2}\]"),
        ("`$not$` maths", "<code>$not$</code>"),
        ("$5 and $6", "$5 and $6"),
        ("<script>alert(1)</script>", "&lt;script&gt;"),
        ("| a | b |\n| --- | --- |\n| $x$ | 2 |", r"<td>\(x\)</td>"),
        ("- one\n- two", "<li>one</li>"),
    ],
)
def test_markdown_becomes_simple_html(markdown: str, wanted: str) -> None:
    """Formulas become MathJax's, HTML in a text stays text."""
    assert wanted in anki.as_html(markdown)


def test_json_holds_everything(kata: Kata, tmp_path: Path) -> None:
    """Bank and record as one object, on stdout or in a file."""
    key = f"question:{bank.load()[0].id}"
    with Store(tmp_path / "home" / "progress.db", create=True) as store:
        answered = store.memory.answer(key, 'said "it"\n', NOW, seconds=61, draw=4)
        repetition.rate(store.memory, key, Rating.HARD, NOW, answered)
    done = kata("export", "json", KATA_CLOCK=NOW.isoformat())
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["format"] == 2
    assert {"version", "exported_at", "schema", "attempts"} < found.keys()
    assert [row["key"] for row in found["record"]["reviews"]] == [key]
    assert len(found["questions"]) == len(bank.load())
    (card,), (review,), (answer,) = found["cards"], found["reviews"], found["answers"]
    assert card["key"] == key
    assert card["recall"] == 1.0
    assert card["fsrs"]["stability"] > 0
    assert review["rating"] == "hard"
    assert (answer["text"], answer["draw"], answer["rating"]) == ('said "it"\n', 4, "hard")
    path = tmp_path / "all.json"
    assert kata("export", "json", str(path), KATA_CLOCK=NOW.isoformat()).returncode == 0
    assert json.loads(path.read_text())["answers"] == found["answers"]


def test_an_empty_record_can_be_exported(kata: Kata, tmp_path: Path) -> None:
    """No record yet: the bank alone, and nothing is written."""
    found = json.loads(kata("export", "json").stdout)
    assert found["questions"]
    assert found["cards"] == found["attempts"] == []
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("kind", ["anki", "json"])
def test_no_file_is_overwritten(kata: Kata, tmp_path: Path, kind: str) -> None:
    """An existing file stays, with a plain message; --force replaces it, and no folder."""
    path = tmp_path / "there"
    path.write_text("mine")
    done = kata("export", kind, str(path))
    assert done.returncode == 2
    assert done.stderr == f"error: {path} is there already. --force replaces it.\n"
    assert path.read_text() == "mine"
    assert kata("export", kind, str(path), "--force").returncode == 0
    assert path.read_text() != "mine"
    folder = kata("export", kind, str(tmp_path), "--force")
    assert folder.returncode == 2
    assert "is a folder" in folder.stderr
    gone = kata("export", kind, str(tmp_path / "gone" / "file"))
    assert gone.returncode == 2
    assert "cannot be written: No such file or directory" in gone.stderr


def test_a_full_disk_leaves_no_half_a_file(tmp_path: Path, environment: dict[str, str]) -> None:
    """What cannot be written whole is not there at all."""

    def no_space() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    run = subprocess.run(
        [sys.executable, "-m", "grader", "export", "anki", str(tmp_path / "deck.txt")],
        env=environment,
        capture_output=True,
        text=True,
        preexec_fn=no_space,
    )
    assert run.returncode == 2
    assert "deck.txt cannot be written" in run.stderr
    assert not (tmp_path / "deck.txt").exists()
