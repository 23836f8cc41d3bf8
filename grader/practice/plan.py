"""A plan up to an interview: what to practise each day so that most is known on that day.

The rule. A study day holds the plan's minutes. They are filled with

1. what was never seen, questions and katas in turn, the highest priority first: unseen counts as
   not known, and no repetition gains as much as a first look;
2. then what gains most: its priority times the difference that repeating it now makes to the
   probability (FSRS) of recalling it on the day of the interview. This brings back what would be
   forgotten by then, and in the last days what a refresh lifts most.

A thing is worth the minutes it takes (an interview spends them much as practice does) times its
priority; gain per minute is therefore gain times priority, and minutes need no other weighing.
What no longer fits into the day is passed over for the next that fits; nothing comes twice in one.
`benchmarks/plan.py` compares the rule with FSRS's own order. Pure: times come in as arguments, in
the learner's own time zone, because that decides which day it is.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

import msgspec

from grader.practice import schedule
from grader.store import StoreError
from grader.store.memory import Rating
from grader.store.settings import Settings

FARTHEST_DAYS = 366
FEWEST_MINUTES, MOST_MINUTES = 5, 720  # for a day
MOCK, HUNT = "mock", "hunt"

_SETTING = "plan"
_NOON = time(12)
# How a first look goes before anything is known of the learner: answered well or not.
_FIRST_CHANCE = 0.6
_ENOUGH_MINUTES = 24 * 60
_FORECAST_DAYS = 30
_STOP_MINUTES = {MOCK: (15, 45), HUNT: (8, 8)}  # the fewest with which it is held, and the most


@dataclass(frozen=True)
class Item:
    """Something to practise. `priority` is what a minute of it counts for; 1 is usual. `topic` is
    what many of its kind are summed up by, if there is such a thing."""

    key: str
    minutes: float
    priority: float = 1.0
    topic: str = ""

    @property
    def kind(self) -> str:
        return self.key.partition(":")[0]

    @property
    def worth(self) -> float:
        return self.minutes * self.priority


class Plan(msgspec.Struct, frozen=True):
    """The day that matters, the minutes for each day before it, the deck of questions, and the
    plan's first day (None: not known)."""

    interview: date
    minutes_per_day: int
    deck: str = "core"
    made: date | None = None

    def moment(self, now: datetime) -> datetime:
        """When things should be known: noon of the interview's day, in the time zone of `now`."""
        return datetime.combine(self.interview, _NOON, now.tzinfo)

    def days_left(self, now: datetime) -> int:
        """Study days to practise in, today's included; the interview's own only if it is today.
        0 when the interview is over."""
        left = (self.interview - study_day(now)).days
        return 1 if left == 0 else max(left, 0)


@dataclass(frozen=True)
class Stop:
    """A mock interview or a bug hunt (`kind`) that has its day; see `practice/stops.py`."""

    kind: str
    day: date

    def minutes(self, a_day: float) -> float:
        """What it takes on a day of so many minutes; 0 where these are too few for it."""
        fewest, most = _STOP_MINUTES[self.kind]
        return min(most, int(a_day)) if a_day >= fewest else 0


@dataclass(frozen=True)
class Day:
    """What one day of a forecast would hold. `stops` have their minutes with them."""

    day: date
    new: tuple[Item, ...]
    again: tuple[Item, ...]
    stops: tuple[tuple[Stop, float], ...] = ()

    @property
    def minutes(self) -> float:
        items = sum(item.minutes for item in (*self.new, *self.again))
        return items + sum(minutes for _, minutes in self.stops)


@dataclass(frozen=True)
class Forecast:
    """How a plan works out. `left_out` is what stays unseen, least priority first;
    `recall_now` and `recall_then` are the worth-weighted recall on the day (0 to 1), if nothing
    more is done and if the plan is followed; `enough_minutes` per day would show everything once
    (None: that many minutes no day has)."""

    days: tuple[Day, ...]
    left_out: tuple[Item, ...]
    recall_now: float
    recall_then: float
    enough_minutes: int | None


def study_day(now: datetime) -> date:
    """The day that `now` belongs to; it lasts until 4 o'clock at night."""
    return (schedule.day_end(now) - timedelta(days=1)).date()


def stored(settings: Settings) -> Plan | None:
    """The learner's plan, over or not; None if there is none."""
    text = settings.get(_SETTING)
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=Plan)
    except msgspec.DecodeError as error:
        raise StoreError(
            "The stored plan cannot be read. `kata plan --clear` removes it."
        ) from error


def store(settings: Settings, plan: Plan | None) -> None:
    """Set the learner's plan, or remove it."""
    settings.set(_SETTING, "" if plan is None else msgspec.json.encode(plan).decode())


def current(settings: Settings, now: datetime) -> Plan | None:
    """The learner's plan, if its interview is still to come."""
    plan = stored(settings)
    return plan if plan is not None and plan.days_left(now) else None


def gain(memory: str | None, now: datetime, day: datetime) -> float:
    """What practising at `now` adds to the probability of recall at `day`."""
    chance = _FIRST_CHANCE if memory is None else schedule.recall(memory, now)
    good, again = (
        schedule.recall(schedule.review(memory, rating, now).memory, day)
        for rating in (Rating.GOOD, Rating.AGAIN)
    )
    return chance * good + (1 - chance) * again - schedule.recall(memory, day)


