"""Asking: one line or several, from a terminal or from lines that were piped in.

Without a terminal nothing is prompted; a question that finds no more input is an error (exit 2).
On a terminal Ctrl-D means "enough": `Left` is raised, and whoever asks ends cleanly.
"""

import sys
from collections.abc import Callable, Sequence

from grader.cli import terminal
from grader.errors import UsageFault
from grader.recall import points as rubric


class Left(Exception):
    """The learner has had enough for now."""


def interactive() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def line(prompt: str) -> str:
    """One line, stripped. Raises Left at the end of a terminal's input, UsageFault elsewhere."""
    return _read(prompt).strip()


def lines(prompt: str, more: str = "… ", each: Callable[[str], None] | None = None) -> str:
    """Several lines, up to an empty one. `each` gets all there is so far after every line, before
    the next is read."""
    kept: list[str] = []
    while (text := _read(more if kept else prompt)).strip():
        kept.append(text.rstrip())
        if each is not None:
            each("\n".join(kept))
    return "\n".join(kept).strip()


def choice(prompt: str, keys: Sequence[str], default: str) -> str:
    """One of `keys`; Enter is `default`. Asks again until it is one of them."""
    while True:
        typed = line(prompt).lower() or default
        if typed in keys:
            return typed
        terminal.note(f"`{typed}` is none of {', '.join(keys)}.")


def points(read: Callable[[str], str], count: int) -> tuple[int, ...]:
    """The points of a rubric that were said, by index from 0. `read` gives a line to a prompt."""
    while True:
        typed = read("Points you made (1 3, all, Enter: none): ")
        try:
            return rubric.said(typed, count)
        except ValueError as error:
            terminal.tell(str(error))


def _read(prompt: str) -> str:
    """One line as it was typed, without its end."""
    if interactive():
        import readline  # noqa: F401 – gives input() its editing and history

        try:
            return input(prompt)
        except EOFError:
            terminal.say("")
            raise Left from None
    try:
        text = sys.stdin.readline() if sys.stdin is not None else ""
    except UnicodeDecodeError as error:
        raise UsageFault(f"The input is no {error.encoding} text.") from error
    if not text:
        raise UsageFault("There is no input left to answer with, and this is no terminal.")
    return text.rstrip("\r\n")
