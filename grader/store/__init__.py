"""All that is stored of a learner, in one SQLite file: the only place that speaks SQL.

`Store.open` is the way in; each kind of things is a section of the store. What it gives out are
structs: to define so many dataclasses takes as long as all that `kata list` reads.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

from grader.errors import StoreError
from grader.store import backups
from grader.store.attempts import Attempts
from grader.store.backups import Backup, Restored
from grader.store.database import Database, file, newest_schema
from grader.store.interviews import Interviews
from grader.store.memory import Memory
from grader.store.records import Records
from grader.store.settings import Settings
from grader.store.statistics import Tallies
from grader.store.work import Work

__all__ = ["Store", "StoreError"]


class Store:
    """One open progress file. What is written in one `transaction`, whatever the section, is
    stored together or not at all."""

    def __init__(self, path: Path, *, create: bool) -> None:
        """Without `create` a missing file stands for an empty one, and nothing is written.

        Raises StoreError if it is damaged, newer than this program, or cannot be opened.
        """
        self._database = Database(path, create=create)
        self.attempts = Attempts(self._database)
        self.memory = Memory(self._database)
        self.interviews = Interviews(self._database)
        self.settings = Settings(self._database)
        self.tallies = Tallies(self._database)
        self.work = Work(self._database)
        self.records = Records(self._database)

    @classmethod
    def open(cls, *, create: bool) -> Self:
        """The user's own."""
        return cls(file(), create=create)

    @staticmethod
    def is_there() -> bool:
        """Whether anything was ever stored."""
        return file().exists()

    @staticmethod
    def backups() -> list[Backup]:
        """The copies of the user's own progress file, oldest first."""
        return backups.listed(file())

    @staticmethod
    def restore(when: str) -> Restored:
        """Put the copy that `when` means (a day, the beginning of a name, '' for the newest) in
        the place of the user's own progress file. See `backups.restore`; raises UsageFault if
        there is no such copy."""
        return backups.restore(file(), backups.chosen(file(), when), newest_schema())

    def back_up(self) -> Backup:
        """Copy the file as it is stored now. Raises StoreError."""
        return self._database.copy()

    def transaction(self) -> AbstractContextManager[None]:
        """See `Database.transaction`."""
        return self._database.transaction()

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