def ordered(
    items: Iterable[Item], memories: Mapping[str, str], now: datetime, plan: Plan
) -> list[Item]:
    """All that today could hold, by the rule at the top; without what was practised today."""
    day, today = plan.moment(now), study_day(now)
    unseen: list[Item] = []
    gains: list[tuple[float, Item]] = []
    for item in in_turn(items):
        memory = memories.get(item.key)
        if memory is None:
            unseen.append(item)
        elif study_day(schedule.reviewed_at(memory).astimezone(now.tzinfo)) != today:
            gains.append((item.priority * gain(memory, now, day), item))
    gains.sort(key=lambda pair: -pair[0])
    return [*unseen, *(item for value, item in gains if value > 0)]


def in_turn(items: Iterable[Item]) -> list[Item]:
    """The highest priority first, the kinds mixed in proportion to the minutes they take."""
    kinds: dict[str, list[Item]] = {}
    for item in sorted(items, key=lambda item: -item.priority):
        kinds.setdefault(item.kind, []).append(item)
    placed: list[tuple[float, Item]] = []
    for some in kinds.values():
        total, before = sum(item.minutes for item in some), 0.0
        for item in some:
            placed.append(((before + item.minutes / 2) / total, item))
            before += item.minutes
    return [item for _, item in sorted(placed, key=lambda pair: pair[0])]


def held(stops: Iterable[Stop], day: date, minutes: float) -> tuple[tuple[Stop, float], ...]:
    """The stops of a day that holds so many minutes, and what each takes."""
    found = ((stop, stop.minutes(minutes)) for stop in stops if stop.day == day)
    return tuple((stop, takes) for stop, takes in found if takes)


def chosen(
    items: Iterable[Item], memories: Mapping[str, str], now: datetime, plan: Plan, minutes: float
) -> list[Item]:
    """What of it fits into today's remaining `minutes`."""
    return _fitting(ordered(items, memories, now, plan), minutes)


def missed(plan: Plan, today: date, practised: Iterable[date]) -> list[date]:
    """The days without practice up to yesterday, in a row, since the plan was made."""
    there, found = set(practised), []
    day = today - timedelta(days=1)
    while plan.made is not None and day >= plan.made and day not in there:
        found.append(day)
        day -= timedelta(days=1)
    return found[::-1]


def _fitting(items: Iterable[Item], minutes: float) -> list[Item]:
    taken = []
    for item in items:
        if item.minutes <= minutes:
            taken.append(item)
            minutes -= item.minutes
    return taken


def forecast(
    items: Sequence[Item],
    memories: Mapping[str, str],
    now: datetime,
    plan: Plan,
    done_minutes: float = 0.0,
    stops: Sequence[Stop] = (),
) -> Forecast:
    """How the days up to the interview would go, if answers succeed as FSRS expects them to.

    done_minutes: what was practised today already. Outcomes are drawn from a fixed seed, so that
    the same record gives the same forecast. Of a long time the first and the last 30 days count.
    """
    draw, known = random.Random(0), dict(memories)
    days: list[Day] = []
    left = plan.days_left(now)
    for number in range(left):
        if _FORECAST_DAYS <= number < left - _FORECAST_DAYS:
            continue
        then = now + timedelta(days=number)
        dated = held(stops, study_day(then), plan.minutes_per_day)
        minutes = plan.minutes_per_day - (0 if number else done_minutes)
        minutes -= sum(takes for _, takes in dated)
        today = chosen(items, known, then, plan, minutes)
        new = tuple(item for item in today if item.key not in known)
        again = tuple(item for item in today if item.key in known)
        days.append(Day(study_day(then), new, again, dated))
        for item in today:
            memory = known.get(item.key)
            chance = _FIRST_CHANCE if memory is None else schedule.recall(memory, then)
            rating = Rating.GOOD if draw.random() < chance else Rating.AGAIN
            known[item.key] = schedule.review(memory, rating, then).memory
    left_out = [item for item in reversed(items) if item.key not in known]
    return Forecast(
        tuple(days),
        tuple(sorted(left_out, key=lambda item: item.priority)),
        recall(items, memories, plan.moment(now)),
        recall(items, known, plan.moment(now)),
        _enough(items, memories, now, left, done_minutes, stops)
        if left_out
        else plan.minutes_per_day,
    )


def recall(items: Sequence[Item], memories: Mapping[str, str], when: datetime) -> float:
    """The expected share, by worth, of the items that are recalled at `when`; 0 for no items."""
    total = sum(item.worth for item in items)
    known = sum(i.worth * schedule.recall(memories.get(i.key), when) for i in items)
    return known / total if total else 0.0


def _enough(
    items: Sequence[Item],
    memories: Mapping[str, str],
    now: datetime,
    days: int,
    done_minutes: float,
    stops: Sequence[Stop],
) -> int | None:
    """The fewest minutes a day, in steps of 5, in which all is seen once."""
    order = [item for item in in_turn(items) if item.key not in memories]
    first = study_day(now)
    for minutes in range(5, _ENOUGH_MINUTES + 1, 5):
        left = order
        for number in range(days):
            dated = held(stops, first + timedelta(days=number), minutes)
            room = minutes - (0 if number else done_minutes) - sum(takes for _, takes in dated)
            taken = {item.key for item in _fitting(left, room)}
            left = [item for item in left if item.key not in taken]
        if not left:
            return minutes
    return None
