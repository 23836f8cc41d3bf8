"""What a learner has done on katas: snapshots, attempts, rounds against the clock, hints.

Times come in as arguments (aware, UTC); nothing here asks the clock.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec

from grader.exam.verdict import Level, Outcome, Verdict
from grader.store.database import Section, from_row, read_time, stored_time

_LOOKED = timedelta(days=1)  # how long a look at the solution counts as help


class Reason(StrEnum):
    """Which command kept a snapshot."""

    RUN = "run"
    START = "start"
    RESET = "reset"
    RESTORE = "restore"
    STUBS = "stubs"
    MOCK = "mock"
    NOTEBOOK = "notebook"
    WEB = "web"


class Snapshot(msgspec.Struct, frozen=True):
    """A kept version of a learner's file. `number` counts per kata, from 1."""

    id: int
    number: int
    at: datetime
    reason: Reason
    sha256: str
    source: bytes


class Attempt(msgspec.Struct, frozen=True):
    """A graded version. `snapshot` is its number, or None where there were no bytes to keep;
    `part` the one part that was run, or None, `check` the one check of it; `checks` those that
    passed and those that ran."""

    number: int
    at: datetime
    snapshot: int | None
    part: str | None
    passed: bool
    level: Level
    seed: int
    seconds: float
    checks: tuple[int, int]
    check: str | None


class Recorded(msgspec.Struct, frozen=True):
    """What storing an attempt tells: its number, the time on task since the round began (None
    without a clock), the round if this attempt is the first of it to pass, and when the kata is due
    again if it was rated."""

    number: int
    elapsed_s: float | None
    solved: "Solved | None" = None
    due: datetime | None = None


class Solved(msgspec.Struct, frozen=True):
    """A kata passed for the first time in a round against the clock, or ever without one.
    `seconds` is None without a round, or if the system's clock was set back meanwhile."""

    seconds: float | None
    hints: int
    saw_solution: bool


class Standing(msgspec.Struct, frozen=True):
    """How far one kata is. `best_s` is the shortest time from a blank stub to all passed."""

    level: Level = Level.NONE
    attempts: int = 0
    best_s: float | None = None


class Solve(msgspec.Struct, frozen=True):
    """A kata solved from the blank stub against the clock, for the first time in its round."""

    slug: str
    at: datetime
    seconds: float
    hints: int
    saw_solution: bool


