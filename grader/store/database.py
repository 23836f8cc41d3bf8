"""An SQLite file of ours, such as the one that holds a learner's progress: opening it, its schema,
its errors.

Timestamps are UTC text, `2026-03-01T09:30:00.000000+00:00`: they sort as text. A new schema
version is a new file in the schema's folder, which leads there from the one before; those never
change.
"""

import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, date, datetime
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from grader.errors import StoreError
from grader.store import backups

T = TypeVar("T")

_BUSY_S = 5.0


class Purpose(NamedTuple):
    """What a file is for: where its schema lies, and how messages speak of it."""

    schema: Path
    name: str
    move_away: str
    elsewhere: str  # how to have it in another folder


PROGRESS = Purpose(
    Path(__file__).with_name("schema"),
    "progress file",
    "Move it away to begin a new one; your kata files are not touched.",
    "KATA_HOME names another folder.",
)


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
    """One open file. Every sqlite3 error leaves it as a StoreError."""

    def __init__(self, path: Path, *, create: bool, purpose: Purpose = PROGRESS) -> None:
        """Open it and bring its schema up to date.

        Without `create` a missing file stands for an empty one, and nothing is written.
        Raises StoreError if it is damaged, newer than this program, or cannot be opened.
        """
        self.path, self.purpose = path, purpose
        self._named = f"The {purpose.name} {path}"
        self._copied: date | None = None  # the day whose copy is known to be made
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
        way_out = self.purpose.move_away
        if self.purpose is PROGRESS:
            way_out = backups.way_out(self.path)
        return StoreError(f"{self._named} is damaged{what}.\n{way_out}")

    def _open(self, create: bool) -> sqlite3.Connection:
        if create:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(
                    f"The data folder {self.path.parent} cannot be made: {error.strerror}.\n"
                    f"{self.purpose.elsewhere}"
                ) from error
            if not self.path.exists():
                self._make()
            self._not_empty()
            return self._connect(self.path.as_uri() + "?mode=rw")
        if not self.path.exists():
            self._copied = date.max  # there is nothing to copy
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
                f"{self._named} cannot be made: {error.strerror}.\n{self.purpose.elsewhere}"
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
        newest = len(_migrations(self.purpose))
        if self._version() == newest:
            return
        with self.transaction():
            version = self._version()  # again: another process may have been first
            if version > newest:
                raise StoreError(
                    f"{self._named} was written by a newer kata.\n"
                    f"Update it (pip install -U lora-kata). {self.purpose.elsewhere}"
                )
            if version == 0 and self.rows("SELECT 1 FROM sqlite_master"):
                raise self.damaged(": it has no version")
            self._bring_up(self._connection, version)

    def _bring_up(self, connection: sqlite3.Connection, version: int) -> None:
        migrations = _migrations(self.purpose)
        for file in migrations[version:]:
            for statement in _statements(file.read_text(encoding="utf-8")):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")

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
        """All of what is written inside, or nothing. It waits for another writer first, and the
        first of a day copies what is there.

        Inside another transaction it is a part of that one.
        """
        if self._connection.in_transaction:
            yield
            return
        with self._plain():
            self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._copy_daily()
            yield
            with self._plain():
                self._connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    def _copy_daily(self) -> None:
        today = date.today()
        if self.purpose is PROGRESS and (self._copied is None or self._copied < today):
            with self._sound():
                backups.keep_daily(self.path, today)
            self._copied = today

    def copy(self) -> backups.Backup:
        """A copy as of now, checked. Raises StoreError."""
        with self._plain(), self._sound():
            return backups.make(self.path)

    @contextmanager
    def _sound(self) -> Iterator[None]:
        try:
            yield
        except backups.Unsound as error:
            raise self.damaged(f": {error}" if str(error) else "") from error

    @contextmanager
    def _plain(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(self._message(error)) from error
        except UnicodeDecodeError as error:  # also in SQLite's own message about a damaged schema
            raise self.damaged("") from error

    def _message(self, error: sqlite3.Error) -> str:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return str(self.damaged(""))
        if str(error).startswith(("Could not decode", "no such ")):  # our schema has what we ask
            return str(self.damaged(f": {error}"))
        if name.startswith("SQLITE_FULL"):
            return f"No space is left for the {self.purpose.name} {self.path}."
        if name.startswith("SQLITE_IOERR"):
            return f"The disk refuses the {self.purpose.name} {self.path}: is it full?"
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return f"{self._named} is in use by another program. Try again."
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
            copy = ""
            if backups.newest(self.path) and os.access(self.path.parent, os.W_OK):
                copy = " `kata backup --restore` puts a copy in its place."
            return (
                f"{self._named} cannot be opened for writing.\n"
                f"Check its permissions. {self.purpose.elsewhere}{copy}"
            )
        return f"{self._named} cannot be used: {error}."

    def close(self) -> None:
        self._connection.close()


class Section:
    """One kind of things that an open database holds."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def transaction(self) -> AbstractContextManager[None]:
        """See `Database.transaction`."""
        return self._db.transaction()


def newest_schema() -> int:
    """The version of the schema that this program writes of a learner's progress."""
    return len(_migrations(PROGRESS))


def _migrations(purpose: Purpose) -> list[Path]:
    """What leads from each version to the next, the first from an empty file."""
    return sorted(purpose.schema.glob("*.sql"))


def _statements(script: str) -> Iterator[str]:
    """Its statements one by one: `executescript` would first commit what is open."""
    statement = ""
    for piece in re.split("(?<=;)", script):
        statement += piece
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():  # SQLite says what it lacks
        yield statement


def stored_time(time: datetime) -> str:
    """A time as the database holds it: UTC text that sorts."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def from_row(convert: Callable[..., T]) -> Callable[..., T]:
    """A function that reads what is stored raises StoreError where it holds what it cannot."""

    @wraps(convert)
    def converted(*row: Any) -> T:
        try:
            return convert(*row)
        except (ValueError, TypeError, IndexError, msgspec.MsgspecError) as error:
            way_out = backups.way_out(file())
            raise StoreError(
                f"The progress file {file()} is damaged: {error}.\n{way_out}"
            ) from error

    return converted


@from_row
def read_time(text: str) -> datetime:
    """A stored time. Raises StoreError if the text is none."""
    return datetime.fromisoformat(text)
