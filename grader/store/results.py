"""What `kata grade` found, in one SQLite file in its output folder.

A submission's gradings are stored one by one, as they come. What a submission, the grader or the
draws no longer are is forgotten when a run takes in what is there now (`Results.take`).
"""

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from grader.errors import StoreError, UsageFault
from grader.exam.verdict import Check, Outcome, Part
from grader.store.database import Database, Purpose, read_time, stored_time

FILE = "results.sqlite"
_PURPOSE = Purpose(
    Path(__file__).with_name("schema") / "results",
    "file of results",
    "Move it away to grade anew; no submission is touched.",
    "--out names another folder.",
)
_LOCK = "results.lock"
NOT_RUN = "Not run:"  # how the examiner begins what it says of a check that it did not make
_KEYS = "id, who, slug, file, sha256, trouble, basis, seeds, refused"


class NotThere(StoreError):
    """The folder holds no results, or another process is writing them."""

    exit_code = 2


class Result(StrEnum):
    """What a submission came to. `unstable`: it passes for some draws of the inputs only;
    `refused`: it could not be judged; `open`: the run was broken off before it was."""

    PASSED = "passed"
    FAILED = "failed"
    UNSTABLE = "unstable"
    REFUSED = "refused"
    OPEN = "open"


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """One person's answer to one kata.

    file: where it lies, for people; empty if it was not handed in. slug: empty where something was
    handed in that names no kata. source: None if there is nothing to judge, `trouble` says why.
    """

    who: str
    slug: str
    file: str
    sha256: str | None = None
    source: bytes | None = None
    trouble: str | None = None


class Grading(msgspec.Struct, frozen=True, kw_only=True):
    """One verdict: the JSON object that `kata run --json` prints, as text. boxed: False if the
    submission ran without the sandbox."""

    seed: int
    at: datetime
    boxed: bool
    verdict: str

    @property
    def found(self) -> dict[str, Any]:
        """The verdict decoded."""
        found: dict[str, Any] = msgspec.json.decode(self.verdict)
        return found


class Missing(NamedTuple):
    """A grading to make: of which submission, with which seed."""

    id: int
    who: str
    slug: str
    seed: int


class _Check(msgspec.Struct):
    outcome: str
    part: str = ""
    message: str = ""
    bug: str | None = None


def counts_here(check: "_Check | Check") -> bool:
    """Whether a check is one of those that are counted: not what was skipped for want of an
    accelerator, nor what might have been, had the submission come so far."""
    not_run = check.part == Part.GPU and check.outcome == Outcome.ERROR
    return check.outcome != Outcome.SKIPPED and not (not_run and check.message.startswith(NOT_RUN))


class _Verdict(msgspec.Struct):
    passed: bool
    checks: tuple[_Check, ...] = ()
    tampered: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()


