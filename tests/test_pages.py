"""Every page on terminals of any kind: wide, narrow, dumb, and too low for it."""

import calendar
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from terminals import Terminal

from grader import content
from grader.practice import stubs

pytestmark = pytest.mark.slow

Kata = Callable[..., "subprocess.CompletedProcess[str]"]
SLUG = "ia3_linear"
RIGHT = content.solution(SLUG).read_text()
WRONG = RIGHT.replace("self.base(x) * self.scale", "self.base(x) + self.scale")
LOOKS = {"30": "xterm", "60": "xterm", "80": "xterm", "100": "xterm", "dumb": "dumb"}
# Each page with the looks it is wanted in; what is graded costs a second, and the more so the
# checks of a suite and of the machine.
ALL, GRADED, FEW, ONE = (*LOOKS,), ("30", "60", "100", "dumb"), ("30", "dumb"), ("dumb",)
WRONG_PAGE = f"run --file wrong.py {SLUG} --seed 7 --more"
PAGES = {
    "init .": ALL,
    "--help": ALL[1:],  # Click's own, which needs more columns
    "run --help": ALL[1:],
    "list": ALL,
    f"show {SLUG}": ALL,
    "show lora_linear": ALL,
    f"start {SLUG}": ALL,
    "hint": ALL,
    "run --seed 7": ALL,
    WRONG_PAGE: GRADED,
    f"run --file right.py {SLUG}": FEW,
    "history": ALL,
    f"reset {SLUG}": ALL,
    "solution --diff": ALL,
    "plan": ALL,
    "plan --interview 2026-12-06 --minutes-per-day 30": ALL,
    "today": ALL,
    "quiz --ask lora-reparameterisation": ALL,
    "mock --list": ALL,
    "mock --plan --seed 3": ALL,
    f"bug {SLUG} --seed 1": ALL,
    f"bug {SLUG} --hint": ALL,
    f"bug {SLUG} --give-up": ALL,
    "stats": ALL,
    "next": ALL,
    "bug bitfit --seed 1": FEW,
    "bug bitfit --diagnosis None": FEW,
    "doctor": ONE,
    "verify bitfit": ONE,
}


class Shown:
    """The pages of one look, by command."""

    def __init__(self, pages: dict[str, tuple[int, str]]) -> None:
        self.pages = pages

    def words(self, command: str) -> set[str]:
        """What is said, without numbers, marks of a cut and what is drawn."""
        text = re.sub(r"\d+(\.\d+)?", "N", self.pages[command][1].replace("…", ""))
        words = text.replace("-", " ").split()  # Click breaks at hyphens
        said = {word for word in words if any(sign.isalpha() for sign in word)}
        return said - {*calendar.month_abbr}  # above a chart as wide as there is room


def _shown(root: Path) -> dict[str, Shown]:
    """All pages in all looks, each look in a folder and a home of its own."""
    jobs: list[dict[str, Any]] = []
    for look, terminal in LOOKS.items():
        work = root / look / "work"
        work.mkdir(parents=True)
        (work / "wrong.py").write_text(WRONG)
        (work / "right.py").write_text(RIGHT)
        environment = {
            "KATA_HOME": str(root / look / "home"),
            "KATA_WORKSPACE": str(work),
            "KATA_CLOCK": "2026-11-28T10:00:00+00:00",
            "COLUMNS": "80" if look == "dumb" else look,
            "TERM": terminal,
        }
        typed = "The update is low rank.\n\n1 2\n\n"
        for command in (command for command, looks in PAGES.items() if look in looks):
            job: dict[str, Any] = {
                "words": command.split(),
                "folder": str(work),
                "environment": environment,
            }
            jobs.append({**job, "typed": typed if command.startswith("quiz") else ""})
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("all_pages.py"))],
        input=json.dumps(jobs),
        env={k: v for k, v in os.environ.items() if k != "NO_COLOR"},
        capture_output=True,
        text=True,
        check=True,
    )
    pages: dict[str, dict[str, tuple[int, str]]] = {look: {} for look in LOOKS}
    for job, (status, text) in zip(jobs, json.loads(done.stdout), strict=True):
        look = Path(str(job["folder"])).parent.name
        pages[look][" ".join(job["words"])] = status, text.replace(str(root / look), "ROOT")
    return {look: Shown(found) for look, found in pages.items()}


