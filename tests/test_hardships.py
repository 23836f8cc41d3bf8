"""Kills, hung-up readers, bad disks and odd terminals: nothing is lost and nothing is ugly."""

import os
import pty
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from grader import content
from grader.exam.examiner import Examiner
from grader.exam.verdict import Kind
from grader.practice import stubs

Kata = Callable[..., "subprocess.CompletedProcess[str]"]
CLONE = Path(__file__).parent.parent
KATA = [sys.executable, "-m", "grader"]


def test_kill_between_snapshot_and_replace_loses_nothing(
    kata: Kata, environment: dict[str, str], tmp_path: Path
) -> None:
    """However early `reset` is killed, the learner's text is in the file or in a version."""
    file = tmp_path / "work" / "lora_linear.py"
    blank = stubs.stub("lora_linear").encode()
    kata("start", "lora_linear")
    for number in range(20):
        mine = f"my work, {number}\n".encode()
        file.write_bytes(mine)
        process = subprocess.Popen([*KATA, "reset", "lora_linear"], env=environment, stdout=-3)
        time.sleep(0.05 + 0.01 * number)
        process.kill()
        process.wait()
        there = file.read_bytes()
        assert there in (mine, blank)
        if there == blank:
            with sqlite3.connect(tmp_path / "home" / "progress.db") as database:
                kept = {row[0] for row in database.execute("SELECT source FROM snapshots")}
            database.close()
            assert mine in kept
    file.write_bytes(b"after all\n")
    assert kata("reset", "lora_linear").returncode == 0
    assert os.listdir(tmp_path / "work") == ["lora_linear.py"]


@pytest.mark.parametrize("command", [["list"], ["history", "lora_linear"], ["hint", "lora_linear"]])
def test_damaged_progress_file_is_told_in_plain_words(
    kata: Kata, tmp_path: Path, command: list[str]
) -> None:
    """A file that is no database stays as it is and gives one plain message."""
    file = tmp_path / "home" / "progress.db"
    file.parent.mkdir()
    file.write_bytes(b"not a database, really not " * 100)
    done = kata(*command)
    assert done.returncode == 3
    assert str(file) in done.stderr
    assert "Traceback" not in done.stderr
    assert file.read_bytes().startswith(b"not a database")


def test_grading_goes_on_without_a_data_folder(kata: Kata, tmp_path: Path) -> None:
    """Where nothing can be stored the verdict comes all the same, with a note."""
    (tmp_path / "home").write_text("a file where the folder should be")
    shutil.copy(content.solution("lora_linear"), tmp_path / "work")
    done = kata("run", "lora_linear")
    assert done.returncode == 0
    assert "passed, complete" in done.stdout
    assert done.stderr.startswith("note: this attempt is not stored.")


