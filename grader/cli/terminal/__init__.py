"""Where commands write: results to stdout, notes and errors to stderr.

A reader that has hung up (`kata list | head -1`) is no error: the rest goes nowhere, and the
command keeps its exit code.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from grader.errors import KataError
from grader.views.plain import ENCODING_ERRORS, folded, wrapped

_NARROWEST, _WIDEST, _BAR = 20, 100, 20


class OutputFault(KataError):
    """The output cannot be written."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"The output cannot be written: {error.strerror}.")


def prepare() -> None:
    """Make both streams accept every character, whatever their encoding; a dumb terminal gets
    ASCII. What is closed goes nowhere: a socket or file of ours must not take its number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    encoding = "ascii" if os.environ.get("TERM") == "dumb" else None
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding=encoding, errors=ENCODING_ERRORS)


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
    return max(_NARROWEST, min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST))


def rows() -> int | None:
    """Rows for a page above the prompt or the line of keys; None where no terminal shows it."""
    return shutil.get_terminal_size().lines - 1 if live(sys.stdout) else None


def fitting(lines: Iterable[str], mark: str = "  ") -> list[str]:
    """The lines, broken between words where a terminal, or COLUMNS, is narrower than they are."""
    columns = shutil.get_terminal_size((0, 0)).columns
    if not columns:
        return list(lines)
    return [piece for line in lines for piece in folded(line, max(columns, _NARROWEST), mark)]


def say(*lines: str) -> None:
    """Lines of a result, on stdout."""
    _write(sys.stdout, "\n".join(fitting(lines)) + "\n")


def page(*lines: str) -> None:
    """A page that may be long: where it is higher than the terminal it goes to the pager, which
    is $PAGER or less. NO_PAGER, or `kata --no-pager`, keeps it here."""
    fit = fitting(lines)
    if len(fit) < shutil.get_terminal_size().lines or not _pages():
        _write(sys.stdout, "\n".join(fit) + "\n")
        return
    import click

    text, encoding = "\n".join(fit) + "\n", sys.stdout.encoding
    click.echo_via_pager(text.encode(encoding, ENCODING_ERRORS).decode(encoding))


def _pages() -> bool:
    """Whether someone can turn pages here."""
    if os.environ.get("NO_PAGER") or not live(sys.stdout):
        return False
    try:
        shlex.split(os.environ.get("PAGER", ""))
    except ValueError:  # half a quotation
        return False
    return sys.stdin is not None and sys.stdin.isatty()


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
    if sys.stderr is not None and sys.stderr.isatty():
        text = "\n".join(fitting(text.splitlines()))
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