class Row(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A submission of the latest run, without its source (`Results.source`), and what it came to.

    seeds: those it is to be graded with; gradings: those made so far, in their order.
    """

    id: int
    submission: Submission
    seeds: tuple[int, ...]
    gradings: tuple[Grading, ...]
    refused: str | None

    @cached_property
    def outcome(self) -> Result:
        if self.submission.trouble is not None:
            return Result.REFUSED if self.submission.file else Result.FAILED
        if self.refused is not None:
            return Result.REFUSED
        if len(self.gradings) < len(self.seeds):
            return Result.OPEN
        passed = {verdict.passed for verdict in self._verdicts}
        if len(passed) > 1:
            return Result.UNSTABLE
        return Result.PASSED if passed == {True} else Result.FAILED

    @cached_property
    def _verdicts(self) -> list[_Verdict]:
        return [msgspec.json.decode(grading.verdict, type=_Verdict) for grading in self.gradings]

    @property
    def trouble(self) -> str | None:
        """Why it was not judged, if it was not."""
        return self.submission.trouble or self.refused

    @property
    def boxed(self) -> bool | None:
        """Whether it ran in the sandbox only; None if it did not run."""
        return all(grading.boxed for grading in self.gradings) if self.gradings else None

    @cached_property
    def checks(self) -> tuple[int, int]:
        """How many checks have passed, and of how many that were not skipped, in the worst of
        its gradings; (0, 0) without one."""
        counts = []
        for verdict in self._verdicts:
            ran = [check for check in verdict.checks if counts_here(check)]
            counts.append((sum(c.outcome == Outcome.PASSED for c in ran), len(ran)))
        return min(counts, default=(0, 0))

    @cached_property
    def bugs(self) -> tuple[str, ...]:
        """The ids of the named mistakes, each once, in the order they were found."""
        checks = (check for verdict in self._verdicts for check in verdict.checks)
        return tuple(dict.fromkeys(check.bug for check in checks if check.bug))

    @cached_property
    def tampered(self) -> tuple[str, ...]:
        """What it replaced in torch or Python, each once: it fails for that."""
        return tuple(dict.fromkeys(name for v in self._verdicts for name in v.tampered))

    @cached_property
    def marks(self) -> tuple[str, ...]:
        """What its source reaches for that a person should look at, each once: no verdict."""
        return tuple(dict.fromkeys(mark for v in self._verdicts for mark in v.marks))


class Results:
    """The results in one output folder.

    with Results.open(folder) as results:
        for row in results.rows(): ...
    """

    def __init__(self, database: Database, lock: int | None = None) -> None:
        self._db, self._lock = database, lock

    @classmethod
    def open(cls, folder: Path) -> Self:
        """To read them. Raises NotThere if there are none."""
        folder = folder.absolute()
        if not (folder / FILE).exists():
            raise NotThere(f"{folder} holds no results of `kata grade`.")
        return cls(Database(folder / FILE, create=False, purpose=_PURPOSE))

    @classmethod
    def writing(cls, folder: Path) -> Self:
        """To grade into them, which one process does at a time; they may be there already.

        Raises NotThere if another process does, UsageFault if the folder cannot be used.
        """
        folder = folder.absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # A lock of this process alone, gone with it however it ends, and not with a fork.
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            text = f"The output folder {folder} cannot be used: {error.strerror}."
            raise UsageFault(f"{text}\n{_PURPOSE.elsewhere}") from error
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise NotThere(
                f"Another `kata grade` writes to {folder}. Wait for it, or name another --out."
            ) from error
        try:
            return cls(Database(folder / FILE, create=True, purpose=_PURPOSE), lock)
        except BaseException:
            os.close(lock)
            raise

    def get(self, key: str, kind: type[Any]) -> Any:
        """What is stored under a key, or None. Raises StoreError if that is none of its kind."""
        row = self._db.row("SELECT value FROM settings WHERE key = ?", [key])
        try:
            return None if row is None else msgspec.json.decode(row["value"], type=kind)
        except msgspec.MsgspecError as error:
            raise self._db.damaged(f": {error}") from error

    def set(self, key: str, value: Any) -> None:
        text = msgspec.json.encode(value).decode()
        with self.transaction():
            self._db.rows("INSERT OR REPLACE INTO settings VALUES (?, ?)", [key, text])

    def take(
        self,
        found: Iterable[tuple[Submission, str, Sequence[int]]],
        *,
        boxed: bool,
        force: bool,
    ) -> int:
        """From now on these submissions are those of the run, in this order, each with its basis
        and the seeds to grade it with.

        Gradings stay where source, basis and seed are the same, unless `force`; with `boxed` only
        those made so. What was refused is open again. All of it is one transaction.
        Returns how many of those judged in the run before are no more among them.
        """
        with self.transaction():
            before = self._db.rows(
                "SELECT id FROM submissions WHERE number IS NOT NULL AND sha256 IS NOT NULL"
            )
            there = [row["id"] for row in before]
            self._db.rows("UPDATE submissions SET number = NULL, refused = NULL")
            if boxed or force:
                self._db.rows("DELETE FROM gradings WHERE ? OR NOT boxed", [force])
            for number, (one, basis, seeds) in enumerate(found):
                self._take(number, one, basis, seeds)
            (left,) = self._db.rows(
                "SELECT count(*) AS n FROM submissions "
                "WHERE number IS NULL AND id IN (SELECT value FROM json_each(?))",
                [msgspec.json.encode(there).decode()],
            )
        return int(left["n"])

    def _take(self, number: int, one: Submission, basis: str, seeds: Sequence[int]) -> None:
        wanted = msgspec.json.encode(seeds).decode()
        old = self._db.row(
            "SELECT id, sha256, basis FROM submissions WHERE who = ? AND slug = ?",
            [one.who, one.slug],
        )
        values = [number, one.file, one.sha256, one.source, one.trouble, basis, wanted]
        if old is None:
            self._db.rows(
                "INSERT INTO submissions (number, file, sha256, source, trouble, basis, seeds, "
                "who, slug) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [*values, one.who, one.slug],
            )
            return
        same = (old["sha256"], old["basis"]) == (one.sha256, basis)
        kept = wanted if same else "[]"
        self._db.rows(
            "DELETE FROM gradings WHERE submission = ? "
            "AND seed NOT IN (SELECT value FROM json_each(?))",
            [old["id"], kept],
        )
        self._db.rows(
            "UPDATE submissions SET number = ?, file = ?, sha256 = ?, source = ?, trouble = ?, "
            "basis = ?, seeds = ? WHERE id = ?",
            [*values, old["id"]],
        )

    def record(self, id: int, grading: Grading) -> None:
        """Store one grading of a submission."""
        with self.transaction():
            self._db.rows(
                "INSERT INTO gradings VALUES (?, ?, ?, ?, ?)",
                [id, grading.seed, stored_time(grading.at), grading.boxed, grading.verdict],
            )

    def refuse(self, id: int, why: str) -> None:
        """Store that a submission could not be judged."""
        with self.transaction():
            self._db.rows("UPDATE submissions SET refused = ? WHERE id = ?", [why, id])

    def rows(self) -> Iterator[Row]:
        """The submissions of the latest run, in its order."""
        for row in self._db.rows(
            f"SELECT {_KEYS} FROM submissions WHERE number IS NOT NULL ORDER BY number"
        ):
            seeds = msgspec.json.decode(row["seeds"], type=tuple[int, ...])
            made = self._gradings(row["id"])
            yield Row(
                id=row["id"],
                submission=Submission(
                    who=row["who"],
                    slug=row["slug"],
                    file=row["file"],
                    sha256=row["sha256"],
                    trouble=row["trouble"],
                ),
                seeds=seeds,
                gradings=tuple(made[seed] for seed in seeds if seed in made),
                refused=row["refused"],
            )

    def people(self) -> list[str]:
        """Whose submissions those of the latest run are, each once, in its order."""
        found = self._db.rows(
            "SELECT who FROM submissions WHERE number IS NOT NULL GROUP BY who ORDER BY min(number)"
        )
        return [row["who"] for row in found]

    def _gradings(self, id: int) -> dict[int, Grading]:
        return {
            row["seed"]: Grading(
                seed=row["seed"],
                at=read_time(row["at"]),
                boxed=bool(row["boxed"]),
                verdict=row["verdict"],
            )
            for row in self._db.rows("SELECT * FROM gradings WHERE submission = ?", [id])
        }

    def missing(self) -> list[Missing]:
        """The gradings that the latest run has still to make, in its order."""
        rows = self._db.rows(
            "SELECT s.id, s.who, s.slug, wanted.value AS seed "
            "FROM submissions AS s, json_each(s.seeds) AS wanted "
            "WHERE s.number IS NOT NULL AND s.trouble IS NULL AND s.refused IS NULL "
            "AND NOT EXISTS (SELECT * FROM gradings AS g "
            "WHERE g.submission = s.id AND g.seed = wanted.value) "
            "ORDER BY s.number, wanted.key"
        )
        return [Missing(row["id"], row["who"], row["slug"], row["seed"]) for row in rows]

    def source(self, id: int) -> bytes | None:
        """The source of a submission, as it was graded."""
        row = self._db.row("SELECT source FROM submissions WHERE id = ?", [id])
        return None if row is None else row["source"]

    def transaction(self) -> AbstractContextManager[None]:
        """See `Database.transaction`."""
        return self._db.transaction()

    def close(self) -> None:
        self._db.close()
        if self._lock is not None:
            with suppress(OSError):
                os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
