"""The bug hunt: what is planted, and `kata bug` from outside."""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import Kata

from grader import catalog
from grader.exam.verdict import Trouble, Verdict
from grader.practice import clock, hunt
from grader.practice.grading import Bench
from grader.store import Store
from grader.store.memory import Rating


def cards(home: Path) -> dict[str, object]:
    with Store(home / "progress.db", create=False) as store:
        return dict(store.memory.cards())


@pytest.mark.parametrize("slug", catalog.slugs())
def test_the_planted_file_differs_by_the_bug_alone(slug: str) -> None:
    """For every bug: the file compiles, has no comment, and all else is the reference."""
    reference = hunt.reference(slug)
    for bug in catalog.entry(slug).bugs:
        planted = hunt.planted(slug, bug)
        assert planted != reference
        assert not [line for line in planted.splitlines() if line.lstrip().startswith("#")]
        assert "SOLUTION" not in planted
        removed, added = hunt.change(slug, bug)
        assert len(added) <= 12, bug.id
        assert len(removed) <= 12, bug.id


@pytest.mark.parametrize("slug", catalog.slugs())
def test_fair_bugs_hide(slug: str) -> None:
    """Every kata has several bugs that alter a line or two and add none."""
    fair = hunt.fair_bugs(slug)
    assert len(fair) >= 5
    assert all(hunt.is_fair(slug, bug) for bug in fair)


def test_a_seed_chooses_the_bug() -> None:
    """The same seed plants the same bug; other seeds plant others."""
    chosen = [hunt.chosen_bug("lora_linear", seed).id for seed in range(20)]
    assert chosen == [hunt.chosen_bug("lora_linear", seed).id for seed in range(20)]
    assert len(set(chosen)) > 5


def test_comments_go_and_strings_stay() -> None:
    """A # inside a string is no comment; a line of comment alone leaves no gap."""
    text = 'a = "# no"  # yes\n    # gone\nb = 1\n'
    assert hunt._bare(text) == 'a = "# no"\nb = 1\n'


def test_rating() -> None:
    """By time against par, help, and whether the diagnosis was right."""

    def rate(seconds: float, right: bool = True, hints: int = 0, gave_up: bool = False) -> Rating:
        return hunt.rating(seconds=seconds, par_s=300, right=right, hints=hints, gave_up=gave_up)

    assert rate(100) is Rating.EASY
    assert rate(100, hints=1) is Rating.GOOD
    assert rate(299) is Rating.GOOD
    assert rate(601) is Rating.HARD
    assert rate(100, hints=2) is Rating.HARD
    assert rate(100, right=False) is Rating.HARD
    assert rate(100, gave_up=True) is Rating.AGAIN


@pytest.mark.slow
def test_a_hunt_from_planting_to_schedule(kata: Kata, tmp_path: Path) -> None:
    """Plant, look, fail, take hints, mend, judge: graded, revealed after passing, scheduled."""
    home = tmp_path / "home"
    began = kata("bug", "lora_linear", "--seed", "4")
    assert began.returncode == 0, began.stderr
    bug = hunt.chosen_bug("lora_linear", 4)
    file = home / "hunts" / "1" / "lora_linear.py"
    assert str(file) in began.stdout
    assert file.read_text() == hunt.planted("lora_linear", bug)

    untouched = kata("bug", "lora_linear")
    assert untouched.returncode == 1
    assert "as it was planted" in untouched.stdout

    file.write_text(file.read_text() + "\n\n")
    undiagnosed = kata("bug", "lora_linear")
    assert undiagnosed.returncode == 2  # the diagnosis comes first, and there is no input

    failed = kata("bug", "--diagnosis", "the scale is missing")
    assert failed.returncode == 1
    assert "✗ forward" in failed.stdout
    for secret in (bug.title, bug.cause, bug.symptom, bug.id):
        assert secret not in began.stdout + failed.stdout

    assert bug.symptom in kata("bug", "--hint").stdout.replace("\n", " ")
    assert "LoRALinear.forward" in kata("bug", "--hint").stdout

    file.write_text(hunt.reference("lora_linear"))
    waiting = kata("bug")
    assert waiting.returncode == 2  # mended; the judgement on the diagnosis is asked for
    assert "mended" in waiting.stdout
    done = kata("bug", "lora_linear", "--right")
    assert done.returncode == 0, done.stderr
    assert bug.title in done.stdout
    assert "the scale is missing" in done.stdout
    assert "rated hard" in done.stdout
    assert list(cards(home)) == ["bug:lora_linear"]
    with Store(home / "progress.db", create=False) as store:
        (answer,) = store.memory.answers()
    assert (answer.key, answer.text, answer.rating) == (
        "bug:lora_linear",
        "the scale is missing",
        Rating.HARD,
    )
    assert kata("bug", "--check").returncode == 2  # none is open any more


