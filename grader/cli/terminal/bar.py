"""How far a long run is, on stderr: a bar with the time left on a terminal, else a line now and
then."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from grader.cli import terminal
from grader.views.plain import clock

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_LINES = 10  # in a whole run without a terminal


class Bar:
    """`with Bar(of, "graded") as bar:`, then `bar.step(...)` for each thing done."""

    def __init__(self, of: int, what: str) -> None:
        self.of, self.what, self.done = of, what, 0
        self._began = time.monotonic()
        self._rich: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if terminal.live(sys.stderr):
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            # It draws when it is told to: a thread of its own would be in the way of forks.
            self._rich = Progress(
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.description}", markup=False),
                console=Console(file=sys.stderr),
                auto_refresh=False,
                transient=True,
            )
            self._rich.start()
            self._task = self._rich.add_task("", total=self.of)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._rich is not None:
            self._rich.stop()

    def tick(self) -> None:
        """Some time has passed."""
        if self._rich is not None:
            self._rich.refresh()

    def step(self, about: str) -> None:
        """One more is done."""
        self.done += 1
        if self._rich is not None and self._task is not None:
            self._rich.update(self._task, completed=self.done, description=about, refresh=True)
            return
        if self.done * _LINES // self.of > (self.done - 1) * _LINES // self.of:
            left = (time.monotonic() - self._began) / self.done * (self.of - self.done)
            rest = f", about {clock(left)} left" if self.done < self.of else ""
            terminal.note(f"{self.done} of {self.of} {self.what}{rest}")
