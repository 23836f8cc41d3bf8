"""What is begun anew, leaning on the learner's record as it is now: a mock's paper, a hunt."""

import random

from grader import catalog
from grader.catalog import Card
from grader.errors import UsageFault
from grader.interview import choice, record, setter
from grader.interview.choice import Grade
from grader.interview.paper import Paper
from grader.practice import clock, hunt
from grader.recall import bank


def seed() -> int:
    """One that nobody has asked for."""
    return random.SystemRandom().randrange(10**6)


def paper(
    minutes: int, seed: int, *, level: str | None, focus: str | None, deck: str | None
) -> Paper:
    """A paper of `minutes` (15 to 120). The level is senior unless it is named; the deck is the
    core, or all of it where senior or staff is named."""
    return setter.paper(
        record.read(clock.now().astimezone()),
        catalog.cards(),
        bank.load(),
        seed=seed,
        minutes=minutes,
        level=Grade(level or Grade.SENIOR),
        focus=focus,
        deck=deck or ("all" if level in (Grade.SENIOR, Grade.STAFF) else bank.CORE),
    )


def hunted(seed: int) -> Card:
    """The kata to hunt in: due and weak hunts first, those on solved katas before unseen ones.
    Raises UsageFault if a hunt is open on every kata."""
    known, opened = record.read(clock.now().astimezone()), hunt.opened()
    free = [card for card in catalog.cards() if card.slug not in opened]
    order = choice.shuffled(
        free,
        seed,
        lambda card: f"bug:{card.slug}",
        lambda card: choice.hunt_weight(card, known, Grade.SENIOR),
    )
    if not order and not free:
        raise UsageFault("A hunt is open on every kata. `kata bug SLUG` goes on with one.")
    return (order or free)[0]