def test_a_diagnosis_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever front asks for it, nothing is judged before it was said what is wrong."""
    monkeypatch.setenv("KATA_HOME", str(tmp_path))
    found = hunt.plant("lora_linear", hunt.chosen_bug("lora_linear", 4), clock.now())
    with pytest.raises(hunt.Undiagnosed):
        hunt.grade(found, Bench().judge, clock.now())


def test_giving_up_shows_it_and_loses_no_file(kata: Kata, tmp_path: Path) -> None:
    """A given-up hunt comes again soon; the next one gets a new folder."""
    assert kata("bug", "adapter_stack", "--seed", "5").returncode == 0
    first = tmp_path / "home" / "hunts" / "1" / "adapter_stack.py"
    first.write_text("mine")
    gave_up = kata("bug", "adapter_stack", "--give-up")
    assert gave_up.returncode == 1
    bug = hunt.chosen_bug("adapter_stack", 5)
    assert bug.title in gave_up.stdout
    assert f"kata quiz --ask {bug.question}" in gave_up.stdout
    assert "rated again; the next hunt on it is due in 10 minutes." in gave_up.stdout
    assert kata("bug", "adapter_stack", "--seed", "2").returncode == 0
    assert first.read_text() == "mine"
    assert (tmp_path / "home" / "hunts" / "2" / "adapter_stack.py").exists()


def test_pages_fit_sixty_columns(kata: Kata) -> None:
    """Nothing but code and paths is wider than the terminal, however long the names."""
    slug = max(catalog.slugs(), key=len)
    for arguments in ((), (), ("--hint",), ("--give-up",)):
        page = kata("bug", slug, "--seed", "1", *arguments, COLUMNS="60").stdout.splitlines()
        assert page
        assert all(len(s) <= 60 or s.startswith(("  /", "  - ", "  + ")) for s in page), page


def test_random_takes_no_open_one_and_needs_no_torch(kata: Kata, tmp_path: Path) -> None:
    """--random plants by seed, on a kata without an open hunt, and imports no torch."""
    (tmp_path / "torch.py").write_text("raise RuntimeError('torch was imported')\n")
    path = f"{tmp_path}:{Path(__file__).parent.parent}"
    pages = [kata("bug", "--random", "--seed", "5", PYTHONPATH=path) for _ in range(2)]
    assert all(page.returncode == 0 for page in pages), pages[0].stderr
    slugs = [re.search(r"Bug hunt: (\w+)", page.stdout) for page in pages]
    assert slugs[0]
    assert slugs[1]
    assert slugs[0][1] != slugs[1][1]


@pytest.mark.slow
def test_piped_lines_drive_it(tmp_path: Path, environment: dict[str, str]) -> None:
    """Diagnosis and judgement come from standard input."""
    run = [sys.executable, "-m", "grader", "bug"]
    subprocess.run([*run, "adapter_stack", "--seed", "1"], env=environment, check=True)
    file = tmp_path / "home" / "hunts" / "1" / "adapter_stack.py"
    file.write_text(hunt.reference("adapter_stack"))
    done = subprocess.run(
        run, env=environment, input="the residual\ny\n", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "rated easy" in done.stdout


def test_the_clock_can_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KATA_CLOCK: a start, a speed, a file that several processes share."""
    file = tmp_path / "clock"
    file.write_text("2026-03-01T09:00:00+00:00 x0\n")
    monkeypatch.setenv("KATA_CLOCK", f"@{file}")
    assert clock.now() == datetime(2026, 3, 1, 9, tzinfo=UTC)
    began = clock.seconds()
    file.write_text("2026-03-01T09:01:00+00:00 x0\n")
    assert clock.seconds() - began == 60
    file.write_text("2026-03-01T09:00:00+00:00 x3600\n")
    stat = file.stat()
    os.utime(file, (stat.st_atime, stat.st_mtime - 2))
    assert clock.now() >= datetime(2026, 3, 1, 11, tzinfo=UTC)
    monkeypatch.setenv("KATA_CLOCK", "2026-03-01T09:00:00+00:00")
    assert timedelta() <= clock.now() - datetime(2026, 3, 1, 9, tzinfo=UTC) < timedelta(days=1)


def test_a_bad_clock_is_a_plain_error(kata: Kata) -> None:
    """What cannot be read as a time is said in one line."""
    done = kata("bug", "adapter_stack", KATA_CLOCK="soon")
    assert done.returncode == 2
    assert "KATA_CLOCK cannot be read" in done.stderr
    assert json.loads(kata("list", "--json").stdout)["katas"]


def test_what_is_done_while_it_is_judged_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hint asked for in another window counts, and a hunt that was given up stays so."""
    monkeypatch.setenv("KATA_HOME", str(tmp_path))
    now = clock.now()
    found = hunt.plant("lora_linear", hunt.chosen_bug("lora_linear", 1), now)
    found = hunt.diagnose(found, "the scale", now)
    found.path.write_text(hunt.reference("lora_linear"))
    with Bench() as bench:

        def hinted(slug: str, source: bytes | Trouble, name: str) -> Verdict:
            hunt.next_hint(hunt.opened()[slug], now)
            return bench.judge(slug, source, name)

        def given_up(slug: str, source: bytes | Trouble, name: str) -> Verdict:
            hunt.close(hunt.opened()[slug], False, now, gave_up=True)
            return bench.judge(slug, source, name)

        hunt.grade(found, hinted, now)
        there = hunt.opened()["lora_linear"]
        assert there.hints == 1
        assert there.mended is not None
        hunt.grade(found, given_up, now)
        assert hunt.opened() == {}
