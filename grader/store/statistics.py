"""What the whole record adds up to: counts, and when something was done.

Times come in as arguments (aware); nothing here asks the clock.
"""

from datetime import datetime

from grader.store.database import Section, read_time, stored_time


class Tallies(Section):
    """Counts over all that is stored."""

    def answers(self) -> int:
        """Answers ever given, the diagnoses of hunts aside."""
        return self._number("answers WHERE key NOT LIKE 'bug:%'")

    def hunts(self) -> int:
        """Hunts that were rated."""
        return self._number("reviews WHERE key LIKE 'bug:%' AND NOT undone")

    def hints(self) -> dict[str, int]:
        """How many hints were seen of each kata, ever."""
        return self._by_slug("hints_seen")

    def solutions(self) -> dict[str, int]:
        """How often the solution of each kata was seen."""
        return self._by_slug("solutions_seen")

    def practised(self) -> list[datetime]:
        """When something was answered, attempted or hunted, in no order."""
        rows = self._db.rows(
            "SELECT at FROM answers WHERE key NOT LIKE 'bug:%' UNION ALL SELECT at FROM attempts"
            " UNION ALL SELECT at FROM reviews WHERE key LIKE 'bug:%' AND NOT undone"
        )
        return [read_time(row["at"]) for row in rows]

    def touched(self, since: datetime) -> frozenset[str]:
        """The cards of what was solved, answered or rated since then, or its solution seen."""
        rows = self._db.rows(
            "SELECT 'kata:' || slug AS key FROM attempts WHERE passed AND part IS NULL AND at > ?"
            " UNION SELECT 'kata:' || slug FROM solutions_seen WHERE at > ?"
            " UNION SELECT key FROM reviews WHERE NOT undone AND at > ?"
            " UNION SELECT key FROM answers WHERE at > ?",
            (stored_time(since),) * 4,
        )
        return frozenset(row["key"] for row in rows)

    def _number(self, what: str) -> int:
        row = self._db.row(f"SELECT count(*) AS number FROM {what}")
        return row["number"] if row else 0

    def _by_slug(self, table: str) -> dict[str, int]:
        rows = self._db.rows(f"SELECT slug, count(*) AS number FROM {table} GROUP BY slug")
        return {row["slug"]: row["number"] for row in rows}
