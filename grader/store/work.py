"""When something was worked on, and for how long.

Times come in as arguments (aware, UTC). What counts as work is decided in `practice/work.py`.
"""

from datetime import datetime, timedelta
from typing import Any

import msgspec

from grader.store.database import Section, from_row, read_time, stored_time


class Stretch(msgspec.Struct, frozen=True):
    """Something done from `begin` to `end`. `lines` is how many lines of text came of it, or None
    where the time is known to have been spent."""

    begin: datetime
    end: datetime
    lines: int | None = None


class Work(Section):
    """Stretches of work on katas and hunts (`key` is that of the card), and of all else."""

    def add(self, key: str, at: datetime, seconds: float) -> None:
        """A stretch that ended at `at`."""
        with self._db.transaction():
            self._db.insert(
                "INSERT INTO work (key, at, seconds) VALUES (?, ?, ?)",
                (key, stored_time(at), seconds),
            )

    def last(self, key: str, begun: datetime | None) -> datetime | None:
        """When work on it was seen last, but not before it was begun (None: whenever)."""
        row = self._db.row(
            "SELECT at FROM work WHERE key = ? AND at >= ? ORDER BY uid DESC LIMIT 1",
            (key, "" if begun is None else stored_time(begun)),
        )
        return begun if row is None else read_time(row["at"])

    def seconds(self, key: str, begun: datetime) -> float:
        """The time on task since then."""
        row = self._db.row(
            "SELECT total(seconds) AS sum FROM work WHERE key = ? AND at > ?",
            (key, stored_time(begun)),
        )
        return 0.0 if row is None else float(row["sum"])

    def stretches(self, since: datetime) -> list[Stretch]:
        """All that was done and ended after that: work, answers, rating them, mock interviews by
        their own clock. They may overlap, and are in no order."""
        rows = self._db.rows(
            "SELECT at, seconds, NULL AS lines FROM work WHERE at > :since"
            " UNION ALL SELECT at, seconds, 1 + length(text) - length(replace(text, char(10), ''))"
            " FROM answers WHERE at > :since AND interview IS NULL AND key NOT LIKE 'bug:%'"
            " AND seconds IS NOT NULL"
            " UNION ALL SELECT reviews.at, 86400 * (julianday(reviews.at) - julianday(answers.at)),"
            " 0 FROM reviews JOIN answers ON answers.id = reviews.answer"
            " WHERE reviews.at > :since AND answers.key NOT LIKE 'bug:%'"
            " AND answers.interview IS NULL"
            " UNION ALL SELECT at, spent, NULL FROM (SELECT at, clock_s - coalesce(lag(clock_s)"
            " OVER (PARTITION BY interview ORDER BY uid), 0) AS spent FROM interview_events)"
            " WHERE at > :since",
            {"since": stored_time(since)},
        )
        return [_stretch(row) for row in rows if row["seconds"] is None or row["seconds"] > 0]

    def mocks(self, since: datetime) -> list[datetime]:
        """When mock interviews ended after that, oldest first."""
        rows = self._db.rows(
            "SELECT ended FROM interviews WHERE ended > ? ORDER BY ended", (stored_time(since),)
        )
        return [read_time(row["ended"]) for row in rows]

    def hunts(self, since: datetime) -> list[datetime]:
        """When bug hunts were rated after that, oldest first."""
        rows = self._db.rows(
            "SELECT at FROM reviews WHERE key LIKE 'bug:%' AND NOT undone AND at > ? ORDER BY at",
            (stored_time(since),),
        )
        return [read_time(row["at"]) for row in rows]


@from_row
def _stretch(row: Any) -> Stretch:
    end = read_time(row["at"])
    return Stretch(end - timedelta(seconds=row["seconds"]), end, row["lines"])
