"""Kills, hung-up readers, bad disks and odd terminals: nothing is lost and nothing is ugly."""

import json
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
from grader.practice import stubs

pytestmark = pytest.mark.slow

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


DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "no database": lambda whole: b"not a database, really not " * 100,
    "empty": lambda whole: b"",
    "first page alone": lambda whole: whole[:4096],
    "zeros": lambda whole: bytes(len(whole)),
    "of another program": lambda whole: _other_database(),
}


def _other_database() -> bytes:
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE contacts (name TEXT)")
        data: bytes = database.serialize()
    database.close()
    return data


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_progress_file_is_told_in_plain_words(
    kata: Kata, tmp_path: Path, damage: str
) -> None:
    """A file that is damaged gives one plain message, stays as it is, and is never taken for a
    new one."""
    file = tmp_path / "home" / "progress.db"
    assert kata("start", "ia3_linear").returncode == 0
    spoilt = DAMAGED[damage](file.read_bytes())
    file.write_bytes(spoilt)
    for command in (["list"], ["history", "ia3_linear"], ["hint", "ia3_linear"], ["today"]):
        done = kata(*command)
        assert done.returncode == 3, command
        assert f"{file} is damaged" in done.stderr
        assert "Traceback" not in done.stderr
        assert file.read_bytes() == spoilt


def test_dates_that_are_none_are_told_in_plain_words(kata: Kata, tmp_path: Path) -> None:
    """A row whose time is no time names the file and the text."""
    shutil.copy(content.solution("lora_linear"), tmp_path / "work")
    assert kata("run", "lora_linear").returncode == 0
    with sqlite3.connect(tmp_path / "home" / "progress.db") as database:
        database.execute("UPDATE attempts SET at = '31.2.2026'")
        database.execute("UPDATE snapshots SET at = '31.2.2026'")
    database.close()
    for command in (["history", "lora_linear"], ["stats"]):
        done = kata(*command)
        assert done.returncode == 3
        assert "is damaged" in done.stderr
        assert "31.2.2026" in done.stderr
        assert "kata itself failed" not in done.stderr


def test_full_disk_can_still_be_read(
    kata: Kata, environment: dict[str, str], tmp_path: Path
) -> None:
    """Where there is no room for SQLite's index, `list` shows what is stored."""
    shutil.copy(content.solution("lora_linear"), tmp_path / "work")
    assert kata("run", "lora_linear").returncode == 0
    done = subprocess.run(
        [*KATA, "list"], env=environment, preexec_fn=_no_space(0), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "1 of" in done.stdout


def test_relative_data_folder(kata: Kata, tmp_path: Path) -> None:
    """KATA_HOME may be relative to the current folder."""
    shutil.copy(content.solution("lora_linear"), tmp_path / "work")
    assert kata("run", "lora_linear", KATA_HOME="mine").returncode == 0
    assert (tmp_path / "work" / "mine" / "progress.db").exists()
    assert "passed" in kata("history", "lora_linear", KATA_HOME="mine").stdout


@pytest.mark.parametrize("closed", ["1", "2", "1 2", "0 1 2"])
def test_closed_streams(environment: dict[str, str], tmp_path: Path, closed: str) -> None:
    """With closed streams the verdict is made and stored all the same, and nothing is ugly."""
    shutil.copy(content.solution("lora_linear"), tmp_path / "work")
    close = " ".join(f"{number}>&-" for number in closed.split())
    command = f"exec {sys.executable} -m grader run lora_linear {close}"
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""
    assert ("passed, complete" in done.stdout) == ("1" not in closed)
    with sqlite3.connect(tmp_path / "home" / "progress.db") as database:
        assert database.execute("SELECT count(*) FROM attempts").fetchone()[0] == 1
    database.close()


@pytest.mark.parametrize("command", [["run", "lora_linear"], ["list"], ["list", "--json"], ["-h"]])
def test_output_on_a_full_disk(
    environment: dict[str, str], tmp_path: Path, command: list[str]
) -> None:
    """Output that cannot be written is said once, in a line, with exit code 3."""
    shutil.copy(content.solution("lora_linear"), tmp_path / "work")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*KATA, *command], env=environment, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 3
    assert done.stderr == "error: The output cannot be written: No space left on device.\n"


