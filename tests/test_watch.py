"""`kata watch` and `kata edit`, on a pseudo-terminal and without one."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from terminals import PATIENCE_S, Terminal

from grader import content

pytestmark = pytest.mark.slow

Kata = Callable[..., "subprocess.CompletedProcess[str]"]
SLUG = "ia3_linear"
RIGHT = content.solution(SLUG).read_text()
WRONG = RIGHT.replace("self.base(x) * self.scale", "self.base(x) + self.scale")


@pytest.fixture
def work(kata: Kata, tmp_path: Path) -> Path:
    assert kata("init", ".").returncode == 0
    return tmp_path / "work"


def _save(path: Path, text: str) -> None:
    """As editors do: another file takes its place."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def _alive(session: int) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ProcessLookupError):
            if os.getsid(int(folder.name)) == session:
                yield int(folder.name)


def test_watch_grades_saves_and_follows_keys(
    kata: Kata, work: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """A save is graded once and shown in place; m, h, e, r, n and q do what the last line says."""
    file = work / f"{SLUG}.py"
    script = tmp_path / "my editor.py"
    script.write_text(f"import sys\nopen(sys.argv[2], 'w').write({RIGHT!r})\nprint(sys.argv[1])\n")
    editor = f"{sys.executable} {shlex.quote(str(script))} --wait"
    watch = Terminal(["kata", "watch", SLUG], work, {**environment, "VISUAL": editor})
    session = watch.process.pid
    assert "every save is graded" in watch.until("q quit")
    _save(file, WRONG)
    page = watch.until("not passed", "q quit")
    assert "\x1b[H\x1b[2J" in page
    assert "The scale is added, not multiplied" in page
    assert "mend:" not in page
    watch.type("m")
    page = watch.until("mend:", "q quit")
    assert "mend:     Multiply base(x) by scale." in page
    assert "expected" in page.partition("differs:")[2]
    watch.type("h")
    assert "Your last run: The scale is added, not multiplied." in watch.until("Hint 1", "q quit")
    watch.type("\x1b[A?")  # an arrow and a key that means nothing
    watch.type("e")
    assert "--wait" in watch.until("passed, complete", "q quit")
    file.unlink()
    watch.type("r")
    watch.until("There is no file", "q quit")
    watch.type("n")
    assert "is the blank stub" in watch.until("every save is graded", "q quit")
    watch.type("q")
    assert watch.end() == 0
    history = kata("history", SLUG).stdout
    assert f"{SLUG}: 2 attempts" in history
    assert not list(_alive(session))


def test_watch_without_a_terminal_prints_a_page_a_change(
    work: Path, environment: dict[str, str]
) -> None:
    """Also of a file that is missing at first, or half written; then a signal ends it, and all
    that was below it."""
    file = work / f"{SLUG}.py"
    file.unlink()
    watch = subprocess.Popen(
        ["kata", "watch", SLUG, "--poll", "0.1"],
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert watch.stdout is not None

    def until(word: str) -> str:
        assert watch.stdout is not None
        said = ""
        for line in watch.stdout:
            said += line
            if word in line:
                return said
        raise AssertionError(f"{word} did not come, but:\n{said}")

    assert "\x1b" not in until("which is not there yet")
    _save(file, f"{RIGHT}\ndef half(")
    assert "SYNTAX" in until("not passed")
    file.write_text("")
    assert "MISSING" in until("not passed")
    _save(file, RIGHT)
    assert "\x1b" not in until("passed, complete")
    watch.send_signal(signal.SIGTERM)
    watch.stdout.close()
    watch.wait(PATIENCE_S)
    end = time.monotonic() + PATIENCE_S
    while list(_alive(watch.pid)):
        assert time.monotonic() < end, "a process is left"
        time.sleep(0.05)


def test_edit_opens_the_current_kata(kata: Kata, work: Path, tmp_path: Path) -> None:
    """VISUAL before EDITOR, with its arguments; what is edited is what `run` grades then."""
    script = tmp_path / "editor.py"
    script.write_text("import sys; print('opened', sys.argv[1:])")
    mine = {"EDITOR": "false", "VISUAL": f"{sys.executable} {script} -w '--as is'"}
    kata("start", SLUG)
    done = kata("edit", **mine)
    path = str(work / f"{SLUG}.py")
    assert f"opened {['-w', '--as is', path]!r}" in done.stdout
    assert done.returncode == 0
    assert "opened" in kata("edit", "adapter_block", **mine).stdout
    assert "adapter_block ·" in kata("show").stdout


@pytest.mark.parametrize(
    ("editor", "said"),
    [
        ("", "No editor is set: `export EDITOR=vim`"),
        ("no-such-editor -w", "no-such-editor cannot be run: No such file or directory."),
        ("false", "false ended with status 1."),
        ("vi 'half", "EDITOR cannot be read as a command: No closing quotation."),
    ],
)
def test_edit_says_what_is_wrong_with_an_editor(
    kata: Kata, work: Path, editor: str, said: str
) -> None:
    """In a line, and how one is set."""
    done = kata("edit", SLUG, VISUAL="", EDITOR=editor)
    assert done.returncode == 2
    assert said in done.stderr
