"""`kata today` and what `kata list` shows as due."""

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from grader.practice import repetition
from grader.practice.plan import Plan
from grader.recall import bank
from grader.recall.quiz import Options, Sitting
from grader.store import Store
from grader.store.memory import Memory, Rating

Kata = Callable[..., "subprocess.CompletedProcess[str]"]

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    """The memory that `kata` uses in this test."""
    return Store(tmp_path / "home" / "progress.db", create=True).memory


def answered(memory: Memory, key: str, rating: Rating, at: datetime, minutes: float) -> None:
    """An answer that took so long, and its rating at once."""
    answer = memory.answer(key, "said\n" * 20, at, seconds=60 * minutes)
    repetition.rate(memory, key, rating, at, answer)


def question(number: int) -> str:
    return f"question:{bank.load()[number].id}"


def today(kata: Kata, at: datetime = NOW, **more: str) -> dict[str, Any]:
    done = kata("today", "--json", KATA_CLOCK=at.isoformat(), **{"TZ": "UTC", **more})
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def keys(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["key"] for entry in entries]


def test_a_first_day_has_questions_and_a_kata(kata: Kata, tmp_path: Path) -> None:
    """An empty record: ten new questions and the first kata, their minutes, how to begin; and
    nothing is written."""
    found = today(kata)
    assert found["due"] == []
    assert keys(found["new"])[:2] == [question(0), question(1)]
    assert len(found["new"]) == 11
    assert found["new"][-1]["key"] == "kata:lora_linear"
    assert found["minutes"] == sum(entry["minutes"] for entry in found["new"])
    assert found["commands"] == ["kata quiz", "kata start lora_linear"]
    page = kata("today", KATA_CLOCK=NOW.isoformat()).stdout
    assert "Begin: `kata quiz`.\nThen: `kata start lora_linear`." in page
    assert not (tmp_path / "home").exists()


def test_what_is_due_comes_first_the_most_overdue_before_all(kata: Kata, memory: Memory) -> None:
    """Questions, katas and bug hunts are one queue; keys that no longer exist are left out."""
    for key, days in (
        (question(3), 9),
        ("kata:lora_linear", 30),
        ("bug:inject_lora", 20),
        ("question:gone", 40),
        (question(5), 1),
    ):
        repetition.rate(memory, key, Rating.GOOD, NOW - timedelta(days=days))
    found = today(kata)
    assert keys(found["due"]) == ["kata:lora_linear", "bug:inject_lora", question(3)]
    assert question(5) not in keys(found["new"])
    assert found["commands"][0] == "kata start lora_linear"
    page = kata("today", KATA_CLOCK=NOW.isoformat()).stdout
    assert "bug hunt  inject_lora" in page


def test_new_things_of_earlier_today_count(kata: Kata, memory: Memory) -> None:
    """The day's share of new things is used up by what was new this morning, not yesterday."""
    for number in range(4):
        answered(memory, question(number), Rating.EASY, NOW - timedelta(hours=number), 4)
    answered(memory, question(4), Rating.EASY, NOW - timedelta(days=1), 4)
    repetition.rate(memory, "kata:lora_linear", Rating.EASY, NOW - timedelta(hours=1))
    found = today(kata)
    assert len(found["new"]) == 6
    assert not any(key.startswith("kata:") for key in keys(found["new"]))
    assert found["done_minutes"] == pytest.approx(16)


def test_the_day_ends_at_four_local_time(kata: Kata, memory: Memory) -> None:
    """Due at 3:30 tonight is due today, due at 4:30 is not; the learner's zone decides."""
    first = datetime(2026, 3, 8, 18, 30, tzinfo=UTC)
    repetition.rate(memory, question(0), Rating.GOOD, first)  # due 10th 18:30
    at = datetime(2026, 3, 10, 2, tzinfo=UTC)
    assert keys(today(kata, at, TZ="UTC")["due"]) == []  # the 9th, until 4:00 UTC
    assert keys(today(kata, at, TZ="Asia/Tokyo")["due"]) == [question(0)]  # until 19:00 UTC
    assert keys(today(kata, at, TZ="Asia/Kolkata")["due"]) == [question(0)]  # until 22:30 UTC
    assert today(kata, at, TZ="UTC")["day"] == "2026-03-09"
    assert today(kata, at, TZ="Asia/Tokyo")["day"] == "2026-03-10"


