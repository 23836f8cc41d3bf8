"""Asking: one line or several, from a terminal or from lines that were piped in.

Without a terminal nothing is prompted; a question that finds no more input is an error (exit 2).
On a terminal Ctrl-D means "enough": `Left` is raised, and whoever asks ends cleanly.
"""

import sys
from collections.abc import Sequence

from grader.cli import terminal
from grader.errors import UsageFault


class Left(Exception):
    """The learner has had enough for now."""


def interactive() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def line(prompt: str) -> str:
    """One line, stripped. Raises Left at the end of a terminal's input, UsageFault elsewhere."""
    if interactive():
        import readline  # noqa: F401 – gives input() its editing and history

        try:
            return input(prompt).strip()
        except EOFError:
            terminal.say("")
            raise Left from None
    text = sys.stdin.readline() if sys.stdin is not None else ""
    if not text:
        raise UsageFault("There is no input left to answer with, and this is no terminal.")
    return text.strip()


def lines(prompt: str, more: str = "… ") -> str:
    """Several lines, up to an empty one."""
    kept: list[str] = []
    while text := line(more if kept else prompt):
        kept.append(text)
    return "\n".join(kept)


def choice(prompt: str, keys: Sequence[str], default: str) -> str:
    """One of `keys`; Enter is `default`. Asks again until it is one of them."""
    while True:
        typed = line(prompt).lower() or default
        if typed in keys:
            return typed
        terminal.note(f"`{typed}` is none of {', '.join(keys)}.")
