"""What a run is to grade, and with which draws; what is stored of it is in `store/results.py`.

A submission is graded anew if its source has changed, or its `basis`: all of the grader that
decides its verdict. The draws come from a secret of the output folder, the source's hash and a
number: to grade again in the same folder draws the same inputs, and nobody can choose a file by its
draws.
"""

import hmac
import secrets
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from typing import Any

import msgspec

from grader import __version__, content
from grader.batch.intake import Taken
from grader.store.results import Grading, Missing, Result, Results, Row, Submission

__all__ = ["Grading", "Missing", "Options", "Result", "Results", "Row", "Submission", "begin"]

_LEFT = (
    "Of the run before, {} are not at these paths: left out of the reports, and kept. Name all "
    "paths together to have them there."
)
_SEEDS = 10**6  # as many as `kata run` draws from


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was asked for. Paths are absolute; `boxed` is False with --no-sandbox."""

    paths: tuple[str, ...] = ()
    roster: str | None = None
    katas: tuple[str, ...] = ()
    seeds: int = 2
    boxed: bool = True
    feedback: str = "full"
    formats: tuple[str, ...] = ()

    def but(self, **given: Any) -> "Options":
        """The same, but for what is given (not None)."""
        return msgspec.structs.replace(self, **{k: v for k, v in given.items() if v is not None})


def begin(results: Results, taken: Taken, options: Options, *, force: bool) -> None:
    """Store what this run is to grade; `results.missing()` tells what that leaves to do. What was
    graded before stays where nothing has changed, unless `force`."""
    with results.transaction():
        secret = results.get("secret", str)
        if secret is None:
            secret = secrets.token_hex(16)
            results.set("secret", secret)
        found = [
            (one, basis(one.slug), draws(secret, one.sha256, options.seeds))
            for one in taken.submissions
        ]
        left = results.take(found, boxed=options.boxed, force=force)
        results.set("options", options)
        results.set("notes", [*taken.notes, *([_LEFT.format(left)] if left else [])])
        results.set("kata", __version__)


def draws(secret: str, digest: str | None, number: int) -> Sequence[int]:
    """Different seeds for a source of this hash; none where there is no source."""
    seeds: dict[int, None] = {}
    index = 0
    while digest is not None and len(seeds) < number:
        mac = hmac.digest(secret.encode(), f"{digest}/{index}".encode(), "sha256")
        seeds[int.from_bytes(mac[:6], "big") % _SEEDS] = None
        index += 1
    return tuple(seeds)


@cache
def basis(slug: str) -> str:
    """A hash of what decides a kata's verdicts: the version, its suite, what suites share, its
    entry in the catalogue, and the code that judges."""
    if not slug:
        return ""
    package = content.SUITES.parent
    files = [content.suite(slug), package / "catalog" / f"{slug}.yaml", content.solution(slug)]
    files += sorted((content.SUITES / "shared").glob("*.py"))
    files += sorted((package / "exam").glob("*.py"))
    whole = sha256(__version__.encode())
    for file in files:
        whole.update(f"\n{file.name}\n".encode() + sha256(file.read_bytes()).digest())
    return whole.hexdigest()
