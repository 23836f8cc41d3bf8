"""Where commands write: results to stdout, notes and errors to stderr.

A reader that has hung up (`kata list | head -1`) is no error: the rest goes nowhere, and the
command keeps its exit code.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from grader.errors import KataError
from grader.views.plain import ENCODING_ERRORS, wrapped

_WIDEST, _BAR = 100, 20


class OutputFault(KataError):
    """The output cannot be written."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"The output cannot be written: {error.strerror}.")


def prepare() -> None:
    """Make both streams accept every character, whatever their encoding. What is closed goes
    nowhere: a socket or file of ours must not take its number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ENCODING_ERRORS)


def colour() -> bool:
    """Whether stdout is a terminal that wants colours."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stdout is not None and sys.stdout.isatty()


def live(stream: TextIO | None) -> bool:
    """Whether someone looks at this stream on a terminal that can move its cursor."""
    return stream is not None and stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def width() -> int:
    """Columns to write in: the terminal's or COLUMNS, at most 100 so that lines read well."""
    return max(40, min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST))


def say(*lines: str) -> None:
    """Lines of a result, on stdout."""
    _write(sys.stdout, "\n".join(lines) + "\n")


def write(text: str) -> None:
    """Text as it is, on stdout."""
    _write(sys.stdout, text)


def tell(*texts: str) -> None:
    """Sentences of a result, each wrapped to the width."""
    say(*(line for text in texts for line in wrapped(text, width())))


@contextmanager
def progress(done: int, of: int, doing: str) -> Iterator[None]:
    """A bar on the last line while something is done, where someone looks on."""
    looked_at = live(sys.stderr)
    if looked_at:
        full = _BAR * done // of
        bar = "█" * full + "░" * (_BAR - full)
        _write(sys.stderr, f"{bar} {done + 1} of {of}: {doing}")
    try:
        yield
    finally:
        if looked_at:
            _write(sys.stderr, "\r\x1b[K")


def say_json(value: Any) -> None:
    """The one JSON object of `--json`, as UTF-8; `value` may be encoded already."""
    if not isinstance(value, bytes):
        import msgspec

        value = msgspec.json.encode(value)
    _write(sys.stdout, value + b"\n")


def note(text: str) -> None:
    """Something beside the result, on stderr."""
    _write(sys.stderr, text + "\n")


def _write(stream: TextIO | None, text: str | bytes) -> None:
    if stream is None:  # closed before we began
        return
    try:
        if isinstance(text, bytes):
            stream.flush()
            stream.buffer.write(text)
        else:
            stream.write(text)
        stream.flush()
    except BrokenPipeError:
        hang_up(stream)
    except OSError as error:
        raise OutputFault(error) from error


def hang_up(stream: TextIO) -> None:
    """Send what is still to come, and what waits in the buffer, nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
