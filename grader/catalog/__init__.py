"""The catalogue: what is known about each kata, one YAML file per slug.

A file holds two YAML documents. The first, the card, is all that `kata list` needs and is
cheap to read; the second holds hints, bugs and sources and is read when a kata is opened.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import yaml

from grader import names
from grader.errors import ContentError, UnknownSlug

TRACKS = ("core", "quantization", "serving", "prompting", "variants", "training", "analysis")

T = TypeVar("T")

_HERE = Path(__file__).parent
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a list shows. `order` is the place in the teaching order (the number in the
    contracts), `minutes` the par time, `defines` the names a submission must define, `needs` the
    slugs of earlier katas that it builds on."""

    slug: str
    title: str
    track: Literal[TRACKS]  # type: ignore[valid-type]
    order: int
    difficulty: Literal["easy", "medium", "hard"]
    minutes: int
    defines: tuple[str, ...]
    summary: str
    needs: tuple[str, ...] = ()


class Patch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Replace `old`, which stands exactly once in the solution, by `new`."""

    old: str
    new: str


class Bug(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A known mistake: what it is, how it shows, why, and how to mend it. `question` is the id of
    the question that drills its cause."""

    id: str
    title: str
    symptom: str
    cause: str
    fix: str
    patch: tuple[Patch, ...]
    question: str | None = None


class Spared(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An edit of the solution (`exam/mutants.py`) that its suite rightly passes, and why: it
    computes the same, or changes what the contract leaves free."""

    edit: str
    why: str


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The second document: everything about a kata beyond its card. `asked` says why an
    interviewer asks it, in two lines at most."""

    asked: str
    hints: tuple[str, ...]
    bugs: tuple[Bug, ...]
    sources: tuple[str, ...]
    spared: tuple[Spared, ...] = ()

    def known(self, bug_id: str | None) -> Bug | None:
        """The bug of this id, if the catalogue has it."""
        return next((bug for bug in self.bugs if bug.id == bug_id), None)

    def bug(self, bug_id: str) -> Bug:
        """The bug of this id. Raises ContentError if the catalogue has it no more."""
        bug = self.known(bug_id)
        if bug is None:
            raise ContentError(f"The catalogue has no bug '{bug_id}'.")
        return bug


def _documents(slug: str) -> Iterator[Any]:
    with (_HERE / f"{slug}.yaml").open(encoding="utf-8") as file:
        yield from yaml.load_all(file, _Loader)


def _convert(slug: str, document: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise ContentError(f"catalog/{slug}.yaml: {error}") from error


@cache
def card(slug: str) -> Card:
    """The card of one kata. Raises ContentError if its file is broken."""
    try:
        text = (_HERE / f"{slug}.yaml").read_bytes().partition(b"\n---\n")[0]  # of long files
        return _convert(slug, {"slug": slug, **yaml.load(text, _Loader)}, Card)
    except (yaml.YAMLError, OSError, TypeError) as error:
        raise ContentError(f"catalog/{slug}.yaml: {error}") from error


@cache
def entry(slug: str) -> Entry:
    """Hints, bugs and sources of one kata. Raises ContentError if its file is broken."""
    try:
        _, body = _documents(slug)
    except (yaml.YAMLError, OSError, ValueError) as error:
        raise ContentError(f"catalog/{slug}.yaml: {error}") from error
    return _convert(slug, body, Entry)


@cache
def cards() -> tuple[Card, ...]:
    """All cards in teaching order: by track, then by number."""
    found = (card(path.stem) for path in _HERE.glob("*.yaml"))
    return tuple(sorted(found, key=lambda c: (TRACKS.index(c.track), c.order)))


def tracks() -> list[str]:
    """The tracks that have katas, in teaching order."""
    return list(dict.fromkeys(card.track for card in cards()))


def slugs() -> list[str]:
    """All slugs, from file names alone, sorted by name."""
    return sorted(path.stem for path in _HERE.glob("*.yaml"))


def find(text: str) -> str:
    """The slug meant by `text`: itself or the only one that begins with it.

    Raises UnknownSlug with the nearest slugs otherwise.
    """
    found, near = names.meant(text, slugs(), "_")
    if found is None:
        raise UnknownSlug(text, near)
    return found


def planted(slug: str, bug: Bug, solution: str) -> str:
    """The solution with one bug put in. Raises ContentError if a patch does not fit."""
    for patch in bug.patch:
        if solution.count(patch.old) != 1:
            times = solution.count(patch.old)
            raise ContentError(
                f"catalog/{slug}.yaml, bug '{bug.id}': the patch's `old` text stands "
                f"{times} times in the solution, not once."
            )
        solution = solution.replace(patch.old, patch.new)
    return solution
