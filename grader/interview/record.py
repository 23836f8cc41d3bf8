"""What a paper is planned from: what of the learner's record is due, weak or still fresh."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from grader.exam.verdict import Level
from grader.practice import schedule
from grader.store import Store
from grader.store.attempts import Standing
from grader.store.memory import Rating

FRESH = timedelta(hours=6)


@dataclass(frozen=True)
class Record:
    """Keys are those of the deck: `question:<id>`, `kata:<slug>`, `bug:<slug>`.

    due: due before the study day ends; known: rated at some time; weak: rated again or hard when
    last rated; fresh: solved, answered, or its solution seen within the last FRESH hours.
    """

    standings: Mapping[str, Standing] = field(default_factory=dict)
    due: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()
    weak: frozenset[str] = frozenset()
    fresh: frozenset[str] = frozenset()

    def standing(self, slug: str) -> Standing:
        return self.standings.get(slug, Standing())

    def solved(self, slug: str) -> bool:
        return self.standing(slug).level is Level.COMPLETE


def read(now: datetime) -> Record:
    """The learner's record at `now` (aware, in their own time zone). Writes nothing."""
    with Store.open(create=False) as store:
        cards, end = store.memory.cards(), schedule.day_end(now)
        last = {review.key: review.rating for review in store.memory.reviews()}
        return Record(
            standings=store.attempts.standings(),
            due=frozenset(key for key, card in cards.items() if card.due < end),
            known=frozenset(cards),
            weak=frozenset(key for key, rating in last.items() if rating <= Rating.HARD),
            fresh=store.tallies.touched(now.astimezone(UTC) - FRESH),
        )
