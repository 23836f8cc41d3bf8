"""`kata grade`: a class is graded whole, goes on where it was broken off, and loses nobody."""

import csv
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from classes import (
    RIGHT,
    SLUG,
    WRONG,
    begun,
    found,
    graded,
    lay,
    notebook,
    outcomes,
    tarred,
    zipped,
)
from terminals import Terminal

from grader import content
from grader.batch import formats, records
from grader.batch.feedback import Told
from grader.batch.running import Crew, Task
from grader.errors import GraderError
from grader.exam import box
from grader.store.results import FILE, Grading, Results, Submission

Kata = Callable[..., "subprocess.CompletedProcess[str]"]
PLAIN = ("--no-sandbox", "--seeds", "1")
PATIENCE_S = 100.0


def test_every_form_is_graded(kata: Kata, tmp_path: Path) -> None:
    """Folders, named files, archives, notebooks and odd encodings give the verdicts of the code in
    them; a second run grades only what has changed; feedback can be told later, too."""
    text = RIGHT.decode()
    head, _, rest = text.partition("class LoRA:")
    klass = f"class LoRA:{rest}"
    magic = "%matplotlib inline\nnumber = 1\ndef rank(r):\n    return r * number\n"
    half = klass.replace("/ r\n", "/ rank(r)\n")
    folder = lay(
        tmp_path / "class",
        {
            "ada/numpy_lora.py": RIGHT,
            "ben__numpy_lora.py": WRONG,
            "cem.zip": zipped({"cem/numpy_lora.py": b"\xef\xbb\xbf" + RIGHT}),
            "dan.tar.gz": tarred(
                {"dan/katas/numpy_lora.py": RIGHT, "dan/solutions/numpy_lora.py": WRONG}, "gz"
            ),
            "eve.ipynb": notebook("boom = 1 / 0", head, magic, klass, half, "!ls\nLoRA()"),
            "fay/work/numpy-lora.ipynb": notebook(text, f"%%kata {SLUG}\n{text}", WRONG.decode()),
            "gus/gus.zip": zipped({"inner.tar.xz": tarred({"numpy_lora.py": RIGHT}, "xz")}),
            "hal/numpy_lora.py": b"",
            "ida/numpy_lora.py": b"# coding: latin-1\n# \xe9\n" + RIGHT.replace(b"\n", b"\r\n"),
            "=jo/numpy_lora.py": b"def LoRA(:\n",
        },
    )
    out = tmp_path / "out"
    done = kata("grade", str(folder), "--out", str(out), "--jobs", "2", *PLAIN)
    assert done.returncode == 0, done.stderr
    right = dict.fromkeys(("ada", "cem", "dan", "eve", "fay", "gus", "ida"), "passed")
    assert outcomes(out) == right | dict.fromkeys(("ben", "hal", "=jo"), "failed")
    assert "7 of 10 submissions passed, 3 failed." in done.stdout
    assert "10 submissions ran WITHOUT the sandbox" in done.stdout
    assert "10 of 10 graded" in done.stderr
    whole = json.loads((out / "results.json").read_bytes())
    assert (whole["boxed"], whole["seeds"], whole["feedback"]) == (False, 1, "full")
    ben = found(out)["ben", SLUG]
    verdict = ben["gradings"][0]["verdict"]
    assert not ben["boxed"]
    bugs = {check["bug"] for check in verdict["checks"]}
    assert "scale-is-alpha" in bugs
    assert "expected" in json.dumps(verdict)
    alone = kata("run", SLUG, "--file", str(folder / "ben__numpy_lora.py"), "--json",
                 "--seed", str(ben["gradings"][0]["seed"]))  # fmt: skip
    own = json.loads(alone.stdout)["checks"]
    assert [(c["name"], c["outcome"]) for c in own] == [
        (c["name"], c["outcome"]) for c in verdict["checks"]
    ]
    assert any("difference" in check for check in own)  # for one's own eyes alone
    assert not any("difference" in check for check in verdict["checks"])
    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        lines = {line["who"]: line for line in csv.DictReader(file)}
    assert lines["'=jo"]["outcome"] == "failed"  # no formula in a spreadsheet
    assert lines["ben"]["mistakes"] in done.stdout
    assert (lines["ada"]["boxed"], lines["ada"]["checks"]) == ("no", lines["ada"]["checks_passed"])

    before = graded(out)
    (folder / "ben__numpy_lora.py").write_bytes(RIGHT)
    (folder / "hal" / "numpy_lora.py").unlink()
    again = kata("grade", str(folder), "--out", str(out), "--json", "--feedback", "named", *PLAIN)
    assert again.returncode == 0
    whole = json.loads(again.stdout)
    assert whole == json.loads((out / "results.json").read_bytes())
    assert any(note.startswith("Of the run before, 1 are") for note in whole["notes"])
    after = graded(out)
    assert {who for (who, _), _ in after.items() - before.items()} == {"ben"}
    now = {who: one["outcome"] for (who, _), one in found(out).items()}
    assert (now["ben"], now["hal"]) == ("passed", "refused")
    jo = found(out)["=jo", SLUG]["gradings"][0]["verdict"]
    assert jo["error"]["kind"] == "syntax"  # results.json is for who grades, whole at any level


