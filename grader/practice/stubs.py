"""Stubs: a stub is its solution without the answers.

In a solution each answer stands between `# BEGIN SOLUTION` and `# END SOLUTION`. In a function
the block becomes `raise NotImplementedError`; anywhere else (a helper, a constant) it vanishes.
"""

import ast
import re
from collections.abc import Iterator

from grader import content
from grader.errors import ContentError

BEGIN, END = "# BEGIN SOLUTION", "# END SOLUTION"


def stub(slug: str) -> str:
    """The stub of one kata. Raises ContentError if its solution is missing or badly marked."""
    return strip_answers(*_solution(slug))


def solution(slug: str) -> str:
    """The reference without the markers. Raises ContentError like `stub`."""
    return strip_markers(*_solution(slug))


def _solution(slug: str) -> tuple[str, str]:
    path = content.solution(slug)
    try:
        return path.read_text(encoding="utf-8"), f"solutions/{path.name}"
    except (OSError, UnicodeDecodeError) as error:
        raise ContentError(f"The solution of {slug} cannot be read: {error}") from error


def strip_answers(text: str, name: str) -> str:
    """Take the answers out of a solution. `name` is what errors call it."""
    lines = text.splitlines()
    functions = _functions(text, name)
    kept: list[str] = []
    done = 0
    for begin, end in _blocks(lines, name):
        kept += lines[done:begin]
        if any(first <= begin + 1 <= last for first, last in functions):
            marker = lines[begin]
            kept.append(marker[: len(marker) - len(marker.lstrip())] + "raise NotImplementedError")
        done = end + 1
    stub_text = _tidy([*kept, *lines[done:]])
    _functions(stub_text, f"{name}, as a stub")
    return stub_text


def strip_markers(text: str, name: str) -> str:
    """The whole solution without its marker lines."""
    lines = text.splitlines()
    marked = {number for block in _blocks(lines, name) for number in block}
    return _tidy([line for number, line in enumerate(lines) if number not in marked])


def _blocks(lines: list[str], name: str) -> Iterator[tuple[int, int]]:
    """Line numbers, from 0, of each pair of markers."""
    begin: int | None = None
    for number, line in enumerate(lines):
        if line.strip() == BEGIN:
            if begin is not None:
                raise ContentError(
                    f"{name}:{number + 1}: '{BEGIN}' inside the block begun on line {begin + 1}."
                )
            begin = number
        elif line.strip() == END:
            if begin is None:
                raise ContentError(f"{name}:{number + 1}: '{END}' without a '{BEGIN}' before it.")
            yield begin, number
            begin = None
    if begin is not None:
        raise ContentError(f"{name}:{begin + 1}: '{BEGIN}' has no '{END}' after it.")


def _functions(text: str, name: str) -> list[tuple[int, int]]:
    """First and last line, from 1, of every function's body."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ContentError(f"{name}:{error.lineno}: {error.msg}.") from error
    return [
        (node.lineno, node.end_lineno or node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


def _tidy(lines: list[str]) -> str:
    """Join lines, with no more than two empty ones where a block has gone."""
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).rstrip("\n") + "\n"
