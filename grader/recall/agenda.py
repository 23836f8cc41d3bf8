"""The one queue of `kata today`: questions, katas and bug hunts, with the minutes they take."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from msgspec.structs import replace

from grader import catalog
from grader.practice import current, queue, schedule, stops, work
from grader.practice import plan as plans
from grader.practice.plan import Item, Plan, Stop
from grader.recall import bank
from grader.store import Store
from grader.store.memory import Memory, MemoryCard

QUESTION, KATA, BUG = "question", "kata", "bug"

_QUESTION_MINUTES = {"easy": 2, "medium": 3, "hard": 4}
_TO_COMPUTE = 1
_BUG_SHARE = 3  # finding a mistake takes a third of writing it all
_PRIORITY = {"easy": 1.2, "medium": 1.0, "hard": 0.8}  # the more basic, the more often asked
_CORE = "core"  # asked in any interview: as high as what is easy


@dataclass(frozen=True)
class Entry:
    """One thing to practise. `about` is a question's topic, a kata's title."""

    item: Item
    kind: str
    name: str
    about: str
    due: datetime | None


@dataclass(frozen=True)
class Agenda:
    """What today holds. With a plan stops (with their minutes), `due` (what was seen before) and
    `new` together fit into the minutes it has left, and `beyond` is what else is due today.
    `next_due` is when the first of the rest is due, if there is any."""

    day: date
    due: tuple[Entry, ...]
    new: tuple[Entry, ...]
    done_minutes: float
    plan: Plan | None
    next_due: datetime | None
    stops: tuple[tuple[Stop, float], ...] = ()
    beyond: tuple[Entry, ...] = ()

    @property
    def minutes(self) -> float:
        items = sum(entry.item.minutes for entry in (*self.due, *self.new))
        return items + sum(minutes for _, minutes in self.stops)


def items() -> dict[str, Item]:
    """Everything there is to practise, in teaching order: questions, katas, bug hunts."""
    found = []
    for question in bank.load():
        minutes = _QUESTION_MINUTES[question.difficulty] + (_TO_COMPUTE if question.numeric else 0)
        key = f"{QUESTION}:{question.id}"
        found.append(Item(key, minutes, _PRIORITY[question.difficulty], question.topic))
    for kind, share in ((KATA, 1), (BUG, _BUG_SHARE)):
        for card in catalog.cards():
            priority = _PRIORITY["easy" if card.track == _CORE else card.difficulty]
            found.append(Item(f"{kind}:{card.slug}", -(-card.minutes // share), priority))
    return {item.key: item for item in found}


def planned(
    known: Mapping[str, Item], cards: Mapping[str, MemoryCard], deck: str = bank.CORE
) -> list[Item]:
    """What a plan is about: the deck's questions and the katas; of all else what was begun."""
    wanted = {f"{QUESTION}:{question.id}" for question in bank.load() if question.within(deck)}
    return [
        item for key, item in known.items() if key in cards or key in wanted or item.kind == KATA
    ]


def ahead(memory: Memory, plan: Plan, now: datetime) -> list[Stop]:
    """The mocks and hunts still to come, today's included; while nothing was practised yet, today
    is the plan's first day."""
    if not memory.cards():
        return stops.ahead(replace(plan, made=plans.study_day(now)), plans.study_day(now), (), ())
    since = now - timedelta(days=plans.FARTHEST_DAYS)
    if plan.made is not None:
        since = max(since, datetime.combine(plan.made, time(schedule.DAY_STARTS_AT), now.tzinfo))
    mocks, hunts = (
        [plans.study_day(at.astimezone(now.tzinfo)) for at in times]
        for times in (memory.work.mocks(since), memory.work.hunts(since))
    )
    return stops.ahead(plan, plans.study_day(now), mocks, hunts)


def today(memory: Memory, plan: Plan | None, now: datetime) -> Agenda:
    """The agenda of the study day of `now` (aware, in the learner's own time zone)."""
    known, cards = items(), memory.cards()
    done = work.done_minutes(memory, now)
    dated: tuple[tuple[Stop, float], ...] = ()
    beyond: list[str] = []
    wanted = planned(known, cards, plan.deck if plan else bank.CORE)
    if plan is None:
        order = queue.ordered((item.key for item in wanted), cards, now)
        keys = [key for key in order if key in cards] + _new(order, memory, now)
    else:
        dated = plans.held(ahead(memory, plan, now), plans.study_day(now), plan.minutes_per_day)
        left = plan.minutes_per_day - done - sum(minutes for _, minutes in dated)
        keys = [i.key for i in plans.chosen(wanted, queue.memories(cards), now, plan, left)]
        due = queue.ordered([key for key in known if key in cards], cards, now)
        beyond = [key for key in due if key not in keys]
    later = [card.due for key, card in cards.items() if key in known and key not in keys]
    return Agenda(
        plans.study_day(now),
        tuple(_entry(known[key], cards) for key in keys if key in cards),
        tuple(_entry(known[key], cards) for key in keys if key not in cards),
        done,
        plan,
        min((due for due in later if due > now), default=None),
        dated,
        tuple(_entry(known[key], cards) for key in beyond),
    )


def next_kata(store: Store, now: datetime) -> str | None:
    """The kata to begin after the current one: with a plan the first that it has for today, else,
    or once it has none, what is due or follows. None when all are passed and none is due. `now` is
    in the learner's own time zone."""
    plan, here = plans.current(store.settings, now), current.read(store)
    if plan is not None:
        found = today(store.memory, plan, now)
        for entry in (*found.due, *found.new):
            if entry.kind == KATA and (here is None or entry.name != here.slug):
                return entry.name
    return current.upcoming(store, now)


def _new(order: list[str], memory: Memory, now: datetime) -> list[str]:
    """Without a plan: some questions and one kata a day, less what was new earlier today."""
    first: dict[str, datetime] = {}
    for review in memory.reviews():
        first.setdefault(review.key, review.at)
    today = plans.study_day(now)
    begun = [k for k, at in first.items() if plans.study_day(at.astimezone(now.tzinfo)) == today]
    unseen = [key for key in order if key not in first]
    found = []
    for kind, daily in ((QUESTION, queue.NEW_A_DAY), (KATA, 1)):
        left = daily - sum(key.startswith(f"{kind}:") for key in begun)
        found += [key for key in unseen if key.startswith(f"{kind}:")][: max(left, 0)]
    return found


def _entry(item: Item, cards: Mapping[str, MemoryCard]) -> Entry:
    kind, _, name = item.key.partition(":")
    if kind == QUESTION:
        question = bank.question(name)
        about = question.topic if question else ""
    else:
        about = catalog.card(name).title
    due = cards[item.key].due if item.key in cards else None
    return Entry(item, kind, name, about, due)