@pytest.mark.long
def test_force_grades_all_anew_with_the_same_draws(kata: Kata, tmp_path: Path) -> None:
    """Draws hang on the source and the folder: --force makes new gradings with the same seeds,
    more seeds keep those that are there, fewer drop some."""
    folder, out = lay(tmp_path / "class", {"ada/numpy_lora.py": RIGHT}), tmp_path / "out"
    command = ("grade", str(folder), "--out", str(out), "--no-sandbox", "--seeds")
    assert kata(*command, "1").returncode == 0
    first = graded(out)
    assert kata(*command, "3").returncode == 0
    three = graded(out)
    assert len(three) == 3
    assert first.items() <= three.items()
    assert kata(*command, "2", "--force").returncode == 0
    two = graded(out)
    assert len(two) == 2
    assert two.keys() < three.keys()
    assert not set(two.values()) & set(three.values())
    assert not {*records.draws("a", "", 20)} & {*records.draws("b", "", 20)}  # of other folders


def _children(pid: int) -> Iterator[int]:
    """Living processes below one, itself among them."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from _children(int(child))
    yield pid


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_broken_off_at_any_moment_nothing_is_lost(
    kata: Kata, environment: dict[str, str], tmp_path: Path, number: int
) -> None:
    """Killed or interrupted somewhere in a run, no process is left; --resume makes what is
    missing and nothing twice. Meanwhile no other process may write there."""
    files = {f"{who}/numpy_lora.py": RIGHT + f"# {who}\n".encode() for who in ("ada", "ben", "cem")}
    folder, out = lay(tmp_path / "class", files), tmp_path / "out"
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = ["grade", str(folder), "--out", str(out), "--no-sandbox", "--jobs", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "grader", *command],
        env={**environment, "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    enough = random.randrange(0, 4)
    end = time.monotonic() + PATIENCE_S
    while not begun(out) or len(graded(out)) < enough:
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGSTOP)  # so that it does not come to its end meanwhile
    refused = kata("grade", str(folder), "--out", str(out))
    assert (refused.returncode, "Another `kata grade`" in refused.stderr) == (2, True)
    family = [*_children(process.pid)]
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=PATIENCE_S)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "goes on" in said
        assert "Traceback" not in said
    while any(map(_alive, family)) or any(temporary.iterdir()):
        assert time.monotonic() < end
        time.sleep(0.02)
    before = graded(out)
    assert len(before) < 6
    assert kata("grade", "--resume", "--out", str(out)).returncode == 0
    after = graded(out)
    assert before.items() <= after.items()
    assert len(after) == 6
    assert outcomes(out) == dict.fromkeys(("ada", "ben", "cem"), "passed")
    assert not json.loads((out / "results.json").read_bytes())["boxed"]


@pytest.mark.long
def test_verdict_that_depends_on_the_draw_is_unstable(kata: Kata, tmp_path: Path) -> None:
    """Right for one draw and wrong for the other is no pass, and shown as what it is."""
    lucky = RIGHT.replace(b"/ r\n", b"/ (1 if ODD else r)\n").replace(
        b"import numpy as np\n", b"import numpy as np\nimport random\nODD = random.random() < 0.5\n"
    )
    folder, out = lay(tmp_path / "class", {"ada/numpy_lora.py": lucky}), tmp_path / "out"
    # A run makes the folder's secret; here it is one with which the two draws differ.
    lay(tmp_path / "none", {"ada/galore.py": b"x" * (2 << 20)})
    assert kata("grade", str(tmp_path / "none"), "--out", str(out)).returncode == 0
    digest = sha256(lucky).hexdigest()
    secret = next(s for s in map(str, range(99)) if len(_odd(s, digest)) == 2)
    with sqlite3.connect(out / FILE) as database:
        database.execute("UPDATE settings SET value = ? WHERE key = 'secret'", [f'"{secret}"'])
    database.close()
    done = kata("grade", str(folder), "--out", str(out), "--no-sandbox")
    assert done.returncode == 0
    assert outcomes(out) == {"ada": "unstable"}
    assert "0 of 1 submission passed, 1 unstable." in done.stdout
    assert "some draws of the inputs only" in done.stdout


def _odd(secret: str, digest: str) -> set[bool]:
    return {random.Random(seed).random() < 0.5 for seed in records.draws(secret, digest, 2)}


# Kills the process that grades it, which is the parent of its parent.
KILLER = b"""
import os, signal
with open(f"/proc/{os.getppid()}/stat") as file:
    os.kill(int(file.read().rpartition(")")[2].split()[1]), signal.SIGKILL)
