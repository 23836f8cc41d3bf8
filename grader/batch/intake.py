"""From paths to submissions: whose is a file, and which kata does it answer?

`NAME__slug.py` says both. `slug.py` says the kata; the person is the first folder or archive below
the path that was named, and where there is none, what was named (of a file, its folder). Inside a
person's folder the NAME of `NAME__slug.py` does not count, so that nobody can hand in for another.
What Canvas and Moodle write around names when they pack a class is taken off.
A folder called `katas` is nobody; where a person has one, what lies beside it (a clone's
`solutions/`, say) is left alone. Notebooks may be called alike, or anything: see `notebooks.py`.
With one kata asked for, a Python file of any name is an answer to it.

Everything odd becomes one row that fails, and says why: links, pipes, folders called like files,
what is too large or damaged. The same kata twice from one person is refused, unless the bytes are
the same: which is meant cannot be told, and times of change in archives lie.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from grader import catalog
from grader.batch import archives, notebooks
from grader.batch.names import plain
from grader.batch.pieces import Piece, walk
from grader.batch.roster import Roster
from grader.errors import UsageFault
from grader.exam import submission
from grader.store.results import Submission

NOT_HANDED_IN = "Not handed in."
_NOTEBOOK_BYTES = 16 << 20  # with its pictures
_CANVAS = re.compile(r"(.+?)(?:_LATE)?_\d+_\d+_(.+?)(?:-\d+)?(\.py|\.ipynb)", re.IGNORECASE)
_MOODLE = re.compile(r"_\d+_assignsubmission_[a-z]+_?$")
_SHOWN = 3  # of many names in one sentence


@dataclass(frozen=True)
class Taken:
    """The submissions of a run, and what else there is to say, in sentences."""

    submissions: list[Submission]
    notes: list[str]


@dataclass(frozen=True)
class _Answer:
    """A file that answers a kata: its source, or a sentence on why it cannot be used.
    apart: it lies in a folder `katas`."""

    called: str
    data: bytes | str
    apart: bool


@dataclass
class _Person:
    answers: dict[str, list[_Answer]] = field(default_factory=dict)  # by slug
    strays: list[str] = field(default_factory=list)  # files that name no kata
    troubles: list[str] = field(default_factory=list)  # what could not be used as a whole
    others: int = 0  # answers to katas that are not of this run
    meant: bool = False  # a file that names no kata was surely meant to: a row says so


def take(paths: Sequence[Path], *, roster: Roster | None = None, only: Sequence[str] = ()) -> Taken:
    """All that is handed in at these paths.

    only: grade these katas and no others. Raises UsageFault if nothing stands at a path, or if
    nothing there is a submission.
    """
    intake = _Intake(roster, tuple(only))
    for path in paths:
        for piece in walk(path):
            intake.add(piece)
    taken = intake.taken()
    if not taken.submissions:
        raise UsageFault(
            "Nothing to grade was found: files are called NAME__slug.py, or slug.py in a folder "
            "of each person.\n`kata list` shows the slugs."
        )
    return taken


class _Intake:
    def __init__(self, roster: Roster | None, only: tuple[str, ...]) -> None:
        self.roster, self.only = roster, only
        self.slugs = set(catalog.slugs())
        self.people: dict[str, _Person] = {}
        self.left_alone: list[str] = []  # files of nobody that name no kata
        self.of_one = False  # what was named holds katas itself, so its folders are nobody's

    def add(self, piece: Piece) -> None:
        """Sort one piece."""
        place, suffix = piece.place, os.path.splitext(piece.name)[1].casefold()
        if not piece.name:
            if piece.odd:
                self._person(piece).troubles.append(f"{piece.called} {piece.odd}.")
            elif len(place.dirs) == 1 and not _is_katas(place.dirs[0]):
                self._person(piece)  # somebody's, whatever it holds
            return
        slug = self._slug(_named(piece))
        if piece.odd and slug is None:
            if not place.dirs and (not suffix or archives.is_archive(piece.name)):
                inside = place.inside(archives.stem(piece.name))
                person = self._person(Piece(inside))
                person.troubles.append(f"{piece.called} {piece.odd}.")
            return
        if suffix not in (".py", ".ipynb") and not place.alone:
            # A browser writes `.txt` behind what it takes for text.
            text = suffix == ".txt" and self._slug(f"{piece.name.partition('.')[0]}.py")
            if text or archives.is_unread(piece.name):
                self._stray(piece)
            return
        if slug is None and len(self.only) == 1 and suffix == ".py":
            slug = self.only[0]
        self.of_one = self.of_one or bool(slug and not place.dirs and "__" not in _named(piece))
        if slug is not None and self.only and slug not in self.only:
            self._person(piece).others += 1
        elif piece.odd and slug is not None:
            self._answer(piece, slug, f"{piece.called} {piece.odd}, not a file.")
        elif suffix == ".ipynb":
            self._notebook(piece, slug)
        elif slug is not None:
            data = piece.read(submission.LIMIT_BYTES)
            self._answer(piece, slug, f"{piece.called} {data}" if isinstance(data, str) else data)
        else:
            self._stray(piece)

    def _notebook(self, piece: Piece, slug: str | None) -> None:
        data = piece.read(_NOTEBOOK_BYTES)
        cells: list[notebooks.Cell] = []
        trouble = f"{piece.called} {data}" if isinstance(data, str) else ""
        if isinstance(data, bytes):
            try:
                cells = notebooks.cells(data)
            except notebooks.Unreadable as error:
                trouble = f"{piece.called}: {error}"
        if trouble and slug is None:
            self._person(piece).troubles.append(trouble)
            return
        names = {card.slug: card.defines for card in catalog.cards()}
        found = [slug] if slug else notebooks.katas(cells, names)
        for one in found:
            if not self.only or one in self.only:
                self._answer(piece, one, trouble or _from_cells(cells, one, names[one]))
        if not found:
            self._stray(piece)

    def _answer(self, piece: Piece, slug: str, data: bytes | str) -> None:
        apart = any(map(_is_katas, piece.place.dirs))
        answer = _Answer(piece.called, data, apart)
        self._person(piece).answers.setdefault(slug, []).append(answer)

    def _stray(self, piece: Piece) -> None:
        """A file that could be an answer, and names no kata."""
        meant = piece.place.alone or "__" in _named(piece) or archives.is_unread(piece.name)
        if not piece.place.dirs and not meant:
            self.left_alone.append(piece.called)
            return
        person = self._person(piece)
        person.strays.append(piece.called)
        person.meant = person.meant or (meant and not piece.place.dirs)

    # Whose and which

    def _slug(self, name: str) -> str | None:
        """The kata that a file's name names."""
        stem, suffix = os.path.splitext(name)
        text = stem.rpartition("__")[2].casefold().replace("-", "_")
        return text if suffix.casefold() in (".py", ".ipynb") and text in self.slugs else None

    def _person(self, piece: Piece) -> _Person:
        return self.people.setdefault(self._who(piece), _Person())

    def _who(self, piece: Piece) -> str:
        root, dirs = plain(archives.stem(piece.place.root)), piece.place.dirs
        names = [plain(self._bare(part)) for part in dirs if not _is_katas(part)]
        if len(names) > 1 and names[0] == root:  # class.zip often holds one folder, class
            names = names[1:]
        if not names and piece.name:
            stem = os.path.splitext(archives.stem(_named(piece)))[0]
            said, mark, _ = stem.rpartition("__")
            if mark and said:
                names = [plain(said)]
            elif self._slug(_named(piece)) is None:
                names = [plain(stem)]
        if self.roster is not None:
            for who in (*names, root):
                if (meant := self.roster.meant(who)) is not None:
                    return meant
        return next(filter(None, (*names, root)), "?")

    def _bare(self, part: str) -> str:
        """A folder or archive called NAME__slug is NAME's."""
        part = _MOODLE.sub("", archives.stem(part))
        said, _, slug = part.rpartition("__")
        return said if said and slug.casefold().replace("-", "_") in self.slugs else part

    # What comes of it

    def taken(self) -> Taken:
        notes = [f"{_nameless(self.left_alone)}: left alone."] if self.left_alone else []
        for person in self.people.values():
            if any(answer.apart for some in person.answers.values() for answer in some):
                kept = {
                    slug: [answer for answer in some if answer.apart]
                    for slug, some in person.answers.items()
                }
                person.answers = {slug: some for slug, some in kept.items() if some}
        if self.roster is not None:
            return Taken(list(self._asked(self.roster, notes)), notes)
        people = sorted(self.people, key=lambda who: (who.casefold(), who))
        return Taken([row for who in people for row in self._found(who, notes)], notes)

    def _found(self, who: str, notes: list[str]) -> Iterator[Submission]:
        """The rows of one person, where nothing is said about who is to hand in what."""
        person = self.people[who]
        rows = [_judged(who, slug, person.answers[slug]) for slug in _ordered(person.answers)]
        yield from rows
        strays = _nameless(person.strays) if person.strays else ""
        said = [*person.troubles[:_SHOWN], *([f"{strays}."] if strays else [])]
        failing = any(row.trouble for row in rows)
        if (person.troubles and not failing) or person.meant or (strays and not rows):
            yield Submission(who=who, slug="", file=who, trouble=" ".join(said))
        elif said:
            notes += [*person.troubles[:_SHOWN], *([f"{strays}: left alone."] if strays else [])]
        elif not rows and not person.others and not self.of_one:
            text = "Nothing in it is called like a kata."
            yield Submission(who=who, slug="", file=who, trouble=text)

    def _asked(self, roster: Roster, notes: list[str]) -> Iterator[Submission]:
        """A row for each kata asked of each person of the roster."""
        found = {slug for person in self.people.values() for slug in person.answers}
        named = {slug for slugs in roster.asked.values() for slug in slugs}
        for who, slugs in roster.asked.items():
            person = self.people.pop(who, _Person())
            asked = [s for s in slugs or self.only or named or found if s in (self.only or [s])]
            # Where no kata is asked and nobody has handed in any, the person is a row still.
            for slug in _ordered(asked) or [""]:
                if slug in person.answers:
                    yield _judged(who, slug, person.answers.pop(slug))
                elif person.troubles:
                    text = " ".join(person.troubles[:_SHOWN])
                    yield Submission(who=who, slug=slug, file=who, trouble=text)
                else:
                    yield Submission(who=who, slug=slug, file="", trouble=NOT_HANDED_IN)
            if person.strays:
                notes.append(f"{_nameless(person.strays)}: left alone.")
            if person.answers:
                notes.append(f"{who}: {_few(list(person.answers))} not asked, not graded.")
        for who, person in self.people.items():
            what = _few([*person.answers, *person.strays, *person.troubles])
            notes.append(f"{who} is not on the roster: not graded ({what or 'nothing in it'}).")


