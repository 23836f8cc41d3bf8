"""Writes katas/ anew from the solutions.

`python -m grader.practice.write_stubs`; `--check` only says what differs.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

from grader import content
from grader.errors import KataError
from grader.practice import stubs
from grader.practice.workspace import put
from grader.store import Store
from grader.store.attempts import Reason


def differing(folder: Path) -> dict[str, str]:
    """What in `folder` is not as the solutions have it: slug and, in words, how it differs."""
    found = {}
    slugs = [path.stem for path in sorted(content.solutions().glob("*.py"))]
    for slug in slugs:
        path = folder / f"{slug}.py"
        if not path.exists():
            found[slug] = "is missing"
        elif path.read_bytes() != stubs.stub(slug).encode():
            found[slug] = "differs from its solution"
    for path in sorted(folder.glob("*.py")):
        if path.stem not in slugs:
            found[path.stem] = "has no solution"
    return found


def main(arguments: list[str]) -> int:
    """0 when katas/ agrees with the solutions, or was made to; 1 when something still differs."""
    clone = content.clone()
    if arguments not in ([], ["--check"]) or clone is None:
        print("usage, in a clone: python -m grader.practice.write_stubs [--check]", file=sys.stderr)
        return 2
    left = 0
    try:
        for slug, how in differing(clone / "katas").items():
            path = clone / "katas" / f"{slug}.py"
            if arguments or not content.solution(slug).exists():
                left += 1
                print(f"katas/{slug}.py {how}")
                continue
            # A contributor's own answer in katas/ is kept like in every `reset`.
            with Store.open(create=True) as store:
                blank, now = stubs.stub(slug).encode(), datetime.now(UTC)
                kept = put(path, slug, blank, Reason.STUBS, store.attempts, now)
            undo = f", was kept: `kata restore {slug} {kept.number}`" if kept else ""
            print(f"katas/{slug}.py written{undo}")
    except KataError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