"""


@pytest.mark.long
def test_examiner_that_breaks_costs_one_submission(kata: Kata, tmp_path: Path) -> None:
    """A submission that kills what grades it is tried once more and refused; its neighbours have
    the verdicts that they have alone, and the run is complete. The next run tries it again."""
    sources = {"ada": RIGHT, "ben": KILLER, "cem": WRONG, "dan": b"while True: pass", "eve": RIGHT}
    files = {f"{who}/numpy_lora.py": source for who, source in sources.items()}
    folder, out = lay(tmp_path / "class", files), tmp_path / "out"
    done = kata("grade", str(folder), "--out", str(out), "--jobs", "1", *PLAIN)
    assert done.returncode == 0, done.stderr
    others = {"ada": "passed", "cem": "failed", "dan": "failed", "eve": "passed"}
    assert outcomes(out) == {**others, "ben": "refused"}
    assert found(out)["dan", SLUG]["gradings"][0]["verdict"]["error"]["kind"] == "timeout"
    assert "ben, numpy_lora: The process that grades was killed." in done.stdout
    (folder / "ben" / "numpy_lora.py").write_bytes(KILLER.replace(b"os.kill", b"print"))
    again = kata("grade", "--resume", "--out", str(out), "--feedback", "named")
    assert again.returncode == 0
    assert outcomes(out) == {**others, "ben": "failed"}


def test_without_the_box_nothing_is_graded(kata: Kata, tmp_path: Path) -> None:
    """Where bubblewrap is missing the run stops, says what to install and how to do without."""
    folder, out = lay(tmp_path / "class", {"ada/numpy_lora.py": RIGHT}), tmp_path / "out"
    done = kata("grade", str(folder), "--out", str(out), PATH=str(tmp_path))
    assert done.returncode == 3
    assert "bubblewrap" in done.stderr
    assert "--no-sandbox" in done.stderr
    assert "Traceback" not in done.stderr
    assert graded(out) == {}


@pytest.mark.long
def test_boxed_run_says_so(kata: Kata, tmp_path: Path) -> None:
    """In the box nobody sees what others handed in, and every report says that it held."""
    if not all(layer.holds for layer in box.layers() if layer.needed):
        pytest.skip("no sandbox on this machine: see `kata doctor`")
    folder = lay(tmp_path / "class", {"ada/numpy_lora.py": RIGHT, "ben/numpy_lora.py": RIGHT})
    spy = f"open({str(folder / 'ada' / 'numpy_lora.py')!r})\n".encode() + RIGHT
    lay(folder, {"ben/numpy_lora.py": spy})
    out = tmp_path / "out"
    done = kata("grade", str(folder), "--out", str(out), "--seeds", "1", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    assert outcomes(out) == {"ada": "passed", "ben": "failed"}
    assert "WITHOUT" not in done.stdout
    whole = json.loads((out / "results.json").read_bytes())
    assert whole["boxed"]
    assert {"seccomp", "mounts"} <= {layer["name"] for layer in whole["layers"]}
    assert "FileNotFoundError" in json.dumps(found(out)["ben", SLUG])


def test_what_is_graded_anew(tmp_path: Path) -> None:
    """A grading stays while source, basis and seed do; with the sandbox only one made in it."""
    one = Submission(who="ada", slug=SLUG, file="a.py", sha256="a", source=b"a")
    other = Submission(who="ada", slug=SLUG, file="b.py", sha256="b", source=b"b")
    at = datetime.now(UTC)

    def left(*found: tuple[Submission, str, list[int]], boxed: bool = True) -> list[int]:
        results.take(found, boxed=boxed, force=False)
        return [missing.seed for missing in results.missing()]

    with Results.writing(tmp_path) as results:
        assert left((one, "x", [1, 2])) == [1, 2]
        id = results.missing()[0].id
        for seed, boxed in ((1, True), (2, False)):
            results.record(id, Grading(seed=seed, at=at, boxed=boxed, verdict='{"passed": true}'))
        assert left((one, "x", [1, 2]), boxed=False) == []
        assert [row.outcome for row in results.rows()] == ["passed"]
        assert results.take([], boxed=True, force=False) == 1  # it is not handed in this time
        assert results.take([], boxed=True, force=False) == 0
        assert results.missing() == []
        assert list(results.rows()) == []
        assert left((one, "x", [1, 2, 3])) == [2, 3]
        assert [row.outcome for row in results.rows()] == ["open"]
        results.refuse(id, "It broke.")
        assert results.missing() == []
        assert [(row.outcome, row.trouble) for row in results.rows()] == [("refused", "It broke.")]
        assert left((one, "x", [1])) == []
        assert left((one, "y", [1])) == [1]
        assert left((other, "y", [1])) == [1]
        assert results.source(id) == b"b"


DUMPS = sorted((Path(__file__).parent / "databases" / "results").glob("*.sql"))


@pytest.mark.parametrize("dump", DUMPS, ids=lambda dump: dump.stem)
def test_results_of_every_version_are_read(tmp_path: Path, dump: Path) -> None:
    """Each version of the schema has the dump of a file that its code wrote, which is read."""
    folder = content.SUITES.parent / "store" / "schema" / "results"
    assert [path.stem for path in sorted(folder.glob("*.sql"))] == [path.stem for path in DUMPS]
    with sqlite3.connect(tmp_path / FILE) as database:
        database.executescript(dump.read_text(encoding="utf-8"))
    database.close()
    with Results.open(tmp_path) as results:
        assert results.get("options", records.Options).paths == ("/class",)
        rows = {row.submission.who: row for row in results.rows()}
        assert {who: str(row.outcome) for who, row in rows.items()} == {
            "ada": "unstable",
            "ben": "failed",
            "cem": "open",
            "dan": "refused",
        }
        ada = rows["ada"]
        assert (ada.checks, ada.bugs, ada.boxed) == ((0, 1), ("scale-twice",), False)
        assert results.source(ada.id) == b"ada"
        assert [(missing.who, missing.seed) for missing in results.missing()] == [("cem", 4)]


@pytest.mark.parametrize("level", Told)
def test_feedback_tells_no_more_than_it_may(tmp_path: Path, level: Told) -> None:
    """What learners are told by level; values, and why the grader broke, are for who grades."""
    with sqlite3.connect(tmp_path / FILE) as database:
        database.executescript(DUMPS[-1].read_text(encoding="utf-8"))
        database.execute("UPDATE gradings SET verdict = replace(verdict, ':\"\"', ':\"W=0.25\"')")
    database.close()
    with Results.writing(tmp_path) as results:
        formats.write(results, tmp_path, level)
    told = "".join(file.read_text() for file in (tmp_path / "feedback").rglob("*.md"))
    assert "W=0.25" not in told
    assert "It broke." not in told
    assert ("The scale is applied twice" in told) == (level is not Told.SCORE)
    whole = (tmp_path / "results.json").read_text()
    assert "W=0.25" in whole
    assert "It broke." in whole
    assert "The scale is applied twice" in (tmp_path / "results.csv").read_text()
    rows = found(tmp_path)
    assert [rows[who, SLUG]["boxed"] for who in ("ada", "ben", "cem", "dan")] == [
        False,
        None,
        True,
        None,
    ]


@pytest.mark.long
def test_progress_on_a_terminal(environment: dict[str, str], tmp_path: Path) -> None:
    """A bar counts on the last line and is gone at the end; the table stays."""
    folder = lay(tmp_path / "class", {"ada/numpy_lora.py": RIGHT})
    words = ["grade", str(folder), "--out", str(tmp_path / "out"), *PLAIN]
    command = [sys.executable, "-m", "grader", *words]
    terminal = Terminal(command, tmp_path / "work", environment)
    said = terminal.until("1 of 1 submission passed", "results.sqlite")
    assert terminal.end() == 0
    assert "1/1" in said
    assert said.rindex("1/1") < said.index("ada  \x1b[32m✓")


def test_wrong_usage(kata: Kata, tmp_path: Path) -> None:
    """Wrong usage ends with 2 and a plain line, and leaves no folder behind."""
    out = tmp_path / "out"
    lay(tmp_path / "class", {"readme.txt": b"", "notes.py": b""})
    for words, said in (
        ([], "Which files?"),
        (["gone"], "gone cannot be read: No such file or directory."),
        (["--resume"], "holds no results of `kata grade`"),
        ([str(tmp_path / "class")], "Nothing to grade was found"),
        ([str(tmp_path), "--kata", "numpy_lira"], "No kata is called 'numpy_lira'"),
        ([str(tmp_path), "--roster", "gone.csv"], "gone.csv cannot be read: No such file"),
    ):
        done = kata("grade", *words, "--out", str(out))
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
        assert not out.exists()
    out.write_text("a file in the way")
    lay(tmp_path / "class", {"ada/numpy_lora.py": RIGHT})
    done = kata("grade", str(tmp_path / "class"), "--out", str(out))
    assert (done.returncode, "--out names another folder" in done.stderr) == (2, True)


# The crew alone


class _Fake:
    """An examiner's stand-in that does what the source says."""

    def __enter__(self) -> "_Fake":
        return self

    def __exit__(self, *_: object) -> None: ...

    def nursery(self) -> None: ...

    def grade(self, slug: str, source: bytes, name: str, seed: int) -> Any:
        if source == b"hang":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(1000)
        if source == b"break":
            raise GraderError("It broke.")
        if source == b"bug":
            raise ZeroDivisionError
        if source == b"end":
            os._exit(1)
        return _Said()


