"""What `kata export json` writes: the bank, and everything the learner did with it.

`record` is what `kata import` reads, row by row as it is stored; the rest is for people and other
programs.
"""

from datetime import datetime
from typing import Any

import msgspec

from grader import __version__
from grader.practice import schedule
from grader.recall import bank
from grader.store import Store
from grader.store.database import newest_schema

FORMAT = 2  # since 2 with `record`; what stood in 1 is as it was


def everything(store: Store, now: datetime) -> dict[str, Any]:
    """One object: questions, cards with the recall predicted for `now`, reviews, answers, and
    the attempts at each kata; then the whole record."""
    return {
        "format": FORMAT,
        "version": __version__,
        "exported_at": now,
        "questions": bank.load(),
        "cards": [
            {
                "key": card.key,
                "due": card.due,
                "recall": round(schedule.recall(card.memory, now), 4),
                "fsrs": msgspec.json.decode(card.memory),
            }
            for card in store.memory.cards().values()
        ],
        "reviews": [
            {"key": review.key, "at": review.at, "rating": review.rating.name.lower()}
            for review in store.memory.reviews()
        ],
        "answers": [
            {
                "key": answer.key,
                "at": answer.at,
                "seconds": answer.seconds,
                "draw": answer.draw,
                "text": answer.text,
                "correct": answer.correct,
                "points": answer.points,
                "rating": answer.rating.name.lower() if answer.rating else None,
            }
            for answer in store.memory.answers()
        ],
        "attempts": [
            {
                "slug": slug,
                "number": attempt.number,
                "at": attempt.at,
                "part": attempt.part,
                "passed": attempt.passed,
                "level": attempt.level,
                "checks_passed": attempt.checks[0],
                "checks": attempt.checks[1],
            }
            for slug in store.attempts.standings()
            for attempt in store.attempts.of(slug)
        ],
        "schema": newest_schema(),
        "record": store.records.all(),
    }
