"""Time on task: what is counted of a pause, and that one number is shown wherever time is."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from grader.practice import clock, stubs, work
from grader.store import Store
from grader.store.memory import Rating

Kata = Callable[..., "subprocess.CompletedProcess[str]"]

SLUG, KEY = "ia3_linear", "kata:ia3_linear"
DAY = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.fixture
def at(kata: Kata) -> Callable[..., str]:
    """Runs `kata` at a time of the second of March, as "12:30"; what it says."""

    def run(hour: str, *arguments: str, status: int = 0, **more: str) -> str:
        done = kata(*arguments, KATA_CLOCK=f"2026-03-02T{hour}:00+00:00", TZ="UTC", **more)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The record that `kata` uses in this test."""
    return Store(tmp_path / "home" / "progress.db", create=True)


def saved(folder: Path, minutes_ago: float, source: str | None = None) -> None:
    """The kata's answer, saved so long before the next command."""
    path = folder / "work" / f"{SLUG}.py"
    path.write_text(stubs.solution(SLUG) if source is None else source, encoding="utf-8")
    then = time.time() - 60 * minutes_ago
    os.utime(path, (then, then))


def minute(number: float) -> datetime:
    return DAY + timedelta(hours=12, minutes=number)


# The rule


def test_a_short_gap_counts_whole_and_a_long_one_five_minutes(store: Store) -> None:
    """Used at 3, at 8 and after lunch."""
    begun = minute(0)
    for number, total in ((3, 3), (8, 8), (70, 13), (70, 13), (72, 15)):
        work.note(store, KEY, minute(number), begun)
        assert store.work.seconds(KEY, begun) == 60 * total


def test_a_save_counts_for_what_was_written(store: Store) -> None:
    """Half a minute a new line on top of the five minutes, but never more than has passed. A save
    of before, or one that was seen already, counts nothing."""
    begun = minute(0)
    for now, save, lines, total in (
        (10, 9, 20, 10),
        (11, 9, 20, 11),
        (60, 59, 4, 19),  # 5 + 4 / 2, and the minute after the save
        (61, -30, 99, 20),
    ):
        work.note(store, KEY, minute(now), begun, saved=minute(save), lines=lines)
        assert store.work.seconds(KEY, begun) == 60 * total
    assert work.new_lines(b"a\nb\n", b"a\n  b\n\nc\nc\n") == 2


def test_a_new_round_begins_at_zero_and_a_clock_set_back_takes_nothing(store: Store) -> None:
    """Yesterday's work on a kata is not today's."""
    work.note(store, KEY, minute(0), minute(-4))
    begun = minute(30)
    work.note(store, KEY, minute(32), begun)
    assert store.work.seconds(KEY, begun) == 120
    work.note(store, KEY, minute(31), begun)
    work.note(store, KEY, minute(33), begun)
    assert store.work.seconds(KEY, begun) == 240


def test_the_time_of_a_file_goes_by_our_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file saved ten seconds ago was saved ten of our minutes ago where time runs x60."""
    system = time.time()
    assert abs(clock.at(system).timestamp() - system) < 1e-3
    monkeypatch.setenv("KATA_CLOCK", "2026-03-02T12:00:00+00:00 x60")
    passed = (clock.now() - clock.at(time.time() - 10)).total_seconds()
    assert 599 < passed < 660


def test_what_overlaps_is_counted_once(store: Store) -> None:
    """Two katas at the same time, and a question in between, are no more than the time it took."""
    memory = store.memory
    for key in (KEY, "kata:adapter_block"):
        store.work.add(key, minute(4), 240)
    answer = memory.answer("question:q", "said", minute(3), seconds=60)
    memory.add_review("question:q", Rating.GOOD, minute(5), None, answer)
    assert work.done_minutes(memory, minute(60)) == pytest.approx(5)
    assert work.done_minutes(memory, minute(24 * 60)) == 0
    assert work.done_minutes(memory, minute(2)) == pytest.approx(2)


def test_a_question_left_for_lunch_counts_as_far_as_it_was_written(store: Store) -> None:
    """Five minutes and half a minute a line; a rating that comes an hour later five minutes."""
    memory = store.memory
    answer = memory.answer("question:q", "one\ntwo", minute(60), seconds=3600)
    assert work.done_minutes(memory, minute(60)) == pytest.approx(6)
    memory.add_review("question:q", Rating.GOOD, minute(180), None, answer)
    assert work.done_minutes(memory, minute(180)) == pytest.approx(11)


def test_a_mock_counts_by_its_own_clock(store: Store) -> None:
    """Two stretches with a pause of hours between; its answers are within."""
    mock = store.interviews.begin("{}", Path("x"), minute(0)).number
    for number, clock_s in ((10, 600), (11, 660), (130, 660), (140, 1260)):
        store.interviews.append(mock, "said", {}, clock_s, minute(number))
    assert work.done_minutes(store.memory, minute(200)) == pytest.approx(21)


# The command


def _standing(at: Callable[..., str], hour: str) -> tuple[Any, Any, Any]:
    """The best time, the last solve, the minutes done today."""
    listed = json.loads(at(hour, "list", "--json"))["katas"]
    best = next(row["best_seconds"] for row in listed if row["slug"] == SLUG)
    (kata,) = json.loads(at(hour, "stats", "--json"))["katas"]
    done = json.loads(at(hour, "today", "--json"))["done_minutes"]
    return best, kata["solves"][-1]["seconds"], done


@pytest.mark.slow
def test_lunch_is_not_counted(at: Callable[..., str], tmp_path: Path) -> None:
    """Start, read, have lunch, ask for a hint, save, pass: one number on the page, as the best
    time, in the statistics and in the plan's day."""
    at("12:00", "plan", "--interview", "2026-03-20", "--minutes-per-day", "45")
    at("12:00", "start", SLUG)
    at("12:03", "show", SLUG)
    at("13:10", "hint", SLUG)
    saved(tmp_path, 1)
    page = at("13:12", "run")
    assert "10:00 on task (par 10 min)" in page.replace("10:01", "10:00")
    best, solved, done = _standing(at, "13:12")
    assert best == pytest.approx(600, abs=5)
    assert solved == pytest.approx(best, abs=0.1)
    assert done == pytest.approx(best / 60, abs=0.1)
    assert "10 of 45 minutes done" in at("13:12", "today")


