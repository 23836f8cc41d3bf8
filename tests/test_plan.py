"""`kata plan`: the rule, what it says of the minutes, and how it is kept."""

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from grader import catalog
from grader.practice import plan, queue, repetition, schedule, stops
from grader.practice.plan import Item, Plan, Stop
from grader.recall import planning
from grader.store import Store
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


def test_what_is_left_out_is_one_line() -> None:
    """However much it is, and on a narrow page; with `all_` each thing has its own line."""
    one = (Item("question:q", 3, 1.0), Item("kata:k", 15, 1.0))
    for items, said in ((one, "1 kata"), (BANK, "10 katas")):
        outlook = plan.forecast(items, {}, NOW, until(100, 10))
        shown = planning.Outlook(until(100, 10), outlook, (0, 2), NOW.date())
        page = pages.planned(shown, False, 60, False)
        assert [line for line in page if "Left out" in line] == [
            f"Left out: {said} (--all names them)."
        ]
        page = pages.planned(shown, True, 60, False)
        assert sum("*" in line for line in page) == len(outlook.left_out) + 1


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
    assert "(--all names them)" in made.stdout
    assert "nf4_quantize" not in made.stdout
    listed = kata("plan", "--all", KATA_CLOCK=CLOCK).stdout
    assert "Left out, least valuable first" in listed
    assert "nf4_quantize" in listed
    assert "longer than a day's minutes" in listed  # nf4_quantize takes 25
    today = json.loads(kata("today", "--json", KATA_CLOCK=CLOCK).stdout)
    wanted: dict[str, Any] = {"interview": "2026-03-11", "minutes_per_day": 20, "deck": "core"}
    wanted["made"] = "2026-03-01"
    assert today["plan"] == wanted
    assert 15 <= today["minutes"] <= 20
    more = json.loads(kata("plan", "--minutes-per-day", "300", "--json", KATA_CLOCK=CLOCK).stdout)
    assert more["plan"] == {**wanted, "minutes_per_day": 300}
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
        (["--ics", "plan.ics"], "There is no plan to write"),
        (["--force"], "--force goes with --ics FILE"),
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


@pytest.mark.parametrize(
    ("day", "minutes", "columns"),
    [
        ("2026-03-01", "5", "60"),
        ("2026-03-02", "600", "60"),
        ("2026-03-10", "5", "80"),
        ("2026-03-10", "45", "80"),
        ("2026-03-10", "600", "60"),
        ("2027-03-01", "45", "60"),
        ("2026-03-10", "45", "40"),
    ],
)
def test_pages_of_a_plan_fit_the_screen(kata: Kata, day: str, minutes: str, columns: str) -> None:
    """Today, tomorrow, in nine days, in a year: no line is wider than the terminal, none has
    colours without one, and where a day's names are few the week fits on 24 rows of 80."""
    wanted = ("plan", "--interview", day, "--minutes-per-day", minutes)
    done = kata(*wanted, KATA_CLOCK=CLOCK, TZ="UTC", COLUMNS=columns)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= int(columns), done.stdout
    assert "\x1b" not in done.stdout
    assert "\u00a0" not in done.stdout
    assert sum("Left out" in line for line in lines) <= 1
    words = {word.strip(",;") for word in done.stdout.split() if "_" in word}
    assert words <= set(catalog.slugs())  # none is broken
    assert columns != "80" or len(lines) <= 23, done.stdout


def test_the_week_is_told_by_day_with_names(kata: Kata) -> None:
    """Katas by name, questions by topic, mocks and hunts where they are dated; what lies beyond
    the week in a line."""
    page = kata(
        "plan", "--interview", "2026-03-10", "--minutes-per-day", "45", KATA_CLOCK=CLOCK, TZ="UTC"
    ).stdout
    told = json.loads(kata("plan", "--json", KATA_CLOCK=CLOCK, TZ="UTC").stdout)
    lines = page.splitlines()
    first = next(line for line in lines if "Sun 1 Mar" in line)
    assert "45 min  lora_linear" in first
    assert "questions: 2 lora" in " ".join(page.split())
    assert "Wed 4 Mar    45 min  mock interview (45 min)" in page
    assert "Mon 2 Mar    45 min  bug hunt (8 min)" in page
    assert "  … and 2 more days: mock interview Sun 8 Mar" in lines
    assert "Mon 9 Mar" not in page
    assert "Mon 9 Mar" in kata("plan", "--all", KATA_CLOCK=CLOCK, TZ="UTC").stdout
    assert all(day["minutes"] <= 45 for day in told["days"])


# Mocks and hunts on the way


def dated(made: Plan, today: int, mocks: tuple[int, ...] = (), hunts: tuple[int, ...] = ()) -> str:
    """What is to come, in days before the interview; `mocks` and `hunts` were held that long
    before it, as `today` is."""

    def day(before: int) -> date:
        return made.interview - timedelta(days=before)

    found = stops.ahead(made, day(today), map(day, mocks), map(day, hunts))
    return " ".join(f"{stop.kind[0]}{(made.interview - stop.day).days}" for stop in found)


