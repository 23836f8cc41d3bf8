"""Stubs: a stub is its solution without the answers.

In a solution each answer stands between `# BEGIN SOLUTION` and `# END SOLUTION`. In a function
the block becomes `raise NotImplementedError`; anywhere else (a helper, a constant) it vanishes.
`python -m grader.practice.stubs` writes katas/ anew; `--check` only says what differs.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from grader import content
from grader.errors import ContentError, KataError

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


def write_all(folder: Path, *, check: bool) -> list[str]:
    """Bring `folder` in line with the solutions, or only compare. Returns what differed."""
    changes = []
    wanted = {path.name: stub(path.stem) for path in sorted(content.solutions().glob("*.py"))}
    for name, text in wanted.items():
        path = folder / name
        there = path.read_text(encoding="utf-8") if path.is_file() else None
        if there != text:
            changes.append(f"{name}: {'new' if there is None else 'differs from its solution'}")
            if not check:
                path.write_text(text, encoding="utf-8")
    for path in sorted(folder.glob("*.py")):
        if path.name not in wanted:
            changes.append(f"{path.name}: has no solution")
            if not check:
                path.unlink()
    return changes


def main(arguments: list[str]) -> int:
    """0 when katas/ agrees with the solutions, or was made to; 1 when --check finds more."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m grader.practice.stubs [--check]", file=sys.stderr)
        return 2
    clone = content.clone()
    if clone is None:
        print("error: There is no clone here, so no katas/ to write.", file=sys.stderr)
        return 2
    check = bool(arguments)
    try:
        changes = write_all(clone / "katas", check=check)
    except KataError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for change in changes:
        print(f"katas/{change}{'' if check else ' (written)'}")
    if not changes:
        print("Every stub agrees with its solution.")
    return 1 if check and changes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
