"""Copies of the progress file, in `backups/` beside it.

    2026-03-07.db                     of its own accord, before the first write of that day
    2026-03-07T09-30-00.db            by `kata backup`, or before an import
    2026-03-07T09-30-00-replaced.db   what stood there before a restore, damaged perhaps

Names are local times by the system's clock. The first kind is kept for the last seven days that
had one; the others stay. A copy is checked before it takes its name: a damaged file would
otherwise push the good copies out, one a day.
"""

import fcntl
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import date, datetime
from pathlib import Path

import msgspec

from grader.errors import StoreError, UsageFault

_DAYS_KEPT = 7
_BUSY_S = 1.0
_NAME = re.compile(r"(\d{4}-\d\d-\d\d)(?:T(\d\d-\d\d-\d\d)(?:-\d+)?(-replaced)?)?")
_BESIDE = ("-wal", "-shm", "-journal")  # what SQLite keeps beside a database
# The bytes that SQLite locks on Unix as long as a database in WAL mode is open.
# Source: SQLite, os_unix.c and os.h, SHARED_FIRST and SHARED_SIZE.
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510


class Backup(msgspec.Struct, frozen=True):
    """One copy. `by` is what made it: itself, hand, or restore (then it is what was replaced)."""

    name: str
    path: Path
    at: datetime
    by: str
    bytes: int


class Restored(msgspec.Struct, frozen=True):
    """A copy that took the progress file's place; `passed_over` are newer ones that are damaged.
    `aside` is where that file is now, None if there was none."""

    backup: Backup
    aside: Backup | None
    passed_over: list[Backup]


class Unsound(Exception):
    """A database is damaged, or no progress file of ours; the text says how."""


def folder(file: Path) -> Path:
    """Where the copies of a progress file are."""
    return file.parent / "backups"


def listed(file: Path) -> list[Backup]:
    """The copies of a progress file, oldest first."""
    found = []
    with suppress(OSError):
        for path in folder(file).glob("*.db"):
            if name := _NAME.fullmatch(path.stem):
                with suppress(OSError, ValueError):
                    found.append(_backup(path, name))
    return sorted(found, key=lambda backup: (backup.at, backup.name))


def _backup(path: Path, name: re.Match[str]) -> Backup:
    day, time, replaced = name.groups()
    about = path.stat()
    at = datetime.fromtimestamp(about.st_mtime)
    if time:
        at = datetime.fromisoformat(f"{day}T{time.replace('-', ':')}")
    elif at.date().isoformat() != day:  # it was copied from elsewhere since
        at = datetime.fromisoformat(day)
    by = "restore" if replaced else "hand" if time else "itself"
    return Backup(path.stem, path, at.astimezone(), by, about.st_size)


def newest(file: Path) -> Backup | None:
    """The copy that a restore takes, if it is whole."""
    return next((b for b in reversed(listed(file)) if b.by != "restore"), None)


def way_out(file: Path) -> str:
    """What to do about a progress file that is damaged."""
    found = newest(file)
    if found is None:
        return "Move it away to begin a new one; your kata files are not touched."
    return (
        f"`kata backup --restore` brings back the state of {found.at:%Y-%m-%d %H:%M}; "
        "nothing is deleted."
    )


def keep_daily(file: Path, today: date) -> None:
    """Copy a progress file, unless that was done today already. Raises Unsound if it is
    damaged; that no copy can be made (a full disk) is no reason not to practise."""
    path = folder(file) / f"{today}.db"
    if path.exists():
        return
    with suppress(OSError, StoreError):
        _copy(file, path)
        old = [b for b in listed(file) if b.by == "itself"]
        for backup in old[:-_DAYS_KEPT]:
            backup.path.unlink(missing_ok=True)


def make(file: Path) -> Backup:
    """Copy a progress file under the present time. Raises Unsound if it is damaged,
    StoreError if the copy cannot be written."""
    path = _free(file, "")
    _copy(file, path)
    return next(backup for backup in listed(file) if backup.path == path)


def _free(file: Path, suffix: str) -> Path:
    """A name of the present time that no copy has."""
    stamp = f"{datetime.now():%Y-%m-%dT%H-%M-%S}"
    number = 1
    while True:
        more = "" if number == 1 else f"-{number}"
        path = folder(file) / f"{stamp}{more}{suffix}.db"
        if not os.path.lexists(path):
            return path
        number += 1


