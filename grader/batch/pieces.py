"""What lies at a path, file by file: in folders, archives, and archives in those.

Links are never followed, pipes and devices never opened, and no more is looked at than a limit
allows; each such thing is a piece that says so.
"""

import io
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from grader.batch import archives
from grader.batch.archives import Budget, Member
from grader.batch.names import plain
from grader.errors import UsageFault
from grader.exam import submission
from grader.exam.verdict import Trouble
from grader.store.results import FILE

_ENTRIES = 20_000  # in one person's folder
_PEOPLE = 200_000  # in one folder
_DEPTH = 16
_IGNORED = {"__pycache__", "__macosx", "node_modules", "site-packages", "venv"}


@dataclass(frozen=True)
class Place:
    """Where something lies: in what was named (`root`), and in these folders and archives of it.
    alone: what was named is the file itself."""

    root: str
    dirs: tuple[str, ...] = ()
    alone: bool = False

    def inside(self, *names: str) -> "Place":
        return Place(self.root, (*self.dirs, *names))

    def called(self, name: str = "") -> str:
        """As people would call a file here, or the place."""
        return plain("/".join(filter(None, (self.root, *self.dirs, name))))


@dataclass(frozen=True)
class Piece:
    """One thing that was found. Without a name it is the folder or archive itself.

    odd: why it is no file to be read. read: gives its bytes, as long as they are no more than the
    limit passed, or what is wrong with it, as a sentence without its subject; to be called before
    the next piece is asked for.
    """

    place: Place
    name: str = ""
    odd: str = ""
    read: Callable[[int], bytes | str] = lambda _: ""

    @property
    def called(self) -> str:
        return self.place.called(self.name)


def walk(path: Path) -> Iterator[Piece]:
    """All that lies at a path. Raises UsageFault if nothing does."""
    try:
        kind = path.stat().st_mode
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageFault(f"{plain(str(path))} cannot be read: {why}.") from error
    whole = Path(os.path.abspath(path))
    if stat.S_ISDIR(kind):
        yield from _folder(path, Place(whole.name), [_PEOPLE])
    elif stat.S_ISREG(kind) and archives.is_archive(path.name):
        yield from _archive(path, Place(path.name))
    else:
        place = Place(whole.parent.name, alone=True)
        yield Piece(place, path.name, read=partial(_on_disk, path))


def _folder(path: Path, place: Place, left: list[int]) -> Iterator[Piece]:
    """`left` counts down what may still be looked at."""
    yield Piece(place)
    if len(place.dirs) > _DEPTH:
        yield Piece(place, odd="goes too deep")
        return
    entries: list[os.DirEntry[str]] = []
    try:
        with os.scandir(path) as found:
            for entry in found:
                left[0] -= 1
                if left[0] < 0:
                    yield Piece(place, odd="holds too many files")
                    return
                entries.append(entry)
    except OSError as error:
        yield Piece(place, odd=f"cannot be read: {error.strerror}")
    for entry in sorted(entries, key=lambda entry: entry.name):
        name, here = entry.name, Path(entry.path)
        if ignored(name):
            continue
        if entry.is_symlink():
            yield Piece(place, name, "is a link")
        elif entry.is_dir(follow_symlinks=False):
            if name.casefold().endswith((".py", ".ipynb")):
                yield Piece(place, name, "is a folder")
            elif not os.path.lexists(here / FILE):  # an output folder of ours
                below = left if place.dirs else [_ENTRIES]
                yield from _folder(here, place.inside(name), below)
        elif not entry.is_file(follow_symlinks=False):
            yield Piece(place, name, "is a pipe or device")
        elif archives.is_archive(name):
            yield from _archive(here, place.inside(name))
        else:
            yield Piece(place, name, read=partial(_on_disk, here))


def _archive(path: Path, place: Place) -> Iterator[Piece]:
    yield Piece(place)
    try:
        if path.stat().st_size > archives.LIMIT_BYTES:
            mib = archives.LIMIT_BYTES >> 20
            raise archives.Unreadable(f"is larger than {mib} MiB: unpack it and name the folder")
        with path.open("rb") as file:
            budget = Budget()
            yield from _members(archives.members(file, path.name, budget), place, budget)
    except OSError as error:
        yield Piece(place, odd=f"cannot be read: {error.strerror}")
    except archives.Unreadable as error:
        yield Piece(place, odd=str(error))


def _members(
    found: Iterator[Member], place: Place, budget: Budget, depth: int = 0
) -> Iterator[Piece]:
    """The pieces in an archive. Raises archives.Unreadable."""
    for member in found:
        if any(map(ignored, member.path)) and not member.leads_out:
            continue
        *dirs, name = member.path or ("?",)
        here = place.inside(*dirs[:_DEPTH])
        if member.leads_out:
            yield Piece(place, odd=f"holds {plain('/'.join(member.path))}, {member.odd}")
        elif member.odd:
            yield Piece(here, name, member.odd)
        elif archives.is_archive(name):
            below = here.inside(name)
            yield Piece(below)
            try:
                if depth:
                    raise archives.Unreadable("is an archive in an archive in an archive")
                data = member.read(archives.NESTED_BYTES)
                budget.take(len(data))
                if len(data) > archives.NESTED_BYTES:
                    raise archives.Unreadable(f"is larger than {archives.NESTED_BYTES >> 20} MiB")
                inner = archives.members(io.BytesIO(data), name, budget)
                yield from _members(inner, below, budget, depth + 1)
            except archives.Unreadable as error:
                yield Piece(below, odd=str(error))
        else:
            yield Piece(here, name, read=partial(_of_archive, member, budget))


def ignored(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _IGNORED


def _on_disk(path: Path, limit: int) -> bytes | str:
    try:
        data = submission.read(path, limit)
    except UsageFault:
        return "is gone since it was seen."
    return data.message.removeprefix(f"{path} ") if isinstance(data, Trouble) else data


def _of_archive(member: Member, budget: Budget, limit: int) -> bytes | str:
    try:
        data = member.read(limit)
    except archives.Unreadable as error:
        return f"{error}."
    budget.take(len(data))
    if len(data) > limit:
        return f"is larger than {limit >> 20} MiB; no answer is that long."
    return data
