"""`kata debug`, on a pseudo-terminal and as a script."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from terminals import Terminal

from grader import content

pytestmark = pytest.mark.slow

Kata = Callable[..., "subprocess.CompletedProcess[str]"]
SLUG = "ia3_linear"
LINE = "        return self.base(x) * self.scale"
RIGHT = content.solution(SLUG).read_text()
WRONG = RIGHT.replace(LINE, "        return self.base(x) + self.scale")
STOPS = RIGHT.replace(LINE, f"        print('here', end=' ')\n        breakpoint()\n{LINE}")


@pytest.fixture
def file(kata: Kata, tmp_path: Path) -> Path:
    assert kata("start", SLUG).returncode == 0
    return tmp_path / "work" / f"{SLUG}.py"


def test_a_breakpoint_in_a_run_is_no_attempt(kata: Kata, file: Path) -> None:
    """The page says where it works; `pdb.set_trace()` and one at import are no other."""
    for source in (
        STOPS,
        STOPS.replace("breakpoint()", "import pdb; pdb.set_trace()"),
        f"breakpoint()\n{RIGHT}",
    ):
        file.write_text(source)
        done = kata("run")
        assert done.returncode == 1
        assert "BREAKPOINT: It stops at a breakpoint" in done.stdout
        assert "`kata debug`" in done.stdout
        assert "BdbQuit" not in done.stdout
        assert f"not judged. Next: `kata debug {SLUG}`." in done.stdout
    assert f"{SLUG}: 0 attempts" in kata("history").stdout


def test_pdb_works_in_this_terminal(kata: Kata, file: Path, environment: dict[str, str]) -> None:
    """With prints unbuffered, and the names of the file; left by q, it is over."""
    file.write_text(STOPS)
    debug = Terminal(["kata", "debug", SLUG, "any leading"], file.parent, environment)
    shown = debug.until("(Pdb)")
    assert "here " in shown
    assert f"-> {LINE.strip()}" in shown
    debug.type("p tuple(x.shape)\n")
    debug.until("(5, 18)", "(Pdb)")
    debug.type("q\n")
    debug.until("Left.")
    assert debug.end() == 1
    assert f"Nothing of {SLUG} is kept yet" in kata("history").stdout


def test_the_failing_check_again(kata: Kata, file: Path, tmp_path: Path) -> None:
    """What the page led with, on its inputs: whole values, then the same words; the script alone
    computes the same. None of it is an attempt."""
    file.write_text(WRONG)
    page = kata("run", "--seed", "7").stdout
    script = tmp_path / "script" / "call.py"
    script.parent.mkdir()
    done = kata("debug", "--script", str(script))
    assert done.returncode == 1
    assert done.stdout.startswith(f"{SLUG}: any leading dimensions · --seed 7\n")
    assert "came:" in done.stdout
    assert "expected:" in done.stdout
    said = "The scale is added, not multiplied: the output for x (5, 18) is not what it should be"
    assert said in " ".join(page.split())
    assert said in " ".join(done.stdout.split())
    assert f"{SLUG}: 1 attempt" in kata("history").stdout
    text = script.read_text()
    assert str(file) in text
    assert len(text.splitlines()) < 150
    alone = {k: v for k, v in os.environ.items() if not k.startswith(("KATA", "PYTHON"))}
    command = [sys.executable, script.name]
    run = subprocess.run(
        command, cwd=script.parent, env=alone, capture_output=True, text=True, check=True
    )
    got, expected, difference = (run.stdout.index(w) for w in ("got:", "expected:", "difference:"))
    assert got < expected < difference
    file.write_text(RIGHT)
    assert "This check passes." in kata("debug", "any leading dimensions").stdout


def test_tracebacks_are_whole(kata: Kata, file: Path) -> None:
    """From the probe's call on, through torch, without a frame of ours."""
    file.write_text(
        RIGHT.replace(LINE, "        return torch.nn.functional.linear(x, self.scale[:3])")
    )
    done = kata("debug", SLUG, "single_vector")
    assert "Traceback (most recent call last)" in done.stderr
    assert f'"{file}"' in done.stderr or file.name in done.stderr
    assert "torch/nn/modules/module.py" in done.stderr
    assert "grader/exam" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([SLUG], "was not run yet: `kata run ia3_linear`, or name a check."),
        ([SLUG, "no", "such", "check"], "'no such check' is none of the checks of ia3_linear:"),
        ([SLUG, "gradient"], "'gradient' means several of the checks of ia3_linear:"),
    ],
)
def test_what_cannot_be_debugged_is_said(
    kata: Kata, file: Path, words: list[str], said: str
) -> None:
    """In a line, before anything is imported."""
    done = kata("debug", *words)
    assert done.returncode == 2
    assert said in done.stderr