def test_mocks_and_hunts_have_their_days() -> None:
    """Nine days hold two mocks, the last not on the eve, with a hunt before and between; the first
    day holds none, a few days hold few, a long plan one of each a week."""

    def made(days: int) -> Plan:
        return Plan(NOW.date() + timedelta(days=days), 45, made=NOW.date())

    assert dated(made(9), 9) == "h8 m6 h4 m2"
    assert dated(made(5), 5) == "h4 m2"
    assert dated(made(3), 3) == "m2"
    assert [dated(made(days), days) for days in (0, 1, 2)] == ["", "", ""]
    assert dated(made(30), 30) == "m27 h23 m20 h16 m13 h8 m6 h4 m2"


def test_what_was_held_is_not_asked_again_and_what_was_missed_moves() -> None:
    """A mock held early or late counts; one that was missed moves to today, unless the next is as
    near as tomorrow or it is too late."""
    made = Plan(NOW.date() + timedelta(days=9), 45, made=NOW.date())
    assert dated(made, 6) == "m6 h4 m2"  # the hunt moves on too, but a mock has that day
    assert dated(made, 7) == "h7 m6 h4 m2"
    assert dated(made, 5, mocks=(6,)) == "h4 m2"  # the next hunt is as near as tomorrow
    assert dated(made, 6, mocks=(7,), hunts=(8,)) == "h4 m2"
    assert dated(made, 5, hunts=(8,)) == "m5 h4 m2"
    assert dated(made, 5, mocks=(5,), hunts=(8,)) == "h4 m2"
    assert dated(made, 6, mocks=(6,)) == "h4 m2"  # a mock has a hunt of its own
    assert dated(made, 3, hunts=(8, 4)) == "m2"
    assert dated(made, 1, hunts=(8,)) == ""


def test_a_plan_of_before_has_its_dates_from_today_on() -> None:
    """Its first day is not known: nothing counts as missed."""
    old = Plan(NOW.date() + timedelta(days=6), 45)
    assert dated(old, 6) == "m6 h4 m2"
    assert plan.missed(old, NOW.date(), ()) == []


def test_too_few_minutes_hold_no_mock() -> None:
    """A mock takes 15 minutes at least, and 45 at most; what all needs is counted with it."""
    mock, hunted = Stop(plan.MOCK, NOW.date()), Stop(plan.HUNT, NOW.date())
    assert [mock.minutes(number) for number in (14, 15, 30, 90)] == [0, 15, 30, 45]
    assert [hunted.minutes(number) for number in (7, 8, 90)] == [0, 8, 8]
    days = [Stop(plan.MOCK, NOW.date() + timedelta(days=n)) for n in range(3)]
    enough = plan.forecast(BANK, {}, NOW, until(5, 20), 0, days).enough_minutes
    assert enough is not None
    assert enough > (plan.forecast(BANK, {}, NOW, until(5, 20)).enough_minutes or 0)
    assert not plan.forecast(BANK, {}, NOW, until(5, enough), 0, days).left_out


def test_today_has_the_mock_of_its_day_until_it_is_held(kata: Kata, tmp_path: Path) -> None:
    """With its minutes and its command; then the day's minutes are done."""
    kata("plan", "--interview", "2026-03-10", "--minutes-per-day", "45", KATA_CLOCK=CLOCK, TZ="UTC")
    mock_day = {"KATA_CLOCK": "2026-03-04T18:00:00+00:00", "TZ": "UTC"}
    with Store(tmp_path / "home" / "progress.db", create=True) as store:
        repetition.rate(store.memory, "kata:lora_linear", Rating.GOOD, NOW)
        page = kata("today", **mock_day).stdout
        assert "On this day\n  mock interview (45 min)" in page
        assert "Begin: `kata mock --minutes 45`." in page
        assert json.loads(kata("today", "--json", **mock_day).stdout)["stops"] == [
            {"kind": "mock", "minutes": 45}
        ]
        at = datetime(2026, 3, 4, 17, tzinfo=UTC)
        mock = store.interviews.begin("{}", Path("x"), at).number
        store.interviews.append(mock, "said", {}, 44 * 60, at + timedelta(minutes=44))
        store.interviews.end(mock, at + timedelta(minutes=44))
    after = json.loads(kata("today", "--json", **mock_day).stdout)
    assert after["stops"] == []
    assert after["done_minutes"] == 44
    hunt_day = kata("today", KATA_CLOCK="2026-03-06T18:00:00+00:00", TZ="UTC").stdout
    assert "bug hunt (8 min)" in hunt_day
    assert "Begin: `kata bug`." in hunt_day