@pytest.mark.long
def test_every_page_in_every_look(tmp_path: Path) -> None:
    """Nothing breaks; no line is wider than the terminal and no word is cut; a dumb one gets
    ASCII. One test, since all pages are made at once."""
    shown = _shown(tmp_path)
    for look in shown.values():
        _is_well(look, shown["dumb"])
    for name in ("30", "60", "80"):
        _fits(shown[name], int(name))
        for command in shown[name].pages.keys() & shown["100"].pages.keys():
            assert shown[name].words(command) <= shown["100"].words(command), (name, command)
    for command, (_, text) in shown["dumb"].pages.items():
        assert text.isascii(), command
    assert "x ia3_linear: not passed." in shown["dumb"].pages[WRONG_PAGE][1]
    assert "+ ok    bitfit: the solution passes" in shown["dumb"].pages["verify bitfit"][1]


def _is_well(look: Shown, other: Shown) -> None:
    """Every page is there, with the exit code that it has in another look."""
    for command, (status, text) in look.pages.items():
        assert status in (0, 1), text
        assert status == other.pages[command][0]
        assert text.strip(), command
        assert not any(word in text for word in ("Traceback", "kata itself", "\x1b")), text


def _fits(look: Shown, width: int) -> None:
    """But for words that are wider themselves; a file gets code as it is."""
    for command, (_, text) in look.pages.items():
        if command == "solution --diff":
            continue
        for line in text.splitlines():
            assert len(line) <= width or " " not in line.strip(" ↪+-"), (command, line)


@pytest.fixture
def work(kata: Kata, tmp_path: Path) -> Path:
    assert kata("start", SLUG).returncode == 0
    return tmp_path / "work"


def _on_a_terminal(work: Path, environment: dict[str, str], *words: str) -> str:
    """All that a command shows on a terminal of 80 by 24, which ends it well."""
    script = f'{sys.executable} -m grader "$@"; echo "ended $?"'
    terminal = Terminal(["sh", "-c", script, "sh", *words], work, environment)
    said = terminal.until("ended 0")
    assert terminal.end() == 0
    return said


def test_long_pages_go_to_the_pager(
    kata: Kata, work: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """To $PAGER, whole, where they are higher than the terminal; short ones, pages of a run, and
    all of them without a terminal or where the learner has none of it, do not."""
    pager = tmp_path / "pager"
    pager.write_text('#!/bin/sh\necho "paged $1"; cat\n')
    pager.chmod(0o755)
    mine = {**environment, "PAGER": f"{pager} -x"}
    for words in (["show", SLUG], ["list"], ["solution", SLUG]):
        said = _on_a_terminal(work, mine, *words)
        assert said.startswith("paged -x\r\n"), words
        assert len(said.splitlines()) > 24
    assert _on_a_terminal(work, mine, "show", SLUG).count("kata start ia3_linear") == 1
    for said in (
        _on_a_terminal(work, mine, "history", SLUG),
        _on_a_terminal(work, mine, "--no-pager", "show", SLUG),
        _on_a_terminal(work, {**mine, "NO_PAGER": "1"}, "show", SLUG),
        _on_a_terminal(work, {**mine, "PAGER": "half 'a word"}, "show", SLUG),
        _on_a_terminal(work, {**mine, "PAGER": "/no/such"}, "list"),
        kata("show", SLUG, PAGER=str(pager)).stdout,
    ):
        assert "paged" not in said
        assert "ia3_linear" in said


def test_code_goes_on_behind_a_mark(kata: Kata, work: Path, environment: dict[str, str]) -> None:
    """On a terminal that is narrower, in the reference and in the difference to it; a file gets
    every line as it is."""
    mine = {**environment, "NO_PAGER": "1", "NO_COLOR": "1"}
    for words in (["solution", SLUG], ["solution", SLUG, "--diff"]):
        lines = _on_a_terminal(work, mine, *words).replace("\r", "").splitlines()[:-1]
        assert max(map(len, lines)) <= 80
        assert any(line.lstrip().startswith("↪ ") for line in lines)
        whole = kata(*words, COLUMNS="80").stdout
        assert "↪" not in whole
        told = "\n".join(lines)
        assert "".join(re.sub(r"\n *↪ ", " ", told).split()) == "".join(whole.split())
    assert kata("solution", SLUG, COLUMNS="30").stdout == stubs.solution(SLUG)
