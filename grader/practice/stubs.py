"""Stubs: a stub is its solution without the answers.

In a solution each answer stands between `# BEGIN SOLUTION` and `# END SOLUTION`. In a function
the block becomes `raise NotImplementedError`; anywhere else (a helper, a constant) it vanishes.
`python -m grader.practice.stubs` writes katas/ anew; `--check` only says what differs.
"""

import ast
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
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


def differing(folder: Path) -> dict[str, str]:
    """What in `folder` is not as the solutions have it: slug and, in words, how it differs."""
    found = {}
    slugs = [path.stem for path in sorted(content.solutions().glob("*.py"))]
    for slug in slugs:
        path = folder / f"{slug}.py"
        if not path.exists():
            found[slug] = "is missing"
        elif path.read_bytes() != stub(slug).encode():
            found[slug] = "differs from its solution"
    for path in sorted(folder.glob("*.py")):
        if path.stem not in slugs:
            found[path.stem] = "has no solution"
    return found


def main(arguments: list[str]) -> int:
    """0 when katas/ agrees with the solutions, or was made to; 1 when something still differs."""
    # A contributor may have an answer of their own in katas/: it is kept like in every `reset`.
    from grader.practice.workspace import put
    from grader.store import Store
    from grader.store.attempts import Reason

    clone = content.clone()
    if arguments not in ([], ["--check"]) or clone is None:
        print("usage, in a clone: python -m grader.practice.stubs [--check]", file=sys.stderr)
        return 2
    left = 0
    try:
        for slug, how in differing(clone / "katas").items():
            path = clone / "katas" / f"{slug}.py"
            if arguments or not content.solution(slug).exists():
                left += 1
                print(f"katas/{slug}.py {how}")
                continue
            with Store.open(create=True) as store:
                blank, now = stub(slug).encode(), datetime.now(UTC)
                kept = put(path, slug, blank, Reason.STUBS, store.attempts, now)
            undo = f", was kept: `kata restore {slug} {kept.number}`" if kept else ""
            print(f"katas/{slug}.py written{undo}")
    except KataError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