@pytest.mark.slow
def test_a_solve_at_once_is_no_minutes_done(at: Callable[..., str], tmp_path: Path) -> None:
    """What par says counts for nothing; `run --all` later in the day adds nothing."""
    at("12:00", "plan", "--interview", "2026-03-20", "--minutes-per-day", "45")
    at("12:00", "start", SLUG)
    saved(tmp_path, 0)
    assert "0:0" in at("12:00", "run").partition(" on task")[0]
    at("18:00", "run", "--all")
    best, _, done = _standing(at, "18:00")
    assert best < 30
    assert done < 0.5
    assert "0 of 45 minutes done" in at("18:00", "today")


@pytest.mark.slow
def test_writing_in_one_go_counts(at: Callable[..., str], tmp_path: Path) -> None:
    """Nine minutes without a save are nine minutes where that many lines came of them."""
    at("12:00", "start", SLUG)
    saved(tmp_path, 1)
    page = at("12:10", "run")
    assert "10:00 on task" in page.replace("10:01", "10:00")


def test_edit_sees_every_save(
    at: Callable[..., str], kata: Kata, tmp_path: Path, store: Store
) -> None:
    """Two lines four minutes apart are eight minutes, without `watch` and with no other command."""
    told = tmp_path / "clock"
    told.write_text("2026-03-02T12:00:00+00:00")
    kata("start", SLUG, KATA_CLOCK=f"@{told}")
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import pathlib, sqlite3, sys, time\n"
        f"told, db = pathlib.Path({str(told)!r}), {str(tmp_path / 'home' / 'progress.db')!r}\n"
        "def noted():\n"
        "    return sqlite3.connect(db).execute('SELECT count(*) FROM work').fetchone()[0]\n"
        "path, before, end = pathlib.Path(sys.argv[1]), noted(), time.monotonic() + 60\n"
        "for minute in ('04', '08'):\n"
        "    told.write_text(f'2026-03-02T12:{minute}:00+00:00')\n"
        "    path.write_text(path.read_text() + f'x{minute} = 1\\n')\n"
        "    while noted() == before and time.monotonic() < end:\n"
        "        time.sleep(0.05)\n"
        "    before = noted()\n"
    )
    done = kata("edit", SLUG, KATA_CLOCK=f"@{told}", EDITOR=f"{sys.executable} {editor}", VISUAL="")
    assert done.returncode == 0, done.stderr
    begun = store.attempts.begun(SLUG)
    assert begun is not None
    assert store.work.seconds(KEY, begun) == pytest.approx(480, abs=10)


def test_a_hunt_counts_reading_up_to_its_par(at: Callable[..., str]) -> None:
    """An hour between planting and giving up is par, which for this kata is four minutes."""
    at("12:00", "bug", SLUG, "--seed", "1")
    told = at("13:00", "bug", "--give-up", status=1)
    assert "4:00, rated again" in told
    assert json.loads(at("13:00", "today", "--json"))["done_minutes"] == pytest.approx(4, abs=0.1)


def test_looking_at_a_kata_not_begun_stores_nothing(at: Callable[..., str], tmp_path: Path) -> None:
    """`show` makes no progress file, and no time where no clock runs."""
    at("12:00", "show", SLUG)
    assert not (tmp_path / "home").exists()


def test_attempts_of_before_keep_their_time(at: Callable[..., str], store: Store) -> None:
    """Where time on task was not measured, the clock's time is what counts."""
    from grader.exam.verdict import Check, Outcome, Part, Verdict

    store.attempts.begin_round(SLUG, minute(0))
    check = Check(name="a_rule", part=Part.SHAPE, outcome=Outcome.PASSED)
    verdict = Verdict(slug=SLUG, seed=1, seconds=0.1, checks=(check,))
    store.attempts.record(verdict, None, minute(90))
    assert _standing(at, "14:00") == (5400, 5400, 0)
