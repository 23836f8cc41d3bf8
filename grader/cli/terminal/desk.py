"""The learner's desk in a mock interview: a live clock line, typed lines, saves of a file.

On a terminal the last row is kept for the clock: everything else scrolls above it (DECSTBM), and
it is drawn anew several times a second, between keystrokes. Without a terminal the clock is a
line of its own before each line that is read.
"""

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from grader.cli import terminal
from grader.cli.terminal import editor, prompts
from grader.cli.terminal.saves import Saves
from grader.errors import UsageFault
from grader.views import interview as pages
from grader.views.plain import paint, wrapped

_TICK_S = 0.25
_LOWEST = 8  # rows a terminal needs for a clock line


@dataclass(frozen=True)
class Saved:
    """The file that is worked on has changed."""


class Desk:
    """Where the learner sits. While it waits it ticks often and shows the status."""

    def __init__(self) -> None:
        self.width, self.colour = terminal.width(), terminal.colour()
        self._live = prompts.interactive() and terminal.live(sys.stdout)
        self._size = (0, 0)  # columns and rows that the clock line was laid out for
        self._pending = b""
        self._saves: dict[Path, Saves] = {}
        self._status: Callable[[], pages.Status] | None = None
        self._tick: Callable[[], int | None] = lambda: None
        self._warned: int | None = None  # minutes left, to be said when there is a place for it

    # The clock line

    def attach(self, status: Callable[[], pages.Status], tick: Callable[[], int | None]) -> None:
        """Show this status; `tick` notes that time passes and gives the warning that is due."""
        self._status, self._tick = status, tick

    def detach(self) -> None:
        self._status = None
        if self._size != (0, 0):
            _, rows = self._size
            self._write(f"\x1b7\x1b[r\x1b[{rows};1H\x1b[2K\x1b8")
            self._size = (0, 0)

    def _draw(self) -> None:
        """Tick, and draw the clock line where there is one."""
        mark = self._tick()
        if mark is not None:
            self._warned = mark
            if self._live:
                self._write("\a")
        if not self._live or self._status is None:
            return
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
        if rows < _LOWEST:
            return
        lay_out = ""
        if (columns, rows) != self._size:
            # A line feed and back, so that the cursor is not on the row that is taken away.
            lay_out = f"\n\x1b[A\x1b7\x1b[1;{rows - 1}r\x1b8"
            self._size = (columns, rows)
            self.width = terminal.width()
        now = self._status()
        text = pages.status(now, columns - 1).ljust(columns - 1)
        urgent = now.left_s < 60 and not now.paused
        if self.colour:
            text = f"\x1b[7m{paint(text, 'bold red', True)}" if urgent else f"\x1b[7m{text}\x1b[0m"
        self._write(f"{lay_out}\x1b7\x1b[{rows};1H\x1b[2K{text}\x1b[0m\x1b8")

    def _write(self, text: str) -> None:
        """Past Python's buffers: a signal handler may be in the middle of something."""
        with suppress(OSError):
            os.write(sys.stdout.fileno(), text.encode(sys.stdout.encoding, "replace"))

    @contextmanager
    def ticking(self) -> Iterator[None]:
        """Draw while something else waits or works in this thread: readline, a grading.

        Ctrl-C is raised by the tick that follows it, and each tick sets the next: `input` looks for
        signals once more after a handler has raised, and must find none. A tick that comes in the
        very moment before `input` begins to wait is not looked at until another signal wakes it.
        """
        self._draw()
        interrupted = over = False

        def interrupt(number: int, frame: FrameType | None) -> None:
            nonlocal interrupted
            interrupted = True

        def tick(number: int, frame: FrameType | None) -> None:
            with suppress(OSError):  # a terminal that is gone is no fault of what is at work
                self._draw()
            if interrupted:
                signal.setitimer(signal.ITIMER_REAL, 0)
                raise KeyboardInterrupt
            if not over:
                signal.setitimer(signal.ITIMER_REAL, _TICK_S, 4 * _TICK_S)

        alarm = signal.signal(signal.SIGALRM, tick)
        ctrl_c = signal.signal(signal.SIGINT, interrupt)
        signal.setitimer(signal.ITIMER_REAL, _TICK_S, 4 * _TICK_S)
        try:
            yield
        finally:
            over = True
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, alarm)
            signal.signal(signal.SIGINT, ctrl_c)
        if interrupted:
            raise KeyboardInterrupt

    def _say_warning(self) -> None:
        mark, self._warned = self._warned, None
        if mark is None or self._status is None:
            return
        left_s = self._status().left_s
        if left_s <= 60 * mark:  # by now another round may have begun
            text = pages.warning(left_s)
            self.say(*(paint(t, "bold yellow", self.colour) for t in wrapped(text, self.width)))

    # Showing and reading

    def say(self, *lines: str) -> None:
        terminal.say(*lines)

    def line(self, prompt: str) -> str:
        """A typed line. Raises prompts.Left, or UsageFault where no input is left."""
        self._draw()
        self._say_warning()
        if not prompts.interactive():
            self._say_status()
            return str(self._piped(None))
        with self.ticking():
            return prompts.line(prompt)

    def watch(self, path: Path) -> None:
        """From now on the file is looked at: a change is a save."""
        self._saves[path] = Saves(path)
        self._draw()

    def line_or_save(self, prompt: str, path: Path) -> str | Saved:
        """A typed line, or the news that the file watched was saved."""
        self._draw()
        self._say_warning()
        if not prompts.interactive():
            self._say_status()
            return self._piped(path)
        self._write(prompt)
        while True:
            if self._typed():
                return self._taken()
            if self._saves[path].came():
                self._write("\r\x1b[K")
                return Saved()
            self._draw()
            if self._warned is not None:
                self._write("\r\x1b[K")
                self._say_warning()
                self._write(prompt)

    def _say_status(self) -> None:
        if self._status is not None:
            self.say(f"[{pages.status(self._status(), self.width - 2)}]")

    def _typed(self) -> bool:
        """Wait a moment for a line; whether there is one, or the end of the input."""
        if b"\n" in self._pending:
            return True
        ready, _, _ = select.select([0], [], [], _TICK_S)
        if not ready:
            return False
        piece = os.read(0, 4096)
        self._pending += piece
        if piece:
            return b"\n" in self._pending
        return True

    def _taken(self) -> str:
        """The line that is there. Raises Left or UsageFault at the end of the input."""
        line, end, rest = self._pending.partition(b"\n")
        self._pending = rest
        if end or line:
            return line.decode(errors="replace").strip()
        if prompts.interactive():
            self.say("")
            raise prompts.Left
        raise UsageFault(
            "There is no input left to go on with, and this is no terminal.\n"
            "The interview is paused: `kata mock --resume` goes on."
        )

    def _piped(self, path: Path | None) -> str | Saved:
        while True:
            if self._typed():
                return self._taken()
            if path is not None and self._saves[path].came():
                return Saved()
            self._draw()
            self._say_warning()

    def edit(self, path: Path) -> None:
        """The learner's own editor, until it is closed; time goes on."""
        status = self._status
        self.detach()
        try:
            editor.edit(path, self._tick)
        except UsageFault as fault:
            self.say(*wrapped(str(fault), self.width))
        finally:
            self._status = status
