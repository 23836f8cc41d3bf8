"""The one path from a file to a stored verdict: read, keep, judge, record, rate.

`kata run`, mock interviews and hunts all go it. What it stores after the judging is one
transaction, and a store that fails does not lose the verdict.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from grader import catalog
from grader.exam import submission
from grader.exam.verdict import Kind, Part, Trouble, Verdict
from grader.practice import clock, current, repetition, schedule, stubs, work
from grader.practice.workspace import Workspace, shown
from grader.store import Store, StoreError
from grader.store.attempts import Reason, Recorded, Snapshot, Solved
from grader.store.memory import Rating

if TYPE_CHECKING:
    from grader.exam.examiner import Examiner

Write = Callable[[Store], object]


class Judge(Protocol):
    """Judges what was read at a path; `name` is what the learner calls the file."""

    def __call__(self, slug: str, source: bytes | Trouble, name: str) -> Verdict: ...


class Bench:
    """A judge with one examiner for one file after another."""

    def __init__(self) -> None:
        self._examiner: Examiner | None = None

    def ready(self) -> "Examiner":
        """The examiner; the first time this imports torch and forks, before any suite is there."""
        if self._examiner is None:
            from grader.exam.examiner import Examiner
            from grader.exam.nursery import cores

            self._examiner = Examiner(lanes=min(2, cores()), differences=True).__enter__()
        return self._examiner

    def judge(
        self,
        slug: str,
        source: bytes | Trouble,
        name: str,
        *,
        seed: int | None = None,
        only: Part | None = None,
        check: str | None = None,
    ) -> Verdict:
        """`seed` draws the inputs of an earlier grading again, `only` runs one part, with `check`
        that check of it."""
        return self.ready().grade(slug, source, name, seed, only, check=check)

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        if self._examiner is not None:
            self._examiner.__exit__()


@dataclass(frozen=True)
class Graded:
    """`recorded` is None where no attempt was stored, `trouble` says why what was to be stored
    is not."""

    verdict: Verdict
    recorded: Recorded | None = None
    trouble: StoreError | None = None


def attempt(
    slug: str,
    path: Path,
    judge: Judge,
    keep: Reason,
    *,
    on_task: bool = True,
    current_in: Workspace | None = None,
) -> Graded:
    """Grade the learner's own file as it is now, whole, and store that; with `current_in`, the
    workspace it lies in, the kata is the current one from then on. See `grade`."""
    made = None if current_in is None else partial(current.make, slug=slug, space=current_in)
    return grade(
        slug,
        path,
        judge,
        name=shown(path),
        now=clock.now(),
        keep=keep,
        on_task=on_task,
        then=lambda *_: made,
    )


def grade(
    slug: str,
    path: Path,
    judge: Judge,
    *,
    name: str,
    now: datetime,
    keep: Reason | None = None,
    on_task: bool = True,
    then: Callable[[Verdict, bytes | Trouble, Snapshot | None], Write | None] | None = None,
) -> Graded:
    """Grade the file at `path` as it is `now`. Raises UsageFault if nothing stands there.

    keep: an attempt of the learner's: the source is kept before it is judged, its verdict is
    stored after, and the kata rated if it passed from the blank stub, once a round. None stores
    nothing of it. A file that stops at a breakpoint is no attempt. In a mock (Reason.MOCK) an
    unwritten file is none either, and the interview's clock, not a round's, counts.
    on_task: whether the learner is at work on it now, so that its time runs.
    then: what else there is to write, in the same transaction. The progress file is open only
    while it is written to, so that no process started in between inherits it.
    """
    source = submission.read(path)
    saved = work.saved(path, now)
    snapshot = trouble = recorded = None
    if keep is not None and not isinstance(source, Trouble):  # which leaves no bytes to keep
        try:
            with Store.open(create=True) as store:
                snapshot = store.attempts.keep(slug, source, keep, now)
        except StoreError as error:
            trouble = error
    verdict = judge(slug, source, name)
    write = then(verdict, source, snapshot) if then else None
    in_round = keep is not Reason.MOCK
    works = keep is not None and in_round and on_task
    paused = verdict.error is not None and verdict.error.kind is Kind.BREAKPOINT
    counts = keep is not None and not paused and (in_round or verdict.started)
    if trouble is None and (counts or write or works):
        try:
            with Store.open(create=True) as store, store.transaction():
                if works:
                    _work(store, slug, snapshot, saved, now)
                if counts:
                    recorded = _recorded(store, verdict, snapshot, now, in_round)
                if write:
                    write(store)
        except StoreError as error:
            recorded, trouble = None, error
    return Graded(verdict, recorded, trouble)


def _work(
    store: Store, slug: str, snapshot: Snapshot | None, saved: datetime | None, now: datetime
) -> None:
    """The file was saved, and is graded now."""
    lines = 0
    if snapshot is not None:
        before = store.attempts.before(slug, snapshot) or stubs.stub(slug).encode()
        lines = work.new_lines(before, snapshot.source)
    begun = store.attempts.begun(slug)
    work.note(store, f"kata:{slug}", now, begun, saved=saved, lines=lines)


def _recorded(
    store: Store, verdict: Verdict, snapshot: Snapshot | None, now: datetime, in_round: bool
) -> Recorded:
    begun = store.attempts.begun(verdict.slug) if in_round else None
    worked_s = None if begun is None else store.work.seconds(f"kata:{verdict.slug}", begun)
    recorded = store.attempts.record(verdict, snapshot, now, in_round=in_round, worked_s=worked_s)
    if recorded.solved is None:
        return recorded
    rating = _rating(recorded.solved, catalog.card(verdict.slug).minutes * 60)
    card = repetition.rate(store.memory, f"kata:{verdict.slug}", rating, now)
    return replace(recorded, due=card.due)


def _rating(solved: Solved, par_s: float) -> Rating:
    # Without a time the help used decides alone.
    seconds = par_s if solved.seconds is None else solved.seconds
    return schedule.solved(seconds, par_s, solved.hints, solved.saw_solution)
