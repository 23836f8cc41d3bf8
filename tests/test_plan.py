"""`kata plan`: the rule, what it says of the minutes, and how it is kept."""

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest

from grader.practice import plan, queue, schedule
from grader.practice.plan import Item, Plan
from grader.store.memory import MemoryCard, Rating
from grader.views import today as pages

Kata = Callable[..., "subprocess.CompletedProcess[str]"]

NOW = datetime(2026, 3, 1, 18, tzinfo=UTC)
CLOCK = "2026-03-01T18:00:00+00:00"
BANK = (
    *(Item(f"question:q{n}", 3, (1.2, 1.0, 0.8)[n % 3]) for n in range(20)),
    *(Item(f"kata:k{n}", 15, (1.2, 1.0)[n % 2]) for n in range(10)),
)  # 60 minutes of questions, 150 of katas


def until(days: int, minutes: int) -> Plan:
    return Plan(NOW.date() + timedelta(days=days), minutes)


def reviewed(*steps: tuple[int, Rating]) -> str:
    """A memory after reviews so many days before NOW."""
    memory: str | None = None
    for before, rating in steps:
        memory = schedule.review(memory, rating, NOW - timedelta(days=before)).memory
    assert memory is not None
    return memory


# The rule


def test_unseen_things_come_first_then_what_gains_most() -> None:
    """What was never seen, by priority; then what a repetition lifts most on the day."""
    memories = {
        "question:q0": reviewed((20, Rating.EASY), (10, Rating.EASY)),
        "question:q1": reviewed((9, Rating.AGAIN), (8, Rating.AGAIN)),
        "question:q2": reviewed((0, Rating.GOOD)),
    }
    order = [i.key for i in plan.ordered(BANK[:6], memories, NOW, until(5, 30))]
    assert order == ["question:q3", "question:q4", "question:q5", "question:q1", "question:q0"]


