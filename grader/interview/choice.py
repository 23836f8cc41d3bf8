"""Which katas, hunts and questions a paper takes. Pure: a seed and a record decide.

Every candidate has a weight (0: never) and its own random number from the seed and its key, so
that the same seed and record give the same order, and a new kata in the catalogue moves no other.
"""

import hashlib
import math
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TypeVar

from grader.catalog import Card
from grader.exam.verdict import Level
from grader.interview.record import Record
from grader.recall.bank import Question

T = TypeVar("T")


class Grade(StrEnum):
    """The level interviewed for."""

    JUNIOR = "junior"
    SENIOR = "senior"
    STAFF = "staff"


# The difficulty mix: how much more often one difficulty comes than another.
_MIX = {
    Grade.JUNIOR: {"easy": 3.0, "medium": 1.0, "hard": 0.1},
    Grade.SENIOR: {"easy": 1.0, "medium": 3.0, "hard": 1.5},
    Grade.STAFF: {"easy": 0.2, "medium": 2.0, "hard": 4.0},
}
_KINDS = {
    Grade.JUNIOR: {"recall": 2.0, "apply": 1.5, "extend": 0.5, "debug": 1.0, "systems": 0.3},
    Grade.SENIOR: {"recall": 1.0, "apply": 1.0, "extend": 1.0, "debug": 1.0, "systems": 1.0},
    Grade.STAFF: {"recall": 0.5, "apply": 1.0, "extend": 2.0, "debug": 1.5, "systems": 2.0},
}
_DUE, _WEAK, _NEW, _KNOWN = 4.0, 3.0, 1.5, 0.5
_IN_FOCUS = 1000.0  # anything in focus comes before anything that is not


def shuffled(
    candidates: Iterable[T], seed: int, key: Callable[[T], str], weight: Callable[[T], float]
) -> list[T]:
    """Candidates in a random order in which a weight of 2 comes first twice as often as one of 1.

    Weighted sampling without replacement (Efraimidis and Spirakis 2006); weight 0 is left out.
    """
    drawn = [(-math.log(_uniform(seed, key(c))) / w, c) for c in candidates if (w := weight(c)) > 0]
    return [candidate for _, candidate in sorted(drawn, key=lambda pair: pair[0])]


def _uniform(seed: int, key: str) -> float:
    """A number in (0, 1) that only seed and key decide."""
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    return (int.from_bytes(digest[:6], "big") + 1) / (2**48 + 2)


def kata_weight(card: Card, record: Record, level: Grade, focus: str | None) -> float:
    """How much a kata is wanted for coding: due and weak ones most, fresh ones never."""
    key, standing = f"kata:{card.slug}", record.standing(card.slug)
    if key in record.fresh:
        return 0.0
    if key in record.due:
        wanted = _DUE
    elif key in record.weak or standing.level is Level.CORE or (_tried(record, card.slug)):
        wanted = _WEAK
    else:
        wanted = _KNOWN if standing.level is Level.COMPLETE else _NEW
    return wanted * _MIX[level][card.difficulty] * (_IN_FOCUS if card.track == focus else 1.0)


def _tried(record: Record, slug: str) -> bool:
    standing = record.standing(slug)
    return standing.attempts > 0 and standing.level is Level.NONE


def hunt_weight(card: Card, record: Record, level: Grade, focus: str | None = None) -> float:
    """How much a hunt is wanted: on katas solved before rather than on unseen code."""
    key = f"bug:{card.slug}"
    if key in record.fresh or f"kata:{card.slug}" in record.fresh:
        return 0.0
    wanted = _DUE if key in record.due else _WEAK if key in record.weak else 1.0
    wanted *= 4.0 if record.solved(card.slug) else 1.0
    return wanted * _MIX[level][card.difficulty] * (_IN_FOCUS if card.track == focus else 1.0)


def question_weight(question: Question, record: Record, level: Grade) -> float:
    """How much a question is wanted."""
    key = f"question:{question.id}"
    if key in record.fresh:
        return 0.0
    known = _KNOWN if key in record.known else _NEW
    wanted = _DUE if key in record.due else _WEAK if key in record.weak else known
    return wanted * _MIX[level][question.difficulty] * _KINDS[level][question.kind]