def test_when_nothing_is_left(kata: Kata, memory: Memory) -> None:
    """All seen and nothing due: the page says when the next is."""
    from grader import catalog

    for key in [f"question:{q.id}" for q in bank.load()] + [
        f"kata:{slug}" for slug in catalog.slugs()
    ]:
        repetition.rate(memory, key, Rating.EASY, NOW - timedelta(hours=3))
    done = kata("today", KATA_CLOCK=NOW.isoformat(), TZ="UTC")
    assert done.returncode == 0
    assert "Nothing is due. Next: Wed 18 Mar." in done.stdout


def test_a_clock_set_back_harms_nothing(kata: Kata, memory: Memory) -> None:
    """Reviews from what is now the future: they wait until then, and the plan works too."""
    repetition.rate(memory, question(0), Rating.GOOD, NOW + timedelta(days=400))
    found = today(kata)
    assert found["due"] == []
    assert question(0) not in keys(found["new"])
    made = kata(
        "plan", "--interview", "2026-03-20", "--minutes-per-day", "30", KATA_CLOCK=NOW.isoformat()
    )
    assert made.returncode == 0, made.stderr
    assert today(kata)["done_minutes"] == 0


def test_a_plan_counts_what_was_done(kata: Kata, memory: Memory) -> None:
    """With a plan today is what fits into the minutes that are left of it, and then it is over."""
    kata("plan", "--interview", "2026-03-20", "--minutes-per-day", "24", KATA_CLOCK=NOW.isoformat())
    before = today(kata)
    assert before["minutes"] <= 24
    first = before["new"][0]
    answered(memory, first["key"], Rating.AGAIN, NOW - timedelta(minutes=5), 7)
    after = today(kata)
    assert after["done_minutes"] == pytest.approx(7)
    assert first["key"] not in keys(after["new"]) + keys(after["due"])
    assert after["minutes"] <= 24 - 7
    answered(memory, after["new"][0]["key"], Rating.GOOD, NOW - timedelta(hours=1), 14)
    answered(memory, question(9), Rating.GOOD, NOW - timedelta(hours=2), 3)
    page = kata("today", KATA_CLOCK=NOW.isoformat(), TZ="UTC").stdout
    assert "Interview in 10 days, Fri 20 Mar." in page
    assert "Today's 24 minutes are done." in page


def test_with_a_plan_what_is_due_is_shown_as_well(kata: Kata, memory: Memory) -> None:
    """The plan's minutes go to what is new; what is due now and finds no room there stands below,
    and still does when the minutes are done. Nothing stands in both."""
    due = [question(number) for number in range(7)]
    for number, key in enumerate(due):
        repetition.rate(memory, key, Rating.AGAIN, NOW - timedelta(days=9, minutes=number))
    repetition.rate(memory, question(8), Rating.EASY, NOW - timedelta(days=1))
    kata("plan", "--interview", "2026-03-20", "--minutes-per-day", "15", KATA_CLOCK=NOW.isoformat())
    found = today(kata)
    assert sorted(keys(found["beyond"])) == sorted(due)
    assert not set(keys(found["new"]) + keys(found["due"])) & set(due)
    assert found["minutes"] <= 15
    for done in (False, True):
        if done:
            answered(memory, question(9), Rating.GOOD, NOW, 15)
        page = kata("today", KATA_CLOCK=NOW.isoformat(), TZ="UTC", COLUMNS="60").stdout
        assert "Due as well, beyond the plan's minutes" in page
        assert "  … and 2 more" in page
        assert due[-1].partition(":")[2] in page  # the most overdue
        assert ("Today's 15 minutes are done." in page) == done
        assert max(map(len, page.splitlines())) <= 60


def test_pages_fit_sixty_columns(kata: Kata, memory: Memory) -> None:
    """No line is wider than the terminal, and none has colours without one."""
    repetition.rate(memory, "kata:build_lora_adapter_model", Rating.GOOD, NOW - timedelta(days=9))
    repetition.rate(memory, "bug:build_lora_adapter_model", Rating.GOOD, NOW - timedelta(days=9))
    for command in ("today", "list"):
        page = kata(command, KATA_CLOCK=NOW.isoformat(), COLUMNS="60").stdout
        assert max(map(len, page.splitlines())) <= 60, page
        assert "\x1b" not in page


