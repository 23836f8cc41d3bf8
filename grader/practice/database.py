"""The SQLite file that holds a learner's progress: opening it, its schema, its errors.

Timestamps are UTC text, `2026-03-01T09:30:00.000000+00:00`: they sort as text. A new schema
version is a new entry at the end of `_MIGRATIONS`; the ones before it never change.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from grader.errors import KataError

T = TypeVar("T")

_BUSY_S = 5.0

_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # A version of the learner's file. The same bytes twice in a row are one snapshot.
        """CREATE TABLE snapshots (
            id INTEGER PRIMARY KEY,
            slug TEXT NOT NULL,
            number INTEGER NOT NULL,
            source BLOB NOT NULL,
            sha256 TEXT NOT NULL,
            at TEXT NOT NULL,
            reason TEXT NOT NULL,
            UNIQUE (slug, number))""",
        # A round begins with a blank stub (`start`, `reset`) and ends with the next round.
        # `timed` is cleared when work from before the round is brought back into it.
        """CREATE TABLE rounds (
            id INTEGER PRIMARY KEY,
            slug TEXT NOT NULL,
            at TEXT NOT NULL,
            timed INTEGER NOT NULL DEFAULT 1)""",
        # `seconds` is what grading took; `part` is NULL when the whole kata was graded.
        """CREATE TABLE attempts (
            id INTEGER PRIMARY KEY,
            slug TEXT NOT NULL,
            number INTEGER NOT NULL,
            round INTEGER REFERENCES rounds (id),
            snapshot INTEGER REFERENCES snapshots (id),
            at TEXT NOT NULL,
            seconds REAL NOT NULL,
            seed INTEGER NOT NULL,
            part TEXT,
            passed INTEGER NOT NULL,
            level TEXT NOT NULL,
            verdict BLOB NOT NULL,
            UNIQUE (slug, number))""",
        """CREATE TABLE hints_seen (
            id INTEGER PRIMARY KEY,
            slug TEXT NOT NULL,
            round INTEGER REFERENCES rounds (id),
            rung INTEGER NOT NULL,
            at TEXT NOT NULL)""",
        """CREATE TABLE solutions_seen (
            id INTEGER PRIMARY KEY,
            slug TEXT NOT NULL,
            round INTEGER REFERENCES rounds (id),
            at TEXT NOT NULL)""",
        "CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
        "CREATE INDEX rounds_by_slug ON rounds (slug)",
        "CREATE INDEX hints_by_slug ON hints_seen (slug)",
    ),
    (
        # What is remembered of one question, kata or bug hunt: `memory` is an FSRS card.
        "CREATE TABLE cards (key TEXT PRIMARY KEY, memory TEXT NOT NULL, due TEXT NOT NULL)",
        # One sitting of `kata quiz`; `options` says which questions it asks.
        """CREATE TABLE quizzes (
            id INTEGER PRIMARY KEY,
            at TEXT NOT NULL,
            options TEXT NOT NULL,
            ended TEXT)""",
        # A mock interview: `plan` is its paper, all that happens in it is an event.
        """CREATE TABLE interviews (
            id INTEGER PRIMARY KEY,
            at TEXT NOT NULL,
            plan TEXT NOT NULL,
            folder TEXT NOT NULL,
            ended TEXT)""",
        # `clock_s` is the interview's own clock, which pauses stop.
        """CREATE TABLE interview_events (
            id INTEGER PRIMARY KEY,
            interview INTEGER NOT NULL REFERENCES interviews (id),
            at TEXT NOT NULL,
            clock_s REAL NOT NULL,
            kind TEXT NOT NULL,
            data TEXT NOT NULL)""",
        # An answer is stored as it is given, before anything is revealed: line by line, with
        # `seconds` NULL until its end. `draw` is the seed of its numbers, `correct` NULL where
        # nothing was computed, `points` those ticked (JSON).
        """CREATE TABLE answers (
            id INTEGER PRIMARY KEY,
            key TEXT NOT NULL,
            quiz INTEGER REFERENCES quizzes (id),
            interview INTEGER REFERENCES interviews (id),
            at TEXT NOT NULL,
            seconds REAL,
            draw INTEGER NOT NULL,
            text TEXT NOT NULL,
            correct INTEGER,
            points TEXT)""",
        # A rating and the memory before it (NULL: the first), so that it can be taken back.
        """CREATE TABLE reviews (
            id INTEGER PRIMARY KEY,
            key TEXT NOT NULL,
            answer INTEGER REFERENCES answers (id),
            at TEXT NOT NULL,
            rating INTEGER NOT NULL,
            before TEXT,
            undone INTEGER NOT NULL DEFAULT 0)""",
        "CREATE INDEX answers_by_key ON answers (key)",
        "CREATE INDEX events_by_interview ON interview_events (interview)",
    ),
)


_MOVE_AWAY = "Move it away to begin a new one; your kata files are not touched."


class StoreError(KataError):
    """The progress file cannot be used; the message says why and what to do."""


def file() -> Path:
    """Where progress is kept: in KATA_HOME, or else where this system keeps a user's data."""
    if home := os.environ.get("KATA_HOME"):
        try:
            return Path(home).expanduser().absolute() / "progress.db"
        except (OSError, RuntimeError) as error:  # no current folder, no such user
            raise StoreError(f"KATA_HOME={home} names no folder: {error}.") from error
    import platformdirs  # costs as much as a quarter of `kata list`

    return platformdirs.user_data_path("lora-kata") / "progress.db"