class _Said:
    def as_json(self) -> bytes:
        return b"{}"


def test_crew_goes_on_whatever_becomes_of_its_examiners() -> None:
    """An examiner that hangs, breaks or dies gives a reason for that task, once; all others get
    their verdicts."""
    sources = [b"", b"hang", b"break", b"", b"bug", b"end", b""]
    tasks = [Task(number, SLUG, source, 0) for number, source in enumerate(sources)]
    with Crew(2, examiner=_Fake, grading_s=1.0) as crew:  # type: ignore[arg-type]
        done = [one for one in crew.grade(tasks) if one is not None]
        assert len(crew._jobs) <= 2
    assert sorted(one.task.id for one in done) == [*range(len(tasks))]
    said = {sources[one.task.id]: one.trouble for one in done if one.verdict is None}
    assert said == {
        b"hang": "No verdict came within 1 s.",
        b"break": "It broke.",
        b"bug": "ZeroDivisionError:",
        b"end": "The process that grades was killed.",
    }


def test_crew_that_cannot_start_says_so() -> None:
    """Processes that die before they are ready end the run with one message."""

    def none() -> Any:
        os._exit(1)

    with Crew(1, examiner=none) as crew, pytest.raises(GraderError, match="cannot be started"):
        list(crew.grade([Task(0, SLUG, b"", 0)]))


def test_basis_changes_with_what_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another version or suite is another basis; another kata's suite is not."""
    suites = tmp_path / "suites"
    lay(suites, {f"test_{slug}.py": content.suite(slug).read_bytes() for slug in (SLUG, "galore")})
    plain = records.basis.__wrapped__
    before = plain(SLUG)
    assert plain(SLUG) == before
    assert plain("galore") != before
    monkeypatch.setattr(records, "__version__", "9")
    assert plain(SLUG) != before
    monkeypatch.undo()
    monkeypatch.setattr(content, "suite", lambda slug: suites / f"test_{slug}.py")
    assert plain(SLUG) == before
    (suites / "test_galore.py").write_text("")
    assert plain(SLUG) == before
    (suites / f"test_{SLUG}.py").write_text("")
    assert plain(SLUG) != before
