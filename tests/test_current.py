"""Which kata is meant where none is named, through the real `kata`."""

import json
import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from grader import content

Kata = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def work(kata: Kata, tmp_path: Path) -> Path:
    """A workspace of untouched stubs."""
    assert kata("init", ".").returncode == 0
    return tmp_path / "work"


def _edit(work: Path, slug: str, source: str = "") -> None:
    """Save a file, at a moment later than all before."""
    path = work / f"{slug}.py"
    latest = max(file.stat().st_mtime_ns for file in work.glob("*.py"))
    path.write_text(source or content.solution(slug).read_text())
    os.utime(path, ns=(latest + 10**6, latest + 10**6))


def _graded(kata: Kata, *options: str) -> tuple[str, str]:
    done = kata("run", "--part", "init", "--json", *options)
    return json.loads(done.stdout)["slug"], done.stderr


def test_nothing_is_graded_where_nothing_is_meant(kata: Kata, work: Path) -> None:
    """Untouched stubs and no current kata: every command says so in a line or two."""
    done = kata("run")
    assert done.returncode == 2
    assert f"Nothing is edited in {work} and no kata is current: nothing is graded." in done.stderr
    for command in ("hint", "show", "history", "solution"):
        done = kata(command)
        assert done.returncode == 2
        assert "No kata is current: `kata start SLUG` begins one, or name it." in done.stderr


def test_commands_mean_the_kata_that_was_started(kata: Kata, work: Path) -> None:
    """Also where its stub lay there already, and other stubs are newer."""
    assert kata("start", "ia3_linear").returncode == 0
    (work / "adapter_block.py").touch()
    assert _graded(kata) == ("ia3_linear", "")
    assert "ia3_linear ·" in kata("show").stdout
    assert "Hint 1 of" in kata("hint").stdout
    assert "class IA3Linear" in kata("solution").stdout
    assert kata("history").stdout.count("attempt") > 0
    assert kata("start", "inject_ia3").returncode == 0
    assert _graded(kata) == ("inject_ia3", "")


def test_run_grades_what_was_edited_since(kata: Kata, work: Path) -> None:
    """Another file saved later is graded without a question, which is said, and then is current."""
    kata("start", "ia3_linear")
    _edit(work, "adapter_block")
    slug, said = _graded(kata)
    assert slug == "adapter_block"
    assert "adapter_block.py was edited since: it is the current kata now." in said
    assert _graded(kata) == ("adapter_block", "")
    assert "adapter_block ·" in kata("show").stdout
    _edit(work, "ia3_linear")
    assert _graded(kata)[0] == "ia3_linear"


def test_a_kata_named_is_current_from_then_on(kata: Kata, work: Path) -> None:
    """What was edited before `run SLUG` is not taken for an edit since."""
    kata("start", "ia3_linear")
    _edit(work, "adapter_block")
    assert json.loads(kata("run", "ia3_linear", "--part", "init", "--json").stdout)["slug"]
    assert _graded(kata) == ("ia3_linear", "")


def test_what_is_edited_counts_without_a_start(kata: Kata, work: Path) -> None:
    """A file that is no stub any more is meant, if nothing was ever started."""
    _edit(work, "bottleneck_adapter")
    assert _graded(kata) == ("bottleneck_adapter", "")


def test_another_workspace_has_edits_of_its_own(kata: Kata, work: Path, tmp_path: Path) -> None:
    """The current kata goes with the learner; times in one folder say nothing of another."""
    kata("start", "ia3_linear")
    other = tmp_path / "other"
    kata("init", str(other))
    assert _graded(kata, "--workspace", str(other))[0] == "ia3_linear"
    _edit(other, "adapter_block")
    assert _graded(kata, "--workspace", str(other))[0] == "adapter_block"


def test_next_starts_what_follows(kata: Kata, work: Path) -> None:
    """The next kata not passed, as `start` does it."""
    assert "lora_linear.py is the blank stub." in kata("next").stdout
    assert "bottleneck_adapter.py is the blank stub." in kata("next").stdout
    assert _graded(kata)[0] == "bottleneck_adapter"


