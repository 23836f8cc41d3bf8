"""What to practise now, in which order."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from grader.practice import plan as plans
from grader.practice import schedule
from grader.practice.plan import Item, Plan
from grader.store.memory import MemoryCard

NEW_A_DAY = 10


def ordered(
    keys: Iterable[str],
    cards: Mapping[str, MemoryCard],
    now: datetime,
    plan: Plan | None = None,
    items: Mapping[str, Item] | None = None,
) -> list[str]:
    """Keys that are due before the study day of `now` ends, most overdue first, then new ones
    in the order given. `now` is in the learner's own time zone.

    With a plan its rule decides: unseen ones first, then by what repeating them gains on the day
    of the interview; what was practised today waits. `items` then says what each key takes.
    """
    known = list(keys)
    if plan is not None:
        there = items or {}
        wanted = [there.get(key) or Item(key, 1.0) for key in known]
        return [item.key for item in plans.ordered(wanted, memories(cards), now, plan)]
    end = schedule.day_end(now)
    due = sorted(
        (k for k in known if k in cards and cards[k].due < end), key=lambda k: cards[k].due
    )
    return [*due, *(k for k in known if k not in cards)]


def memories(cards: Mapping[str, MemoryCard]) -> dict[str, str]:
    """What the scheduler knows of each card."""
    return {key: card.memory for key, card in cards.items()}
