"""All that is stored of a learner, in one SQLite file: the only place that speaks SQL.

`Store.open` is the way in; each kind of things is a section of the store. What it gives out are
structs: to define so many dataclasses takes as long as all that `kata list` reads.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

from grader.store.attempts import Attempts
from grader.store.database import Database, StoreError, file
from grader.store.interviews import Interviews
from grader.store.memory import Memory
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

    @classmethod
    def open(cls, *, create: bool) -> Self:
        """The user's own."""
        return cls(file(), create=create)

    def transaction(self) -> AbstractContextManager[None]:
        """See `Database.transaction`."""
        return self._database.transaction()

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
