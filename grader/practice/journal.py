"""What is stored around one grading. Where storing fails, the grading goes on without it."""

from datetime import datetime

from msgspec.structs import replace

from grader import catalog
from grader.exam.verdict import Trouble, Verdict
from grader.practice import repetition, schedule
from grader.store import Store, StoreError
from grader.store.attempts import Reason, Recorded, Snapshot, Solved
from grader.store.memory import Rating


class Journal:
    """One attempt at a kata: its source is kept before it is judged, its verdict after.

    `trouble` says why it could not be stored, if so. The file is open only while it is written
    to, so that no process started in between inherits it.
    """

    def __init__(self, slug: str, source: bytes | Trouble, taken: datetime) -> None:
        """`taken` is when `source` was read; a Trouble leaves no bytes to keep."""
        self.trouble: StoreError | None = None
        self._taken = taken
        self._snapshot: Snapshot | None = None
        if isinstance(source, Trouble):
            return
        try:
            with Store.open(create=True) as store:
                self._snapshot = store.attempts.keep(slug, source, Reason.RUN, taken)
        except StoreError as error:
            self.trouble = error

    def close(self, verdict: Verdict) -> Recorded | None:
        """Store the verdict, and rate the kata if it passed from the blank stub, once a round.
        None if that fails or has failed before."""
        if self.trouble is not None:
            return None
        try:
            with Store.open(create=True) as store, store.transaction():
                recorded = store.attempts.record(verdict, self._snapshot, self._taken)
                if recorded.solved is None:
                    return recorded
                rating = _rating(recorded.solved, catalog.card(verdict.slug).minutes * 60)
                key = f"kata:{verdict.slug}"
                card = repetition.rate(store.memory, key, rating, self._taken)
            return replace(recorded, due=card.due)
        except StoreError as error:
            self.trouble = error
            return None


def _rating(solved: Solved, par_s: float) -> Rating:
    # Without a time the help used decides alone.
    seconds = par_s if solved.seconds is None else solved.seconds
    return schedule.solved(seconds, par_s, solved.hints, solved.saw_solution)