def test_current_folder_removed(environment: dict[str, str], tmp_path: Path) -> None:
    """In a folder that is gone every command says so."""
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f"rmdir {gone} && exec {sys.executable} -m grader list"
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=gone,
        env={**environment, "PYTHONPATH": str(CLONE)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: The current folder does not exist any more")


def test_workspace_removed_while_grading(kata: Kata, tmp_path: Path) -> None:
    """A file that removes the workspace it lies in is judged; the attempt is kept."""
    work = tmp_path / "work"
    source = f"import shutil; shutil.rmtree({str(work)!r})\n"
    source += content.solution("lora_linear").read_text()
    (work / "lora_linear.py").write_text(source)
    done = kata("run", "lora_linear")
    assert done.returncode == 0, done.stderr
    assert "passed, complete" in done.stdout
    assert "Traceback" not in done.stderr
    assert not work.exists()
    work.mkdir()
    assert "1: passed" in kata("history", "lora_linear").stdout


def test_a_submission_that_takes_away_the_examiners_files(kata: Kata, tmp_path: Path) -> None:
    """With no file left to open, the verdict still comes and says what was done."""
    attack = CLONE / "tests" / "files" / "attacks" / "prlimit_examiner_nofile.py"
    done = kata("run", "lora_linear", "--file", str(attack))
    assert done.returncode == 1, done.stderr
    assert "changed the limits of the process that judges it" in done.stdout
    assert "Traceback" not in done.stderr


def test_grading_goes_on_without_a_data_folder(kata: Kata, tmp_path: Path) -> None:
    """Where nothing can be stored the verdict comes all the same, with a note."""
    (tmp_path / "home").write_text("a file where the folder should be")
    shutil.copy(content.solution("lora_linear"), tmp_path / "work")
    done = kata("run", "lora_linear")
    assert done.returncode == 0
    assert "passed, complete" in done.stdout
    assert done.stderr.startswith("note: this attempt is not stored.")


def _no_space(above: int) -> Callable[[], None]:
    """What makes a process meet a full disk: no file of its can grow beyond so many bytes."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (above, above))

    return limit


def test_full_disk_changes_nothing(kata: Kata, environment: dict[str, str], tmp_path: Path) -> None:
    """When the disk is full `reset` says so and the learner's file stays."""
    file = tmp_path / "work" / "lora_linear.py"
    kata("start", "lora_linear")
    file.write_bytes(b"mine\n" * 20_000)

    done = subprocess.run(
        [*KATA, "reset", "lora_linear"],
        env=environment,
        preexec_fn=_no_space(20_000),
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


@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "old", "new", "word"),
    [
        ("solutions/lora_linear.py", "", "", ""),
        ("solutions/lora_linear.py", "return out +", "return 2 * out +", "the solution fails"),
        (
            "grader/exam/checks.py",
            "return off <= _allowed",
            "return True or off <= _allowed",
            "within tolerance",
        ),
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


POISON = """
import importlib.util, os, pathlib, py_compile, sys
suite = pathlib.Path({suite!r})
text = "from grader.exam.checks import part\\n@part('forward')\\ndef test_all(): pass\\n"
if {how!r} == "overwritten":
    suite.write_text(text)
else:
    whole = suite.read_bytes()
    times = suite.stat()
    suite.write_text(text + "#" * (len(whole) - len(text)))
    os.utime(suite, ns=(times.st_atime_ns, times.st_mtime_ns))
    py_compile.compile(str(suite))
    suite.write_bytes(whole)
    os.utime(suite, ns=(times.st_atime_ns, times.st_mtime_ns))
"""


@pytest.mark.parametrize("how", ["overwritten", "poisoned bytecode"])
def test_suites_are_read_before_the_submission(
    kata: Kata, copy: Path, tmp_path: Path, how: str
) -> None:
    """A file that overwrites its suite while it is loaded is judged by the suite as it was; one
    that leaves bytecode behind changes no later verdict."""
    suite = copy / "grader" / "suites" / "test_lora_linear.py"
    wrong = content.solution("lora_linear").read_text().replace("alpha / rank", "alpha")
    file = tmp_path / "work" / "lora_linear.py"
    file.write_text(POISON.format(suite=str(suite), how=how) + wrong)
    first = json.loads(kata("run", "lora_linear", "--json", PYTHONPATH=str(copy)).stdout)
    assert not first["passed"]
    assert len(first["checks"]) > 40
    if how != "overwritten":
        file.write_text(wrong)
        second = json.loads(kata("run", "lora_linear", "--json", PYTHONPATH=str(copy)).stdout)
        assert not second["passed"]
        assert len(second["checks"]) == len(first["checks"])


LATE_IMPORT = """
import importlib.abc, importlib.util, pathlib, sys, tempfile, warnings
here = pathlib.Path(tempfile.mkdtemp()) / "stand_in.py"
here.write_text(
    "import os, sys, warnings, logging\\n"
    "print('torch prints'); warnings.warn('torch warns'); logging.warning('torch logs')\\n"
    "os.write(2, b'torch writes')\\n"
)
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch.stand_in":
            return importlib.util.spec_from_file_location(name, here)
sys.meta_path.append(Finder())
print("mine before")
import torch.stand_in
print("mine after")
warnings.warn("my warning")
"""


def test_what_torch_says_is_not_the_learners(kata: Kata, tmp_path: Path) -> None:
    """What a part of torch prints and warns while it is imported late is not shown as the file's;
    what the file itself prints and warns is."""
    file = tmp_path / "work" / "lora_linear.py"
    file.write_text(LATE_IMPORT + "class LoRALinear: pass\n")
    done = kata("run", "lora_linear")
    assert done.stderr == ""
    shown = done.stdout.partition("It printed while it was loaded:\n")[2]
    assert shown.startswith("  mine before\n  mine after\n")
    assert "UserWarning: my warning" in shown
    assert "torch" not in shown


@pytest.mark.long
@pytest.mark.parametrize("weakened", [False, True])
def test_verify_mutants_notices(kata: Kata, copy: Path, weakened: bool) -> None:
    """Every edit of a solution fails or is accounted for; where the suite is spoilt, the edits
    that pass are shown."""
    if weakened:
        checks = copy / "grader" / "exam" / "checks.py"
        text = checks.read_text()
        begin = "    expected = torch.as_tensor(want)\n"
        assert begin in text
        checks.write_text(text.replace(begin, f"    return\n{begin}"))
    arguments = ("verify", "parallel_adapter_block", "--mutants", "--json")
    done = kata(*arguments, PYTHONPATH=str(copy))
    assert done.returncode == (1 if weakened else 0), done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert answer["passed"] is not weakened
    (edits,) = answer["edits"]
    assert edits["made"] == edits["caught"] + edits["spared"] + len(edits["survivors"])
    assert edits["made"] > 10
    assert bool(edits["survivors"]) is weakened