class Database:
    """One open progress file. Every sqlite3 error leaves it as a StoreError."""

    def __init__(self, path: Path, *, create: bool) -> None:
        """Open it and bring its schema up to date.

        Without `create` a missing file stands for an empty one, and nothing is written.
        Raises StoreError if it is damaged, newer than this program, or cannot be opened.
        """
        self.path = path
        with self._plain():
            self._connection = self._open(create)
            try:
                self._migrate()
                if create:  # now that the file is known to be ours
                    self._connection.execute("PRAGMA journal_mode = WAL")
            except BaseException:
                self._connection.close()
                raise

    def damaged(self, what: str) -> "StoreError":
        """The error that says so of this file."""
        return StoreError(f"The progress file {self.path} is damaged{what}.\n{_MOVE_AWAY}")

    def _open(self, create: bool) -> sqlite3.Connection:
        if create:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(
                    f"The data folder {self.path.parent} cannot be made: {error.strerror}.\n"
                    "KATA_HOME names another folder."
                ) from error
            if not self.path.exists():
                self._make()
            self._not_empty()
            return self._connect(self.path.as_uri() + "?mode=rw")
        if not self.path.exists():
            return self._connect(":memory:")
        self._not_empty()
        connection = self._connect(self.path.as_uri() + "?mode=rw")
        try:
            connection.execute("PRAGMA user_version")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname.startswith(("SQLITE_IOERR", "SQLITE_FULL")):
                # On a full disk WAL has no place for its index; alone, it needs none.
                connection.close()
                connection = self._connect(self.path.as_uri() + "?mode=rw")
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
                connection.execute("PRAGMA user_version")
                return connection
            # In a folder that cannot be written to, WAL has no place for its index. If nothing
            # waits in a log either, the file alone is all there is.
            if Path(f"{self.path}-wal").exists() or os.access(self.path.parent, os.W_OK):
                raise
            connection.close()
            connection = self._connect(self.path.as_uri() + "?immutable=1")
        return connection

    def _make(self) -> None:
        """A new file appears with its schema in it, or not at all: one without is damaged."""
        new = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        try:
            connection = self._connect(new.as_uri())
            try:
                connection.execute("BEGIN")
                self._bring_up(connection, 0)
                connection.execute("COMMIT")
            finally:
                connection.close()
            try:
                os.link(new, self.path)
            except FileExistsError:  # another process was first
                pass
            except OSError:  # a file system without links
                new.replace(self.path)
        except OSError as error:
            raise StoreError(
                f"The progress file {self.path} cannot be made: {error.strerror}.\n"
                "KATA_HOME names another folder."
            ) from error
        finally:
            for left in (new, Path(f"{new}-journal")):
                left.unlink(missing_ok=True)

    def _not_empty(self) -> None:
        if self.path.is_file() and self.path.stat().st_size == 0:
            raise self.damaged(": it is empty")

    def _connect(self, uri: str) -> sqlite3.Connection:
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)
        connection.row_factory = sqlite3.Row
        return connection

    def _migrate(self) -> None:
        if self._version() == len(_MIGRATIONS):
            return
        with self.transaction():
            version = self._version()  # again: another process may have been first
            if version > len(_MIGRATIONS):
                raise StoreError(
                    f"The progress file {self.path} was written by a newer kata.\n"
                    "Update it (pip install -U lora-kata), or set KATA_HOME to another folder."
                )
            if version == 0 and self.rows("SELECT 1 FROM sqlite_master"):
                raise self.damaged(": it has no version")
            self._bring_up(self._connection, version)

    @staticmethod
    def _bring_up(connection: sqlite3.Connection, version: int) -> None:
        for statements in _MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def rows(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query, or of a statement inside a transaction."""
        with self._plain():
            return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> sqlite3.Row | None:
        """The first row, or None."""
        found = self.rows(sql, values)
        return found[0] if found else None

    def insert(self, sql: str, values: Sequence[Any]) -> int:
        """Run an INSERT inside a transaction; returns the new row's id."""
        with self._plain():
            return int(self._connection.execute(sql, values).lastrowid or 0)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of what is written inside, or nothing. It waits for another writer first.

        Inside another transaction it is a part of that one.
        """
        if self._connection.in_transaction:
            yield
            return
        with self._plain():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _plain(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(self._message(error)) from error

    def _message(self, error: sqlite3.Error) -> str:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return str(self.damaged(""))
        if name.startswith("SQLITE_FULL"):
            return f"No space is left for the progress file {self.path}."
        if name.startswith("SQLITE_IOERR"):
            return f"The disk refuses the progress file {self.path}: is it full?"
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return f"The progress file {self.path} is in use by another program. Try again."
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
            return (
                f"The progress file {self.path} cannot be opened for writing.\n"
                "Check its permissions, or name another folder with KATA_HOME."
            )
        return f"The progress file {self.path} cannot be used: {error}."

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> "Database":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Store:
    """One kind of things that an open database holds."""

    def __init__(self, database: Database) -> None:
        self._db = database

    @classmethod
    def open(cls, *, create: bool) -> Self:
        """The user's own. Without `create` nothing is written where there is none."""
        return cls(Database(file(), create=create))

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def stored_time(time: datetime) -> str:
    """A time as the database holds it: UTC text that sorts."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def from_row(convert: Callable[..., T]) -> Callable[..., T]:
    """A function that reads what is stored raises StoreError where it holds what it cannot."""

    @wraps(convert)
    def converted(row: Any) -> T:
        try:
            return convert(row)
        except (ValueError, TypeError, msgspec.MsgspecError) as error:
            raise StoreError(
                f"The progress file {file()} is damaged: {error}.\n{_MOVE_AWAY}"
            ) from error

    return converted


@from_row
def read_time(text: str) -> datetime:
    """A stored time. Raises StoreError if the text is none."""
    return datetime.fromisoformat(text)