def test_next_leaves_what_was_passed_today(kata: Kata, work: Path) -> None:
    """Where help put it off by minutes only: it waits until tomorrow, and the page of a pass names
    what next begins."""

    def at(time: str, *arguments: str) -> str:
        return kata(*arguments, KATA_CLOCK=f"2026-11-{time}:00+00:00", TZ="UTC").stdout

    at("28T10:00", "start", "bitfit")
    at("28T10:01", "solution", "bitfit")
    _edit(work, "bitfit")
    assert "Next: `kata next` (galore)." in at("28T10:02", "run")
    assert "galore.py is the blank stub." in at("28T10:30", "next")
    assert "bitfit.py is the blank stub." in at("29T10:00", "next")


def test_next_follows_the_plan(kata: Kata, work: Path) -> None:
    """What `today` begins with, though another kata is due by its schedule."""

    def at(time: str, *arguments: str) -> str:
        return kata(*arguments, KATA_CLOCK=f"2026-11-{time}:00+00:00", TZ="UTC").stdout

    at("28T10:00", "plan", "--interview", "2026-12-02", "--minutes-per-day", "20")
    at("28T10:00", "start", "bitfit")
    at("28T10:01", "solution", "bitfit")
    _edit(work, "bitfit")
    at("28T10:02", "run")
    at("28T10:03", "start", "galore")
    assert "bitfit" in at("29T10:00", "today").partition("beyond the plan")[2]
    assert "`kata start lora_linear`" in at("29T10:00", "today")
    assert "lora_linear.py is the blank stub." in at("29T10:00", "next")


def test_init_says_where_to_go(kata: Kata, tmp_path: Path) -> None:
    """The way into the new folder, to be typed as it stands."""
    assert "Next: `cd 'my katas'`, then" in kata("init", "my katas").stdout
    assert "`cd" not in kata("init", ".").stdout


@pytest.mark.slow
def test_run_all_grades_what_is_begun(kata: Kata, work: Path) -> None:
    """One line each, 1 while any fails; each is an attempt."""
    done = kata("run", "--all")
    assert done.returncode == 2
    assert "Nothing is edited" in done.stderr
    _edit(work, "bottleneck_adapter")
    _edit(work, "ia3_linear", "x = (")
    done = kata("run", "--all")
    assert done.returncode == 1
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["✓", "bottleneck_adapter"],
        ["✗", "ia3_linear"],
        ["1", "of"],
    ]
    assert "SyntaxError" in done.stdout
    _edit(work, "ia3_linear")
    done = kata("run", "--all", "--json")
    assert done.returncode == 0
    assert [v["passed"] for v in json.loads(done.stdout)["katas"]] == [True, True]
    assert "ia3_linear: 2 attempts" in kata("history", "ia3_linear").stdout
    assert kata("run", "ia3_linear", "--all").returncode == 2


@pytest.mark.slow
def test_run_all_shows_how_far_it_is(work: Path, environment: dict[str, str]) -> None:
    """On a terminal a bar names what is graded now, and is gone at the end."""
    _edit(work, "ia3_linear")
    near, far = pty.openpty()
    done = subprocess.run(
        ["kata", "run", "--all"], cwd=work, env=environment, stderr=far, stdout=subprocess.DEVNULL
    )
    os.close(far)
    said = os.read(near, 1 << 16).decode()
    os.close(near)
    assert done.returncode == 0
    assert "░ 1 of 1: ia3_linear" in said
    assert said.endswith("\r\x1b[K")


@pytest.mark.slow
def test_a_pass_says_what_comes_of_it(kata: Kata, work: Path) -> None:
    """Time and best time before, when it comes back, the reference, questions, the next kata."""
    kata("start", "ia3_linear", KATA_CLOCK="2026-11-28T10:00:00+00:00")
    _edit(work, "ia3_linear")
    page = kata("run", KATA_CLOCK="2026-11-28T10:07:12+00:00").stdout
    assert "7:12 on task (par 10 min)" in page
    assert "due again" in page
    assert "best before" not in page
    assert "What the reference does otherwise: `kata solution --diff`." in page
    asked = "ia3-trainable-parameters, six-bugs-of-a-hand-written-lora"
    assert f"Asked about it, `kata quiz --ask ID`: {asked}." in page
    assert page.endswith("✓ ia3_linear: passed, complete. Next: `kata next` (inject_ia3).\n")
    kata("start", "ia3_linear", KATA_CLOCK="2026-12-09T10:00:00+00:00")
    _edit(work, "ia3_linear")
    assert "best before 7:12" in kata("run", KATA_CLOCK="2026-12-09T10:05:00+00:00").stdout
