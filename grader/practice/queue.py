"""What to practise now, in which order."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from grader.practice import schedule
from grader.practice.deck import Card

NEW_A_DAY = 10


def ordered(keys: Iterable[str], cards: Mapping[str, Card], now: datetime) -> list[str]:
    """Keys that are due before the study day of `now` ends, most overdue first, then new ones
    in the order given. `now` is in the learner's own time zone."""
    end = schedule.day_end(now)
    known = list(keys)
    due = sorted(
        (k for k in known if k in cards and cards[k].due < end), key=lambda k: cards[k].due
    )
    return [*due, *(k for k in known if k not in cards)]