def _copy(file: Path, path: Path) -> None:
    """SQLite's online backup, whoever else has the file open; the copy is one plain file, and
    appears whole and checked."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.touch()  # its error says more than SQLite's
        with closing(_connect(file)) as source, closing(_connect(new, "rwc")) as copy:
            source.execute("BEGIN")
            # This waits for locks as long as the connection says; the backup would for ever.
            source.execute("SELECT 1 FROM sqlite_master").fetchall()
            copy.execute("PRAGMA synchronous = OFF")  # it is synced as a whole
            source.backup(copy)
            _check(copy, "quick_check")
        _sync(new)
        new.replace(path)
        _sync(path.parent)
    except sqlite3.Error as error:
        if error.sqlite_errorname.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise Unsound("") from error
        raise StoreError(f"No copy can be made at {path}: {error}.") from error
    except UnicodeDecodeError as error:  # SQLite names what is damaged as it finds it
        raise Unsound("") from error
    except OSError as error:
        raise StoreError(f"No copy can be made at {path}: {error.strerror}.") from error
    finally:
        _remove(new)


def _connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    uri = f"{path.as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)


def _check(copy: sqlite3.Connection, how: str) -> None:
    """Make a copy one plain file, without a log beside it, and look whether it is sound."""
    copy.execute("PRAGMA journal_mode = DELETE")
    (found,) = copy.execute(f"PRAGMA {how}(1)").fetchone()
    if found != "ok":
        raise Unsound(str(found).splitlines()[-1])


def chosen(file: Path, when: str) -> list[Backup]:
    """The copies that `when` means, the newest first: all but those put aside where it is empty,
    or else those whose names begin with it. Raises UsageFault if there are none."""
    found = listed(file)
    if not found:
        raise UsageFault(
            "There is no backup yet: the first write of a day makes one, `kata backup` another."
        )
    if when:
        wanted = [b for b in found if b.name == when] or [
            b for b in found if b.name.startswith(when) and b.by != "restore"
        ]
    else:
        wanted = [b for b in found if b.by != "restore"]
    if not wanted:
        of = f"of {when}" if when else "but what restores have put aside"
        raise UsageFault(f"There is no backup {of}. `kata backup --list` shows those there are.")
    return wanted[::-1]


def restore(file: Path, backups: list[Backup], newest_schema: int) -> Restored:
    """Put the first of these copies that is whole in the progress file's place, in one step; what
    is there now is put aside.

    Raises StoreError if none is whole, another process has the file open, or the disk refuses.
    """
    passed_over: list[Backup] = []
    new = file.with_name(f"{file.name}.{os.getpid()}.new")
    try:
        for backup in backups:
            try:
                _lay(backup, new, newest_schema)
            except Unsound:
                passed_over.append(backup)
                continue
            with _alone(file):
                aside = _put_aside(file)
                new.replace(file)
                _sync(file.parent)
            return Restored(backup, aside, passed_over)
    except OSError as error:
        raise StoreError(
            f"The copy cannot be put at {file}: {error.strerror}. Nothing was changed."
        ) from error
    finally:
        _remove(new)
    names = ", ".join(backup.name for backup in passed_over)
    raise StoreError(
        f"The backup {names} is damaged as well; nothing was changed.\n"
        "`kata backup --list` shows those there are."
    )


def _lay(backup: Backup, new: Path, newest_schema: int) -> None:
    """A checked copy of a copy. Raises Unsound, and StoreError if a newer kata wrote it."""
    _remove(new)
    shutil.copyfile(backup.path, new)
    log = Path(f"{backup.path}-wal")
    if log.exists():  # what was put aside may have one
        shutil.copyfile(log, f"{new}-wal")
    try:
        with closing(_connect(new)) as copy:
            _check(copy, "integrity_check")
            (version,) = copy.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        if error.sqlite_errorname.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
            raise OSError(0, "no space is left, or the disk refuses") from error
        raise Unsound(str(error)) from error
    except UnicodeDecodeError as error:
        raise Unsound("") from error
    if version == 0:
        raise Unsound("it has no version")
    if version > newest_schema:
        raise StoreError(
            f"The backup {backup.name} was written by a newer kata.\n"
            "Update it (pip install -U lora-kata), or name an older one."
        )
    _sync(new)


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Hold the file so that no SQLite has it open: one that had would go on writing into what was
    put aside, and remove the new file's log at its end."""
    try:
        handle = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # there is none, or nobody may write to it
        yield
        return
    try:
        end = time.monotonic() + _BUSY_S
        while True:
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_FIRST)
                break
            except OSError:
                if time.monotonic() > end:
                    raise StoreError(
                        f"Another kata has {file} open, a quiz perhaps: end it first.\n"
                        "Nothing was changed."
                    ) from None
                time.sleep(0.05)  # one that writes is done in a moment
        yield
    finally:
        os.close(handle)


def _put_aside(file: Path) -> Backup | None:
    """Give the progress file a second name among the copies, and its log with it: what is not in
    the file yet belongs to it, and must not be taken for the new one's."""
    if not file.exists():
        return None
    aside = _free(file, "-replaced")
    try:
        os.link(file, aside)
    except OSError:  # a file system without links
        shutil.copyfile(file, aside)
        _sync(aside)
    log = Path(f"{file}-wal")
    if log.exists():
        log.replace(f"{aside}-wal")
    for kind in _BESIDE:
        Path(f"{file}{kind}").unlink(missing_ok=True)
    return next(backup for backup in listed(file) if backup.path == aside)


def _remove(new: Path) -> None:
    """A copy that has no name yet."""
    with suppress(OSError):
        for path in (new, *(Path(f"{new}{kind}") for kind in _BESIDE)):
            path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with suppress(OSError):  # some file systems cannot sync a folder
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