def test_full_disk_changes_nothing(kata: Kata, environment: dict[str, str], tmp_path: Path) -> None:
    """When the disk is full `reset` says so and the learner's file stays."""
    file = tmp_path / "work" / "lora_linear.py"
    kata("start", "lora_linear")
    file.write_bytes(b"mine\n" * 20_000)

    def no_space() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run(
        [*KATA, "reset", "lora_linear"],
        env=environment,
        preexec_fn=no_space,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert file.read_bytes() == b"mine\n" * 20_000
    assert kata("reset", "lora_linear").returncode == 0


@pytest.mark.parametrize("place", ["in the file", "in a check"])
def test_interrupt_ends_cleanly(environment: dict[str, str], tmp_path: Path, place: str) -> None:
    """Ctrl-C during a grading: exit code 130, no verdict, no process left behind."""
    hang = (
        f"open({str(tmp_path / 'began')!r}, 'w').write(str(__import__('os').getpid()))\n"
        "while True: pass\n"
    )
    if place == "in a check":  # by then others have passed
        hang = content.solution("lora_linear").read_text() + (
            "\n\ndef hang(self, *_):\n" + textwrap.indent(hang, "    ") + "\n\n"
            "LoRALinear.unmerge = hang\n"
        )
    (tmp_path / "work" / "lora_linear.py").write_text(hang)
    process = subprocess.Popen(
        [*KATA, "run", "lora_linear"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "began").exists() or not (tmp_path / "began").read_text():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in out + err
    stage = int((tmp_path / "began").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(stage, 0)


def test_reader_that_hangs_up_is_no_error(environment: dict[str, str]) -> None:
    """`kata show ... | head -1` is quiet and ends well."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*KATA, "show", "lora_linear"], env=environment, stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    assert done.returncode == 0
    assert done.stderr == b""


def test_terminal_without_unicode(kata: Kata) -> None:
    """An ASCII terminal gets the nearest signs."""
    done = kata("run", "lora_linear", "--solution", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert "+ shape " in done.stdout


def _on_a_terminal(command: list[str], environment: dict[str, str]) -> str:
    """What a command writes on a terminal of its own."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*KATA, *command], env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        said += piece
    os.close(ours)
    process.wait()
    return said.decode()


def test_colours_only_where_wanted(kata: Kata, environment: dict[str, str]) -> None:
    """Colours on a terminal; none in a pipe, with NO_COLOR or on a dumb one."""
    environment["TERM"] = "xterm"
    assert "\x1b[" in _on_a_terminal(["list"], environment)
    assert "\x1b[" not in _on_a_terminal(["list"], {**environment, "NO_COLOR": "1"})
    assert "\x1b[" not in _on_a_terminal(["list"], {**environment, "TERM": "dumb"})
    assert "\x1b[" not in kata("list").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_slugs_are_completed(kata: Kata, shell: str) -> None:
    """Each shell's script asks `kata`, which answers with the slugs that fit."""
    assert "_KATA_COMPLETE" in kata("completion", shell).stdout
    done = kata(
        _KATA_COMPLETE=f"{shell}_complete",
        COMP_WORDS="lora_l" if shell == "fish" else "kata run lora_l",
        COMP_CWORD="lora_l" if shell == "fish" else "2",
    )
    if shell != "fish":  # fish asks with the whole line
        assert "lora_linear" in done.stdout


@pytest.mark.parametrize("columns", ["40", "60", "100"])
def test_pages_fit_the_width(kata: Kata, columns: str) -> None:
    """Text for people is wrapped to the terminal; only code may be wider."""
    page = kata("hint", "lora_linear", COLUMNS=columns).stdout
    assert max(map(len, page.splitlines())) <= int(columns)


def test_endless_loop_in_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that does not end is given up after its limit, and says so."""
    source = content.solution("lora_linear").read_text()
    looping = source.replace(
        "out = self.base(x)", "while x.dim() == 1: pass\n        out = self.base(x)"
    )
    from grader.suites import test_lora_linear as suite

    for check in vars(suite).values():
        if hasattr(check, "kata_seconds"):
            monkeypatch.setattr(check, "kata_seconds", 1.0)
    with Examiner() as examiner:
        verdict = examiner.grade("lora_linear", looping.encode())
    assert not verdict.passed
    assert verdict.error is not None
    assert verdict.error.kind is Kind.TIMEOUT
    passed = {check.name for check in verdict.checks if check.outcome == "passed"}
    assert {"any_leading_dimensions", "base_is_frozen"} <= passed


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A clone of ours to break, with three bugs in the catalogue, so that verify is quick."""
    clone = tmp_path / "clone"
    for folder in ("grader", "solutions", "katas"):
        shutil.copytree(CLONE / folder, clone / folder, ignore=shutil.ignore_patterns("*.pyc"))
    card = clone / "grader" / "catalog" / "lora_linear.yaml"
    head, _, tail = card.read_text().partition("\nbugs:\n")
    bugs, _, sources = tail.partition("\nsources:")
    three = "  - id: ".join(bugs.split("  - id: ")[:4])
    card.write_text(f"{head}\nbugs:\n{three}sources:{sources}")
    return clone


@pytest.mark.parametrize(
    ("file", "old", "new", "word"),
    [
        ("solutions/lora_linear.py", "", "", ""),
        ("solutions/lora_linear.py", "return out +", "return 2 * out +", "the solution fails"),
        ("grader/exam/checks.py", "return bool((", "return True or bool((", "within tolerance"),
    ],
    ids=["whole", "solution-broken", "suite-weakened"],
)
def test_verify_notices(kata: Kata, copy: Path, file: str, old: str, new: str, word: str) -> None:
    """verify exits with 0 on our files, and with 1 once solution or suite is spoilt."""
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new))
    done = kata("verify", "lora_linear", PYTHONPATH=str(copy))
    assert done.returncode == (1 if word else 0), done.stdout
    assert word in done.stdout
    assert "Traceback" not in done.stderr
