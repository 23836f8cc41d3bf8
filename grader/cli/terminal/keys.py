"""Single keys, without Enter."""

import os
import re
import select
import signal
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from grader.cli.terminal import prompts

# Arrows and their like come as several characters, and mean nothing here.
_SEQUENCE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|O.|.)?", re.DOTALL)
REDRAW = "redraw"  # the terminal has come back to us, or has another size


class Keys:
    """The keys of the terminal while inside; where there is none, nothing is ever pressed."""

    def __init__(self) -> None:
        self.live = prompts.interactive()
        self._before: list[Any] = []
        self._redraw = False
        self._typed = ""

    def __enter__(self) -> "Keys":
        if self.live:
            self._before = termios.tcgetattr(0)
            tty.setcbreak(0)
            signal.signal(signal.SIGCONT, self._changed)
            signal.signal(signal.SIGWINCH, self._changed)
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            signal.signal(signal.SIGCONT, signal.SIG_DFL)
            signal.signal(signal.SIGWINCH, signal.SIG_DFL)
            termios.tcsetattr(0, termios.TCSADRAIN, self._before)

    def _changed(self, number: int, frame: FrameType | None) -> None:
        self._redraw = True
        if number == signal.SIGCONT:  # a shell gives its own settings back
            tty.setcbreak(0)

    def pressed(self, seconds: float) -> str:
        """The key pressed within so many seconds, REDRAW, or nothing."""
        if not self.live:
            time.sleep(seconds)
            return ""
        if not self._typed:
            ready, _, _ = select.select([0], [], [], seconds)
            if ready:
                self._read()
        if self._redraw:
            self._redraw = False
            return REDRAW
        key, self._typed = self._typed[:1], self._typed[1:]
        return key

    def _read(self) -> None:
        typed = os.read(0, 1024)
        if not typed:  # the terminal is gone
            self.live = False
        self._typed = _SEQUENCE.sub("", typed.decode(errors="replace"))

    @contextmanager
    def aside(self) -> Iterator[None]:
        """The terminal as it was, for a program that wants it whole."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()