def test_list_shows_what_is_due(kata: Kata, memory: Memory) -> None:
    """A kata due today is due now, another in so many days; the first due one is next."""
    repetition.rate(memory, "kata:inject_lora", Rating.GOOD, NOW - timedelta(days=9))
    repetition.rate(memory, "kata:adapter_block", Rating.GOOD, NOW)
    page = kata("list", KATA_CLOCK=NOW.isoformat(), TZ="UTC").stdout
    lines = {line.split()[1]: line for line in page.splitlines() if len(line.split()) > 1}
    assert " now " in lines["inject_lora"]
    assert " 2 d " in lines["adapter_block"]
    assert "1 due. Next: `kata start inject_lora`." in page
    listed = json.loads(kata("list", "--json", KATA_CLOCK=NOW.isoformat(), TZ="UTC").stdout)
    due = {k["slug"]: k["due"] for k in listed["katas"]}
    assert due["inject_lora"]
    assert not due["adapter_block"]
    assert not due["lora_linear"]


def test_today_needs_neither_torch_nor_a_scheduler(kata: Kata, tmp_path: Path) -> None:
    """Without a plan, today and list load none of the slow libraries."""
    for name in ("torch", "fsrs", "pylatexenc"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('{name} was imported')\n")
    for command in ("today", "list"):
        done = kata(command, PYTHONPATH=f"{tmp_path}:{Path(__file__).parent.parent}")
        assert done.returncode == 0, done.stderr


def test_a_damaged_record_is_told_plainly(kata: Kata, tmp_path: Path) -> None:
    """A progress file that is none: a plain message, exit 3."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "progress.db").write_bytes(b"no database" * 200)
    for command in ("today", "plan", "stats", "list"):
        done = kata(command)
        assert done.returncode == 3
        assert "is damaged" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_quiz_asks_as_many_as_it_announced(memory: Memory) -> None:
    """The plan chooses once for a sitting, though every answer takes of the day's minutes."""
    plan = Plan(interview=date(2026, 3, 19), minutes_per_day=40, made=date(2026, 3, 10))
    sitting = Sitting(memory, bank.load(), Options(), NOW, plan)
    announced = sum(sitting.counts(NOW))
    assert announced > 3
    totals = []
    for number in range(1, announced + 1):
        at = NOW + timedelta(minutes=5 * number)
        turn = sitting.next(at, 1)
        assert turn is not None
        totals.append(number + len(sitting.waiting(at)))
        sitting.give(turn, "said\n" * 20, at, 300)
        sitting.rate(turn, Rating.GOOD, at)
    assert totals == [announced] * announced
    assert sitting.next(NOW + timedelta(hours=1), 1) is None


def test_a_quiz_goes_on_with_what_is_due_beside_the_plan(memory: Memory, kata: Kata) -> None:
    """Once the plan has no question left for today: what is due by then, not what is due soon."""
    for number in range(3):
        answered(memory, question(number), Rating.AGAIN, NOW - timedelta(days=3), 1)
    plan = Plan(interview=date(2026, 3, 19), minutes_per_day=5, made=date(2026, 3, 10))
    answered(memory, question(9), Rating.AGAIN, NOW - timedelta(minutes=5), 6)
    sitting = Sitting(memory, bank.load(), Options(), NOW, plan)
    assert sitting.beyond_plan
    assert sitting.waiting(NOW) == [question(number) for number in range(3)]
    assert sitting.end(NOW).beyond == 3

    kata("plan", "--interview", "2026-03-19", "--minutes-per-day", "5", KATA_CLOCK=NOW.isoformat())
    page = kata("today", KATA_CLOCK=NOW.isoformat(), TZ="UTC").stdout
    assert "If there is time: `kata quiz`, `kata start SLUG`." in page
    began = kata("quiz", KATA_CLOCK=NOW.isoformat(), TZ="UTC").stdout
    assert began.startswith("The plan has no more for today. Beside it: 3 due.")
