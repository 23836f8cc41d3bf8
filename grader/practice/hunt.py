"""The bug hunt: a solution with one catalogued mistake planted in it, to be found and mended.

Comments and markers are taken out, of the planted file and of the reference alike, so that no
comment contradicts the code; what is left differs by the mistake alone. Docstrings stay: they
are the contract.

A hunt goes in steps that know no terminal: `plant`, `diagnose`, `grade`, `next_hint`, `close`. Each
is stored in one transaction, so that a hunt broken off between any two goes on from `opened`.
"""

import ast
import difflib
import io
import json
import random
import re
import tokenize
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path

from grader import catalog, content
from grader.catalog import Bug
from grader.errors import ContentError, UsageFault
from grader.exam import submission
from grader.exam.verdict import Verdict
from grader.practice import files, grading, repetition, stubs, work
from grader.practice.grading import Graded, Judge
from grader.store import Store
from grader.store.database import file, read_time
from grader.store.memory import Rating

HINTS = 2
_FAIR_LINES = 2
_FAIR_GROWTH = 24  # characters; a longer insertion stands out
_ODD = re.compile(r"\b0 \*|\* 0\b|\bimport\b|> 0 or|or True")  # no learner would write it


@cache
def reference(slug: str) -> str:
    """The solution as the hunt shows it: without markers and comments."""
    return _bare(stubs.solution(slug))


def planted(slug: str, bug: Bug) -> str:
    """The file to search: `reference(slug)` with the bug. Raises ContentError if it is no Python
    or shows nothing of the bug."""
    raw = content.solution(slug).read_text(encoding="utf-8")
    name = f"solutions/{slug}.py with {bug.id}"
    text = _bare(stubs.strip_markers(catalog.planted(slug, bug, raw), name))
    try:
        compile(text, name, "exec")
    except SyntaxError as error:
        raise ContentError(f"{name}: {error.msg}") from error
    if text == reference(slug):
        raise ContentError(f"{name} differs in comments alone.")
    return text


def _bare(source: str) -> str:
    """Python without its comments, and without the lines that held nothing else."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip() or "\0"
    text = "\n".join(line for line in lines if line != "\0")
    return re.sub(r"\n{4,}", "\n\n\n", text).rstrip("\n") + "\n"


def change(slug: str, bug: Bug) -> tuple[list[str], list[str]]:
    """The lines of the reference that the bug replaces, and those it puts there."""
    before, after = reference(slug).splitlines(), planted(slug, bug).splitlines()
    moves = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    moves = [move for move in moves if move[0] != "equal"]
    removed = [line for _, a, b, _, _ in moves for line in before[a:b]]
    return removed, [line for _, _, _, a, b in moves for line in after[a:b]]


def is_fair(slug: str, bug: Bug) -> bool:
    """Whether the bug hides: few lines altered or left out, none added, none much longer."""
    try:
        removed, added = change(slug, bug)
    except ContentError:
        return False
    growth = sum(map(len, added)) - sum(map(len, removed))
    odd = any(_ODD.search(line) for line in added)
    return len(added) <= len(removed) <= _FAIR_LINES and growth <= _FAIR_GROWTH and not odd


@cache
def fair_bugs(slug: str) -> tuple[Bug, ...]:
    """The bugs of a kata worth hunting, in the catalogue's order; all of them if none hides."""
    bugs = catalog.entry(slug).bugs
    return tuple(bug for bug in bugs if is_fair(slug, bug)) or bugs


def chosen_bug(slug: str, seed: int) -> Bug:
    """The bug that a seed plants."""
    return random.Random(f"{seed}/{slug}").choice(fair_bugs(slug))


def minutes(card: catalog.Card) -> int:
    """Par of a hunt: reading takes a part of writing's time."""
    return max(4, min(10, round(0.4 * card.minutes)))


def hint(slug: str, bug: Bug, rung: int) -> str:
    """Rung 1 is how the bug shows, rung 2 where it is."""
    return bug.symptom if rung == 1 else f"Look at {_place(slug, bug)}."


def _place(slug: str, bug: Bug) -> str:
    """The innermost function or class around the bug's first line."""
    before, after = reference(slug).splitlines(), planted(slug, bug).splitlines()
    line = 1 + next(
        (n for n, (a, b) in enumerate(zip(before, after)) if a != b), min(len(before), len(after))
    )
    names = [
        node.name
        for node in ast.walk(ast.parse("\n".join(before)))  # outer ones come first
        if isinstance(node, (ast.ClassDef, ast.FunctionDef))
        and node.lineno <= line <= (node.end_lineno or 0)
    ]
    return ".".join(names) or "the top of the file, outside all functions"


def rating(
    *, seconds: float, par_s: float, right: bool, hints: int = 0, gave_up: bool = False
) -> Rating:
    """The rating of a hunt, by help, time against par, and whether the diagnosis was right."""
    if gave_up:
        return Rating.AGAIN
    if not right or hints >= HINTS or seconds > 2 * par_s:
        return Rating.HARD
    return Rating.EASY if hints == 0 and seconds <= 0.6 * par_s else Rating.GOOD


class Undiagnosed(UsageFault):
    """Something was to be graded before it was said what is wrong."""

    def __init__(self) -> None:
        super().__init__("A diagnosis comes before the grading; nothing was graded.")