class Attempts(Section):
    """The learner's work on every kata."""

    # Snapshots

    def keep(self, slug: str, source: bytes, reason: Reason, now: datetime) -> Snapshot:
        """Keep a version, unless it is the one kept last; either way returns it."""
        import hashlib  # loading OpenSSL costs as much as all of `kata list`'s own work

        digest = hashlib.sha256(source).hexdigest()
        with self._db.transaction():
            last = self._db.row(
                "SELECT * FROM snapshots WHERE slug = ? ORDER BY number DESC LIMIT 1", (slug,)
            )
            if last is not None and last["sha256"] == digest:
                return _snapshot(last)
            number = 1 if last is None else last["number"] + 1
            id = self._db.insert(
                "INSERT INTO snapshots (slug, number, source, sha256, at, reason)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (slug, number, source, digest, stored_time(now), reason),
            )
        return Snapshot(id, number, now, reason, digest, source)

    def snapshots(self, slug: str) -> list[Snapshot]:
        """All kept versions, oldest first."""
        rows = self._db.rows("SELECT * FROM snapshots WHERE slug = ? ORDER BY uid", (slug,))
        return [_snapshot(row) for row in rows]

    def before(self, slug: str, snapshot: Snapshot) -> bytes | None:
        """What was kept before a snapshot in the present round; None if nothing was."""
        row = self._db.row(
            "SELECT source FROM snapshots WHERE slug = ? AND number < ? AND at >"
            " coalesce((SELECT at FROM rounds WHERE slug = ? ORDER BY uid DESC LIMIT 1), '')"
            " ORDER BY number DESC LIMIT 1",
            (slug, snapshot.number, slug),
        )
        return None if row is None else bytes(row["source"])

    # Rounds

    def begun(self, slug: str) -> datetime | None:
        """When the present round began; None without one."""
        row = self._round(slug)
        return None if row is None else read_time(row["at"])

    def begin_round(self, slug: str, now: datetime) -> None:
        """The stub is blank: start the clock."""
        with self._db.transaction():
            self._db.insert("INSERT INTO rounds (slug, at) VALUES (?, ?)", (slug, stored_time(now)))

    def untime_round(self, slug: str, snapshot: Snapshot) -> bool:
        """Stop the clock if `snapshot`, now brought back, is older than the round."""
        with self._db.transaction():
            row = self._round(slug)
            if row is None or not row["timed"] or stored_time(snapshot.at) >= row["at"]:
                return False
            self._db.rows("UPDATE rounds SET timed = 0 WHERE id = ?", (row["id"],))
            return True

    def _round(self, slug: str) -> Any:
        return self._db.row(
            "SELECT * FROM rounds WHERE slug = ? ORDER BY uid DESC LIMIT 1", (slug,)
        )

    def _round_id(self, slug: str) -> int | None:
        row = self._round(slug)
        return None if row is None else row["id"]

    # Attempts

    def record(
        self,
        verdict: Verdict,
        snapshot: Snapshot | None,
        taken: datetime,
        *,
        in_round: bool = True,
        worked_s: float | None = None,
    ) -> Recorded:
        """Store the verdict on a file that was read at `taken`. Without `in_round` the file is not
        the one whose clock runs, as in a mock interview. worked_s: the time on task in the round;
        where it is not known, what the clock shows."""
        with self._db.transaction():
            round = self._round(verdict.slug) if in_round else None
            row = self._db.row(
                "SELECT coalesce(max(number), 0) + 1 AS next FROM attempts WHERE slug = ?",
                (verdict.slug,),
            )
            number = 1 if row is None else int(row["next"])
            self._db.insert(
                "INSERT INTO attempts (slug, number, round, snapshot, at, seconds, seed, part,"
                " passed, level, verdict, worked_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    verdict.slug,
                    number,
                    None if round is None else round["id"],
                    None if snapshot is None else snapshot.id,
                    stored_time(taken),
                    verdict.seconds,
                    verdict.seed,
                    verdict.only,
                    verdict.passed,
                    verdict.level,
                    msgspec.json.encode(verdict),
                    worked_s,
                ),
            )
            whole = in_round and verdict.passed and verdict.only is None
            if round is not None and not round["timed"]:
                return Recorded(number, None)
            elapsed = None if round is None else _elapsed(round["at"], stored_time(taken), worked_s)
            solved = self._solved(verdict.slug, round, elapsed, taken) if whole else None
            return Recorded(number, elapsed, solved)

    def _solved(
        self, slug: str, round: Any, elapsed: float | None, taken: datetime
    ) -> Solved | None:
        """The help used in a round, or without one, if just one attempt of it has passed: the
        latest. A look at the solution counts for a day, whenever the round began."""
        row = self._db.row(
            "SELECT (SELECT count(*) FROM attempts WHERE slug = :slug AND round IS :round"
            " AND passed AND part IS NULL) AS passes,"
            " (SELECT count(*) FROM hints_seen WHERE slug = :slug AND round IS :round) AS hints,"
            " EXISTS (SELECT 1 FROM solutions_seen WHERE slug = :slug"
            " AND (at > :since OR (:round IS NOT NULL AND round = :round))) AS saw",
            {
                "slug": slug,
                "round": None if round is None else round["id"],
                "since": stored_time(taken - _LOOKED),
            },
        )
        if row is None or row["passes"] != 1:
            return None
        return Solved(elapsed, row["hints"], bool(row["saw"]))

    def of(self, slug: str) -> list[Attempt]:
        """All attempts at a kata, oldest first."""
        rows = self._db.rows(
            "SELECT attempts.*, snapshots.number AS version FROM attempts"
            " LEFT JOIN snapshots ON snapshots.id = attempts.snapshot"
            " WHERE attempts.slug = ? ORDER BY attempts.uid",
            (slug,),
        )
        return [_attempt(row) for row in rows]

    def last_verdict(self, slug: str) -> Verdict | None:
        """The verdict on the newest attempt at a kata."""
        row = self._db.row(
            "SELECT verdict FROM attempts WHERE slug = ? ORDER BY uid DESC LIMIT 1",
            (slug,),
        )
        return None if row is None else _verdict(row)

    def standings(self) -> dict[str, Standing]:
        """How far every kata is that was ever attempted."""
        best: dict[str, float] = {}
        for solve in self.solves():
            best[solve.slug] = min(solve.seconds, best.get(solve.slug, solve.seconds))
        found: dict[str, Standing] = {}
        for row in self._db.rows(
            "SELECT slug, count(*) AS attempts, max(passed AND part IS NULL) AS passed,"
            " max(level = 'core' AND part IS NULL) AS core FROM attempts GROUP BY slug"
        ):
            level = Level.COMPLETE if row["passed"] else Level.CORE if row["core"] else Level.NONE
            found[row["slug"]] = Standing(level, row["attempts"], best.get(row["slug"]))
        return found

    def solves(self) -> list[Solve]:
        """Every solve, oldest first, without those before which the system's clock was set back."""
        rows = self._db.rows(
            "SELECT attempts.slug, rounds.at AS began, min(attempts.at) AS ended,"
            " attempts.worked_s, (SELECT count(*) FROM hints_seen"
            " WHERE round = rounds.id AND at <= attempts.at) AS hints,"
            " EXISTS (SELECT 1 FROM solutions_seen WHERE slug = rounds.slug"
            " AND at <= attempts.at AND (round = rounds.id"
            " OR julianday(at) > julianday(attempts.at) - :looked)) AS saw"
            " FROM attempts JOIN rounds ON rounds.id = attempts.round"
            " WHERE rounds.timed AND attempts.passed AND attempts.part IS NULL"
            " GROUP BY rounds.id ORDER BY ended",
            {"looked": _LOOKED / timedelta(days=1)},
        )
        return [
            Solve(row["slug"], read_time(row["ended"]), took, row["hints"], bool(row["saw"]))
            for row in rows
            if (took := _elapsed(row["began"], row["ended"], row["worked_s"])) is not None
        ]

    # Hints and solutions

    def next_hint(self, slug: str, rungs: int, now: datetime) -> int | None:
        """Which rung of the ladder, from 1, is seen now; None when all have been this round."""
        with self._db.transaction():
            round = self._round_id(slug)
            row = self._db.row(
                "SELECT coalesce(max(rung), 0) + 1 AS next FROM hints_seen"
                " WHERE slug = ? AND round IS ?",
                (slug, round),
            )
            rung = 1 if row is None else int(row["next"])
            if rung > rungs:
                return None
            self._db.insert(
                "INSERT INTO hints_seen (slug, round, rung, at) VALUES (?, ?, ?, ?)",
                (slug, round, rung, stored_time(now)),
            )
        return rung

    def hints_seen(self, slug: str) -> int:
        """How many rungs of the ladder were seen in the present round."""
        row = self._db.row(
            "SELECT coalesce(max(rung), 0) AS seen FROM hints_seen WHERE slug = ? AND round IS ?",
            (slug, self._round_id(slug)),
        )
        return 0 if row is None else int(row["seen"])

    def solution_seen(self, slug: str) -> datetime | None:
        """When the solution was looked at last."""
        row = self._db.row("SELECT max(at) AS at FROM solutions_seen WHERE slug = ?", (slug,))
        return None if row is None or row["at"] is None else read_time(row["at"])

    def saw_solution(self, slug: str, now: datetime) -> None:
        with self._db.transaction():
            self._db.insert(
                "INSERT INTO solutions_seen (slug, round, at) VALUES (?, ?, ?)",
                (slug, self._round_id(slug), stored_time(now)),
            )


def _elapsed(began: str, ended: str, worked_s: float | None) -> float | None:
    """The time on task between two stored times, or all seconds where it was not measured; None
    if the system's clock was set back meanwhile."""
    seconds = (read_time(ended) - read_time(began)).total_seconds()
    if seconds < 0:
        return None
    return seconds if worked_s is None else worked_s


@from_row
def _snapshot(row: Any) -> Snapshot:
    return Snapshot(
        row["id"],
        row["number"],
        read_time(row["at"]),
        Reason(row["reason"]),
        row["sha256"],
        row["source"],
    )


@from_row
def _attempt(row: Any) -> Attempt:
    verdict = _verdict(row)
    ran = [c.outcome for c in verdict.checks if c.outcome is not Outcome.SKIPPED]
    return Attempt(
        row["number"],
        read_time(row["at"]),
        row["version"],
        row["part"],
        bool(row["passed"]),
        Level(row["level"]),
        row["seed"],
        row["seconds"],
        (ran.count(Outcome.PASSED), len(ran)),
        verdict.check,
    )


@from_row
def _verdict(row: Any) -> Verdict:
    return msgspec.json.decode(row["verdict"], type=Verdict)
