"""What a paper is planned from: what of the learner's record is due, weak or still fresh."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from grader.exam.verdict import Level
from grader.practice import schedule
from grader.practice.database import Database, file, stored_time
from grader.practice.deck import Deck
from grader.practice.progress import Progress, Standing
from grader.practice.schedule import Rating

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
    with Database(file(), create=False) as database:
        deck, cards = Deck(database), Deck(database).cards()
        end = schedule.day_end(now)
        last: dict[str, Rating] = {}
        for key, _, rating in deck.reviews():
            last[key] = rating
        return Record(
            standings=Progress(database).standings(),
            due=frozenset(key for key, card in cards.items() if card.due < end),
            known=frozenset(cards),
            weak=frozenset(key for key, rating in last.items() if rating <= Rating.HARD),
            fresh=_fresh(database, now),
        )


def _fresh(database: Database, now: datetime) -> frozenset[str]:
    since = stored_time(now.astimezone(UTC) - FRESH)
    rows = database.rows(
        "SELECT 'kata:' || slug AS key FROM attempts WHERE passed AND part IS NULL AND at > ?"
        " UNION SELECT 'kata:' || slug FROM solutions_seen WHERE at > ?"
        " UNION SELECT key FROM reviews WHERE NOT undone AND at > ?"
        " UNION SELECT key FROM answers WHERE at > ?",
        (since,) * 4,
    )
    return frozenset(row["key"] for row in rows)
