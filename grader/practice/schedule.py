"""When something is due again, and how likely it is remembered: FSRS over plain values.

Pure: times come in as arguments (aware, UTC). What the scheduler keeps of a card is one JSON
text, the `memory`; None is a card never reviewed.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from grader.store.database import from_row
from grader.store.memory import Rating

DESIRED_RECALL = 0.9
DAY_STARTS_AT = 4  # local hour: a night's practice belongs to the day before
_STEP = timedelta(minutes=10)


@dataclass(frozen=True)
class Reviewed:
    """A card after a review: its new memory, and when it is due."""

    memory: str
    due: datetime


@cache
def _scheduler() -> Any:
    from fsrs import Scheduler

    # Fuzz draws from the global random state; cards here are too few to need spreading.
    return Scheduler(
        desired_retention=DESIRED_RECALL,
        learning_steps=(_STEP,),
        relearning_steps=(_STEP,),
        enable_fuzzing=False,
    )


def _card(memory: str | None, now: datetime) -> Any:
    from fsrs import Card as FsrsCard

    if memory is None:
        return FsrsCard(card_id=0, due=now)
    return from_row(FsrsCard.from_json)(memory)


def review(memory: str | None, rating: Rating, now: datetime) -> Reviewed:
    """The card after being rated at `now`. A clock set back counts as no time passed."""
    from fsrs import Rating as FsrsRating

    card, now = _card(memory, now), now.astimezone(UTC)
    if card.last_review is not None:
        now = max(now, card.last_review)
    card, _ = _scheduler().review_card(card, FsrsRating(int(rating)), now)
    return Reviewed(card.to_json(), card.due)


def recall(memory: str | None, when: datetime) -> float:
    """The probability, 0 to 1, that the card is remembered at `when`; 0 if never reviewed."""
    if memory is None:
        return 0.0
    return float(_scheduler().get_card_retrievability(_card(memory, when), when.astimezone(UTC)))


def due_of(memory: str) -> datetime:
    """When a card with this memory is due."""
    due: datetime = _card(memory, datetime.now(UTC)).due
    return due


def reviewed_at(memory: str) -> datetime:
    """When a card with this memory was reviewed last."""
    at: datetime = _card(memory, datetime.now(UTC)).last_review
    return at


def day_end(now: datetime) -> datetime:
    """When the study day of `now` (aware, its own time zone counts) ends: the next 4 o'clock."""
    end = now.replace(hour=DAY_STARTS_AT, minute=0, second=0, microsecond=0)
    return end if now < end else end + timedelta(days=1)


def suggested(share: float, correct: bool | None = None) -> Rating:
    """The rating that the share of rubric points ticked (0 to 1) speaks for.

    correct: whether a computed answer was right; None where nothing was computed.
    """
    if correct is False:
        return Rating.AGAIN if share < 0.5 else Rating.HARD
    if share >= 0.99:
        return Rating.EASY
    if share >= 0.6:
        return Rating.GOOD
    # A right number is half of an answer, whatever else was left unsaid.
    return Rating.HARD if share >= 0.3 or correct else Rating.AGAIN


def solved(seconds: float, par_s: float, hints: int, saw_solution: bool) -> Rating:
    """The rating of a kata solved from the blank stub, by time against par and help used."""
    if saw_solution or hints >= 4:
        return Rating.AGAIN
    if hints >= 2 or seconds > 2 * par_s:
        return Rating.HARD
    return Rating.EASY if hints == 0 and seconds <= 0.6 * par_s else Rating.GOOD