@dataclass(frozen=True)
class Hunt:
    """An open hunt. `answer` is the id of the diagnosis stored for it; `mended` when the file
    first passed, after which only the judgement on the diagnosis is open."""

    slug: str
    bug_id: str
    file: str
    planted_at: str
    hints: int = 0
    answer: int | None = None
    diagnosis: str = ""
    mended: str | None = None

    @property
    def path(self) -> Path:
        return Path(self.file)

    @property
    def bug(self) -> Bug:
        return catalog.entry(self.slug).bug(self.bug_id)

    @property
    def untouched(self) -> bool:
        """Whether the file is as it was planted. Raises UsageFault if it is gone."""
        return submission.read(self.path) == planted(self.slug, self.bug).encode()


@dataclass(frozen=True)
class Closed:
    """How a hunt ended, the time on task until it was mended, and when the next one on its kata
    is due."""

    rating: Rating
    seconds: float
    due: datetime


def opened() -> dict[str, Hunt]:
    """The open hunts by kata, but for those whose bug has left the catalogue."""
    with Store.open(create=False) as store:
        hunts = [_stored(store, slug) for slug in catalog.slugs()]
    return {
        hunt.slug: hunt for hunt in hunts if hunt and catalog.entry(hunt.slug).known(hunt.bug_id)
    }


def _stored(store: Store, slug: str) -> Hunt | None:
    text = store.settings.get(_key(slug))
    return Hunt(**json.loads(text)) if text else None


def plant(slug: str, bug: Bug, now: datetime) -> Hunt:
    """Write the file into a new folder of the data folder, and remember the hunt."""
    home = file().parent / "hunts"
    with Store.open(create=True) as store:
        try:
            home.mkdir(parents=True, exist_ok=True)
            folder = _new_folder(home)
        except OSError as error:
            raise UsageFault(f"{home} cannot be written: {error.strerror}.") from error
        path = folder / f"{slug}.py"
        files.create(path, planted(slug, bug).encode())
        hunt = Hunt(slug, bug.id, str(path), now.isoformat())
        with store.transaction():
            _remember(store, hunt)
            store.work.add(f"bug:{slug}", now, 0.0)
            store.attempts.saw_solution(slug, now)  # all but a line of it
    return hunt


def _new_folder(home: Path) -> Path:
    number = 1 + max((int(p.name) for p in home.iterdir() if p.name.isdigit()), default=0)
    while True:
        try:
            (home / str(number)).mkdir()
        except FileExistsError:
            number += 1
        else:
            return home / str(number)


def next_hint(hunt: Hunt, now: datetime) -> tuple[Hunt, str]:
    """The hint after the last one, or the last again."""
    hunt = replace(hunt, hints=min(hunt.hints + 1, HINTS))
    with Store.open(create=True) as store, store.transaction():
        _worked(store, hunt, now)
        _remember(store, hunt)
    return hunt, hint(hunt.slug, hunt.bug, hunt.hints)


def diagnose(hunt: Hunt, text: str, now: datetime) -> Hunt:
    """Store what the learner says is wrong."""
    with Store.open(create=True) as store, store.transaction():
        seconds = _worked(store, hunt, now)
        id = store.memory.answer(f"bug:{hunt.slug}", text, now, seconds=seconds)
        hunt = replace(hunt, answer=id, diagnosis=text)
        _remember(store, hunt)
    return hunt


def grade(hunt: Hunt, judge: Judge, now: datetime) -> tuple[Hunt, Graded]:
    """Judge the file: the hunt is mended if it passes. Raises Undiagnosed."""
    if hunt.answer is None:
        raise Undiagnosed

    def then(verdict: Verdict, *_: object) -> grading.Write:
        def write(store: Store) -> None:
            there = _stored(store, hunt.slug)
            if there is None or there.planted_at != hunt.planted_at:
                return  # it was ended while this was judged
            _worked(store, there, now)
            if verdict.passed:
                _remember(store, replace(there, mended=now.isoformat()))

        return write

    graded = grading.grade(
        hunt.slug,
        hunt.path,
        judge,
        name=hunt.file,
        now=now,
        then=then,
    )
    return replace(hunt, mended=now.isoformat()) if graded.verdict.passed else hunt, graded


def close(hunt: Hunt, right: bool, now: datetime, *, gave_up: bool = False) -> Closed:
    """End the hunt, and schedule the next one. `right`: the diagnosis named the bug."""
    with Store.open(create=True) as store, store.transaction():
        seconds = _worked(store, hunt, now)
        rated = rating(
            seconds=seconds,
            par_s=_par_s(hunt),
            right=right,
            hints=hunt.hints,
            gave_up=gave_up,
        )
        card = repetition.rate(store.memory, f"bug:{hunt.slug}", rated, now, hunt.answer)
        store.settings.set(_key(hunt.slug), "")
    return Closed(rated, seconds, card.due)


def _worked(store: Store, hunt: Hunt, now: datetime) -> float:
    """The seconds on task, noted up to `now` or until it was mended."""
    key, begun = f"bug:{hunt.slug}", read_time(hunt.planted_at)
    if hunt.mended is None:
        saved = work.saved(hunt.path, now)
        work.note(store, key, now, begun, saved=saved, idle_s=_par_s(hunt))
    return store.work.seconds(key, begun)


def _par_s(hunt: Hunt) -> float:
    return 60.0 * minutes(catalog.card(hunt.slug))


def _remember(store: Store, hunt: Hunt) -> None:
    store.settings.set(_key(hunt.slug), json.dumps(asdict(hunt)))


def _key(slug: str) -> str:
    return f"hunt:{slug}"
