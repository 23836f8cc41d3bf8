"""What is stored around one grading. Where storing fails, the grading goes on without it."""

from datetime import datetime

from grader.exam.verdict import Trouble, Verdict
from grader.practice.database import StoreError
from grader.practice.progress import Progress, Reason, Recorded, Snapshot


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
            with Progress.open(create=True) as progress:
                self._snapshot = progress.keep(slug, source, Reason.RUN, taken)
        except StoreError as error:
            self.trouble = error

    def close(self, verdict: Verdict) -> Recorded | None:
        """Store the verdict; None if that fails or has failed before."""
        if self.trouble is not None:
            return None
        try:
            with Progress.open(create=True) as progress:
                return progress.record(verdict, self._snapshot, self._taken)
        except StoreError as error:
            self.trouble = error
            return None