def _named(piece: Piece) -> str:
    """A file's name as we would have it, where Canvas wrote it, beside those of others."""
    canvas = None if piece.place.dirs else _CANVAS.fullmatch(piece.name)
    return f"{canvas[1]}__{canvas[2]}{canvas[3]}" if canvas else piece.name


def _is_katas(part: str) -> bool:
    return archives.stem(part).casefold() == "katas"


def _ordered(slugs: Iterable[str]) -> list[str]:
    wanted = set(slugs)
    return [card.slug for card in catalog.cards() if card.slug in wanted]


def _from_cells(cells: Sequence[notebooks.Cell], slug: str, names: Sequence[str]) -> bytes | str:
    """The source of a notebook's answer, or a sentence on why there is none."""
    text = notebooks.answer(cells, slug, names)
    if text is None:
        return f"No cell of the notebook defines {' and '.join(names)}."
    data = text.encode("utf-8", "replace")
    too_long = len(data) > submission.LIMIT_BYTES
    return "The notebook's cells are longer than any answer." if too_long else data


def _judged(who: str, slug: str, answers: Sequence[_Answer]) -> Submission:
    """The one answer of a person to a kata, or why there is none."""
    called, data = answers[0].called, answers[0].data
    if any(answer.data != data for answer in answers):
        files = _few([answer.called for answer in answers])
        data = f"Handed in more than once, and not alike: {files}. Leave one."
    if isinstance(data, str):
        return Submission(who=who, slug=slug, file=called, trouble=data)
    digest = sha256(data).hexdigest()
    return Submission(who=who, slug=slug, file=called, sha256=digest, source=data)


def _nameless(names: Sequence[str]) -> str:
    """That these files name no kata; of one, which may have been meant."""
    if len(names) > 1:
        return f"{_few(names)} name no kata"
    if archives.is_unread(names[0]):
        return f"{names[0]} is an archive of a kind that is not read here (zip and tar are)"
    import difflib  # for the wrong names alone

    text = os.path.splitext(os.path.basename(names[0]))[0].rpartition("__")[2]
    near = difflib.get_close_matches(text.casefold().replace("-", "_"), catalog.slugs(), 1, 0.75)
    return f"{names[0]} names no kata{f' ({near[0]}?)' if near else ''}"


def _few(names: Sequence[str]) -> str:
    """The first of many names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