def test_questions_and_katas_take_turns() -> None:
    """Any stretch of the order holds both kinds in about the shares of their minutes."""
    order = plan.in_turn(BANK)
    half = order[: len(order) // 2]
    share = sum(i.minutes for i in half if i.kind == "kata") / sum(i.minutes for i in half)
    assert share == pytest.approx(150 / 210, abs=0.12)
    assert {i.kind for i in order[:3]} == {"question", "kata"}


def test_a_day_holds_its_minutes_and_nothing_twice() -> None:
    """No day of a forecast is longer than the plan's, none asks for anything twice, and what was
    done today counts."""
    for minutes in (10, 20, 45):
        outlook = plan.forecast(BANK, {}, NOW, until(12, minutes), done_minutes=8)
        assert [day.day for day in outlook.days] == [
            NOW.date() + timedelta(days=number) for number in range(12)
        ]
        for number, day in enumerate(outlook.days):
            keys = [item.key for item in (*day.new, *day.again)]
            assert len(keys) == len(set(keys))
            assert day.minutes <= minutes - (0 if number else 8)


def test_enough_minutes_show_everything_before_the_day() -> None:
    """With time enough everything is seen, and what would be forgotten comes back."""
    outlook = plan.forecast(BANK, {}, NOW, until(14, 30))
    assert outlook.left_out == ()
    assert {i.key for day in outlook.days for i in day.new} == {i.key for i in BANK}
    assert any(day.again for day in outlook.days)
    assert outlook.recall_then > 0.7 > outlook.recall_now == 0


def test_too_few_minutes_leave_out_the_least_valuable() -> None:
    """The rest is named, the lowest priority first, and so are the minutes that would do."""
    outlook = plan.forecast(BANK, {}, NOW, until(5, 20))
    out = [item.priority for item in outlook.left_out]
    assert out
    assert out == sorted(out)
    seen = {i.key for day in outlook.days for i in day.new}
    for kind in ("question", "kata"):
        kept = [i.priority for i in BANK if i.key in seen and i.kind == kind]
        lost = [i.priority for i in outlook.left_out if i.kind == kind]
        assert not kept or not lost or min(kept) >= max(lost)
    enough = outlook.enough_minutes
    assert enough is not None
    assert not plan.forecast(BANK, {}, NOW, until(5, enough)).left_out
    assert plan.forecast(BANK, {}, NOW, until(5, enough - 5)).left_out


def test_a_kata_longer_than_a_day_is_left_out() -> None:
    """However many days there are, what no day can hold stays out, and the cure is known."""
    outlook = plan.forecast(BANK, {}, NOW, until(100, 10))
    assert {item.kind for item in outlook.left_out} == {"kata"}
    assert outlook.enough_minutes == 15


def test_one_thing_left_out_is_said_as_one() -> None:
    """The page is grammatical for one and for many."""
    one = (Item("question:q", 3, 1.0), Item("kata:k", 15, 1.0))
    for items, said in ((one, "1 kata stays out."), (BANK, "10 katas stay out.")):
        outlook = plan.forecast(items, {}, NOW, until(100, 10))
        page = pages.planned(until(100, 10), outlook, (0, 2), NOW.date(), 200, False)
        assert said in "\n".join(page)


def test_what_would_be_forgotten_comes_back_before_the_day() -> None:
    """Something learned badly long ago is asked again; the forecast with it is the better one."""
    weak = reviewed((30, Rating.HARD))
    memories = {item.key: reviewed((3, Rating.EASY)) for item in BANK} | {"question:q7": weak}
    outlook = plan.forecast(BANK, memories, NOW, until(2, 10))
    assert "question:q7" in {i.key for i in outlook.days[0].again}
    assert outlook.recall_then > outlook.recall_now


def test_the_same_record_has_the_same_forecast() -> None:
    """Outcomes are drawn from a fixed seed."""
    assert plan.forecast(BANK, {}, NOW, until(9, 25)) == plan.forecast(BANK, {}, NOW, until(9, 25))


def test_a_forecast_of_a_year_is_cut_in_the_middle() -> None:
    """A distant day costs no more than 60 days of forecast."""
    assert len(plan.forecast(BANK[:3], {}, NOW, until(365, 20)).days) == 60


def test_the_quiz_follows_the_plan_through_the_queue() -> None:
    """queue.ordered goes by what is due, and with a plan by the plan."""
    memory = reviewed((9, Rating.GOOD))
    cards = {"question:q1": MemoryCard("question:q1", memory, NOW - timedelta(days=7))}
    keys = [item.key for item in BANK[:3]]
    assert queue.ordered(keys, cards, NOW)[0] == "question:q1"
    items = {item.key: item for item in BANK}
    assert queue.ordered(keys, cards, NOW, until(5, 20), items)[-1] == "question:q1"


def test_days_end_at_four_in_the_learners_zone() -> None:
    """Half past three belongs to the day before, wherever the learner is."""
    tokyo = timezone(timedelta(hours=9))
    assert plan.study_day(datetime(2026, 3, 2, 3, 30, tzinfo=tokyo)) == date(2026, 3, 1)
    assert plan.study_day(datetime(2026, 3, 2, 4, 0, tzinfo=tokyo)) == date(2026, 3, 2)
    two = Plan(date(2026, 3, 4), 20)
    assert two.days_left(datetime(2026, 3, 3, 3, 0, tzinfo=tokyo)) == 2
    assert two.days_left(datetime(2026, 3, 4, 9, 0, tzinfo=tokyo)) == 1
    assert two.days_left(datetime(2026, 3, 5, 9, 0, tzinfo=tokyo)) == 0


# The command


def test_a_plan_is_set_followed_and_cleared(kata: Kata) -> None:
    """plan stores it and shows how it works out, today follows it, --clear forgets it."""
    none = kata("plan", KATA_CLOCK=CLOCK)
    assert none.returncode == 0
    assert "There is no plan" in none.stdout
    made = kata("plan", "--interview", "2026-03-11", "--minutes-per-day", "20", KATA_CLOCK=CLOCK)
    assert made.returncode == 0, made.stderr
    assert "Interview on Wednesday, 11 March 2026" in made.stdout
    assert "10 days of 20 minutes" in made.stdout
    assert "do not suffice" in made.stdout
    assert "Left out, least valuable first" in made.stdout
    assert "longer than a day's minutes" in made.stdout  # nf4_quantize takes 25
    today = json.loads(kata("today", "--json", KATA_CLOCK=CLOCK).stdout)
    assert today["plan"] == {"interview": "2026-03-11", "minutes_per_day": 20, "deck": "core"}
    assert 15 <= today["minutes"] <= 20
    more = json.loads(kata("plan", "--minutes-per-day", "300", "--json", KATA_CLOCK=CLOCK).stdout)
    assert more["plan"] == {"interview": "2026-03-11", "minutes_per_day": 300, "deck": "core"}
    assert more["suffices"]
    assert more["left_out"] == []
    assert more["recall_with_plan"] > 0.5
    assert "There is no plan" in kata("plan", "--clear").stdout
    assert json.loads(kata("today", "--json", KATA_CLOCK=CLOCK).stdout)["plan"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--interview", "2026-02-28", "--minutes-per-day", "30"], "2026-02-28 is past"),
        (["--interview", "9999-12-31", "--minutes-per-day", "30"], "9999-12-31 is too far away"),
        (["--interview", "next week", "--minutes-per-day", "30"], "`next week` is no date"),
        (["--interview", "2026-03-10"], "A plan needs --minutes-per-day N as well"),
        (["--minutes-per-day", "30"], "A plan needs --interview DATE as well"),
        (["--interview", "2026-03-10", "--minutes-per-day", "0"], "0 is not in the range"),
        (["--clear", "--minutes-per-day", "30"], "--clear goes without other options"),
    ],
)
def test_a_plan_that_cannot_be(
    kata: Kata, tmp_path: Path, arguments: list[str], message: str
) -> None:
    """Wrong dates and minutes end with exit code 2 and a plain line; nothing is stored."""
    done = kata("plan", *arguments, KATA_CLOCK=CLOCK)
    assert done.returncode == 2
    assert message in done.stderr
    assert "There is no plan" in kata("plan", KATA_CLOCK=CLOCK).stdout


