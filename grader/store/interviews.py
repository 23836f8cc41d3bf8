"""Mock interviews as they are stored: the paper once, then one event for all that happens.

What papers and events hold is the business of `grader.interview`; here they are JSON. Every write
is one transaction; times come in as arguments (aware, UTC).
"""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from grader.store.database import Section, from_row, read_time, stored_time
from grader.store.memory import Memory

_BEAT = "beat"


class Interview(msgspec.Struct, frozen=True):
    """`ended` is None while it can be gone on with."""

    number: int
    at: datetime
    plan: str
    folder: Path
    ended: datetime | None


class Given(msgspec.Struct, frozen=True):
    """An answer to a question of the deck, to be stored with the event that tells of it."""

    key: str
    text: str
    seconds: float
    draw: int
    correct: bool | None


class Interviews(Section):
    """The interviews in an open database."""

    def begin(self, plan: str, home: Path, now: datetime) -> Interview:
        """A new interview; its folder is to be `home/<number>`."""
        with self._db.transaction():
            number = self._db.insert(
                "INSERT INTO interviews (at, plan, folder) VALUES (?, ?, '')",
                (stored_time(now), plan),
            )
            folder = home / str(number)
            self._db.rows("UPDATE interviews SET folder = ? WHERE id = ?", (str(folder), number))
        return Interview(number, now, plan, folder, None)

    def all(self) -> list[Interview]:
        """Every interview, oldest first."""
        return [_interview(row) for row in self._db.rows("SELECT * FROM interviews ORDER BY id")]

    def end(self, number: int, now: datetime) -> None:
        with self._db.transaction():
            self._db.rows(
                "UPDATE interviews SET ended = ? WHERE id = ?", (stored_time(now), number)
            )

    def events(self, number: int) -> list[tuple[float, str, dict[str, Any]]]:
        """What happened, oldest first: the interview's clock in seconds, kind, fields."""
        rows = self._db.rows(
            "SELECT * FROM interview_events WHERE interview = ? ORDER BY uid", (number,)
        )
        return [_event(row) for row in rows]

    def last(self, number: int) -> datetime | None:
        """When the last event of an interview was stored; None without any."""
        row = self._db.row(
            "SELECT max(at) AS at FROM interview_events WHERE interview = ?", (number,)
        )
        return None if row is None or row["at"] is None else read_time(row["at"])

    def append(
        self,
        number: int,
        kind: str,
        data: Mapping[str, Any],
        clock_s: float,
        now: datetime,
        given: Given | None = None,
    ) -> None:
        """Store an event, and with it an answer for the deck. A beat replaces the beat before."""
        with self._db.transaction():
            if kind == _BEAT:
                self._db.rows(
                    "DELETE FROM interview_events WHERE kind = ? AND id ="
                    " (SELECT max(id) FROM interview_events WHERE interview = ?)",
                    (_BEAT, number),
                )
            self._db.insert(
                "INSERT INTO interview_events (interview, at, clock_s, kind, data)"
                " VALUES (?, ?, ?, ?, ?)",
                (number, stored_time(now), clock_s, kind, json.dumps(data)),
            )
            if given is not None:
                Memory(self._db).answer(
                    given.key,
                    given.text,
                    now,
                    seconds=given.seconds,
                    draw=given.draw,
                    correct=given.correct,
                    interview=number,
                )

    def answer(self, number: int, key: str) -> int | None:
        """The id of the last answer given to `key` in an interview."""
        row = self._db.row(
            "SELECT max(id) AS id FROM answers WHERE interview = ? AND key = ?", (number, key)
        )
        return None if row is None else row["id"]


@from_row
def _event(row: Any) -> tuple[float, str, dict[str, Any]]:
    return row["clock_s"], row["kind"], json.loads(row["data"])


@from_row
def _interview(row: Any) -> Interview:
    return Interview(
        row["id"],
        read_time(row["at"]),
        row["plan"],
        Path(row["folder"]),
        None if row["ended"] is None else read_time(row["ended"]),
    )