def test_a_missed_day_is_said_and_the_plan_moves_on(kata: Kata, tmp_path: Path) -> None:
    """What it held comes today. A day with practice is not missed, nor one before the plan."""
    kata("plan", "--interview", "2026-03-10", "--minutes-per-day", "45", KATA_CLOCK=CLOCK, TZ="UTC")
    first = json.loads(kata("plan", "--json", KATA_CLOCK=CLOCK, TZ="UTC").stdout)
    assert first["missed"] == []
    for day, said in ((2, "Sun 1 Mar was missed: the plan"), (4, "Missed: Sun 1 Mar to Tue 3 Mar")):
        at = {"KATA_CLOCK": f"2026-03-0{day}T18:00:00+00:00", "TZ": "UTC"}
        assert said in kata("plan", **at).stdout
        told = json.loads(kata("plan", "--json", **at).stdout)
        assert len(told["missed"]) == day - 1
        assert told["days"][0]["new"] == first["days"][0]["new"]
    with Store(tmp_path / "home" / "progress.db", create=True) as store:
        store.memory.answer("question:q", "said", NOW + timedelta(days=2), seconds=60)
    assert "issed" not in kata("plan", **at).stdout


# Calendar entries


def entries(file: Path) -> dict[str, Any]:
    """The entries of a file by their UID."""
    from icalendar import Calendar

    found = Calendar.from_ical(file.read_bytes())
    assert (found["version"], found["method"]) == ("2.0", "PUBLISH")
    assert found["prodid"]
    return {str(entry["uid"]): entry for entry in found.walk("VEVENT")}


def test_a_plan_is_written_as_calendar_entries(kata: Kata, tmp_path: Path) -> None:
    """Whole days that leave the day free, with what they hold and a reminder; lines end and fold
    as RFC 5545 has it."""
    file = tmp_path / "plan.ics"
    wanted = ("plan", "--interview", "2026-03-10", "--minutes-per-day", "45", "--ics", str(file))
    night = "2026-03-01T20:00:00+00:00"  # the morning of the second in Tokyo
    done = kata(*wanted, KATA_CLOCK=night, TZ="Asia/Tokyo")
    assert done.returncode == 0, done.stderr
    assert "8 days and the interview" in " ".join(done.stdout.split())
    raw = file.read_bytes()
    assert raw.count(b"\n") == raw.count(b"\r\n")
    assert all(len(line) <= 75 for line in raw.split(b"\r\n"))
    found = entries(file)
    assert len(found) == 9
    for uid, entry in found.items():
        day = entry.decoded("dtstart")
        assert not isinstance(day, datetime)
        assert entry.decoded("dtend") == day + timedelta(days=1)
        assert entry.decoded("dtstamp") == datetime(2026, 3, 1, 20, tzinfo=UTC).replace(
            second=entry.decoded("dtstamp").second
        )
        assert entry["transp"] == "TRANSPARENT"
        (alarm,) = entry.walk("VALARM")
        assert (alarm["action"], bool(alarm["description"])) == ("DISPLAY", True)
        eve = day == date(2026, 3, 10)
        assert alarm.decoded("trigger") == timedelta(hours=-6 if eve else 9)
        assert uid == f"kata-plan-{'interview' if eve else day}@lora-kata"
    mock = found["kata-plan-2026-03-04@lora-kata"]
    assert str(mock["summary"]) == "Kata: 45 min, mock interview"
    assert str(found["kata-plan-2026-03-02@lora-kata"]["description"]).startswith("lora_linear")


def test_a_later_file_updates_the_entries(kata: Kata, tmp_path: Path) -> None:
    """The same UIDs with a higher sequence, also where the interview moves; a file that is there is
    replaced with --force alone."""
    first, later = tmp_path / "first.ics", tmp_path / "later.ics"
    wanted = ("plan", "--interview", "2026-03-10", "--minutes-per-day", "45", "--ics")
    assert kata(*wanted, str(first), KATA_CLOCK=CLOCK, TZ="UTC").returncode == 0
    again = kata("plan", "--ics", str(first), KATA_CLOCK=CLOCK, TZ="UTC")
    assert again.returncode == 2
    assert "--force replaces it" in again.stderr
    moved = ("plan", "--interview", "2026-03-12", "--ics", str(later))
    at = {"KATA_CLOCK": "2026-03-02T18:00:00+00:00", "TZ": "UTC"}
    assert kata(*moved, **at).returncode == 0
    assert kata("plan", "--ics", str(first.with_name("later.ics")), "--force", **at).returncode == 0
    old, new = entries(first), entries(later)
    both = set(old) & set(new)
    assert len(both) == 9  # from the second to the ninth, and the interview
    assert all(new[uid]["sequence"] > old[uid]["sequence"] for uid in both)
    assert new["kata-plan-interview@lora-kata"].decoded("dtstart") == date(2026, 3, 12)
    assert all(new[uid]["sequence"] < 2**31 for uid in new)


def test_the_calendar_library_is_loaded_for_its_file_alone(kata: Kata, tmp_path: Path) -> None:
    """`plan` and `today` do without it."""
    (tmp_path / "icalendar.py").write_text("raise RuntimeError('icalendar was imported')\n")
    path = f"{tmp_path}:{Path(__file__).parent.parent}"
    wanted = ("plan", "--interview", "2026-03-10", "--minutes-per-day", "45")
    for command in (wanted, ("plan", "--all"), ("today",)):
        assert kata(*command, KATA_CLOCK=CLOCK, PYTHONPATH=path).returncode == 0
    assert kata("plan", "--ics", "x.ics", KATA_CLOCK=CLOCK, PYTHONPATH=path).returncode == 3


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