def test_the_day_of_the_interview_and_the_day_after(kata: Kata) -> None:
    """On the day itself today's minutes count; afterwards the plan is over, and due dates rule."""
    assert kata(
        "plan", "--interview", "2026-03-02", "--minutes-per-day", "30", KATA_CLOCK=CLOCK
    ).returncode == 0  # fmt: skip
    on_the_day = kata("plan", KATA_CLOCK="2026-03-02T09:00:00+00:00", TZ="UTC")
    assert "1 day of 30 minutes" in on_the_day.stdout
    after = kata("plan", KATA_CLOCK="2026-03-03T09:00:00+00:00", TZ="UTC")
    assert after.returncode == 0
    assert "The interview of Monday, 2 March 2026 is over" in after.stdout
    found = kata("today", "--json", KATA_CLOCK="2026-03-03T09:00:00+00:00", TZ="UTC")
    assert json.loads(found.stdout)["plan"] is None


def test_what_is_past_depends_on_the_zone(kata: Kata) -> None:
    """At 18:00 UTC it is the next morning in Tokyo: the first of March is past there."""
    wanted = ("plan", "--interview", "2026-03-01", "--minutes-per-day", "30")
    assert kata(*wanted, KATA_CLOCK="2026-03-01T20:00:00+00:00", TZ="UTC").returncode == 0
    tokyo = kata(*wanted, KATA_CLOCK="2026-03-01T20:00:00+00:00", TZ="Asia/Tokyo")
    assert "2026-03-01 is past: today is 2026-03-02" in tokyo.stderr


def test_pages_of_a_plan_fit_sixty_columns(kata: Kata) -> None:
    """No line is wider than the terminal, and none has colours without one."""
    for minutes in ("10", "45"):
        wanted = ("plan", "--interview", "2026-03-20", "--minutes-per-day", minutes)
        page = kata(*wanted, KATA_CLOCK=CLOCK, COLUMNS="60").stdout
        assert max(map(len, page.splitlines())) <= 60, page
        assert "\x1b" not in page


def test_a_home_that_is_no_folder(kata: Kata, tmp_path: Path) -> None:
    """Where nothing can be stored, the plan says so and does not pretend."""
    (tmp_path / "file").write_text("")
    done = kata(
        "plan", "--interview", "2026-03-09", "--minutes-per-day", "30",
        KATA_CLOCK=CLOCK, KATA_HOME=str(tmp_path / "file"),
    )  # fmt: skip
    assert done.returncode == 3
    assert "cannot be made" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_plan_beats_the_order_of_fsrs() -> None:
    """Simulated learners know more on the day; benchmarks/plan.py tells by how much."""
    import importlib.util

    path = Path(__file__).parent.parent / "benchmarks" / "plan.py"
    spec = importlib.util.spec_from_file_location("benchmark_plan", path)
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = benchmark
    spec.loader.exec_module(benchmark)
    for learner in range(4):
        by_fsrs, new_first, by_plan = (o.recall for o in benchmark.live((learner, 10, 40)))
        assert by_plan > by_fsrs + 0.05
        assert by_plan > new_first - 0.03
