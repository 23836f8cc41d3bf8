"""The report of `kata grade` as one self-contained HTML page: no script, no network.

It sorts without a script: radio buttons choose which of a row's numbers is its place in the grid
(`style.css`, under "grades of a class").
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from grader import catalog
from grader.batch import copies, feedback, judged
from grader.batch.copies import Group
from grader.batch.items import LEAST, Item, Lesson, Statistics
from grader.batch.judged import Judged, bug_of, is_not_run, is_wrong
from grader.batch.records import Options, Result, Results
from grader.exam.verdict import Check, Level, Outcome
from grader.harmless import harmless
from grader.recall import bank
from grader.views import html
from grader.views.maths import markdown
from grader.views.plain import counted

ROWS = 2000  # submissions shown one by one; statistics are of all
_FAILURES, _MESSAGE_CHARS = 4, 240  # of one submission
_MISTAKES, _LESSONS, _GROUPS, _LOOKED = 15, 10, 50, 100
_PROMPT_CHARS = 160
_WORDS = {
    Result.PASSED: ("✓ passed", "good"),
    Result.FAILED: ("✗ failed", "bad"),
    Result.UNSTABLE: ("≈ unstable", "fair"),
    Result.REFUSED: ("! refused", "fair"),
    Result.OPEN: ("· open", "soft"),
}
_WEAK, _GOOD = 0.1, 0.3  # correlations: below, an item tells little; from here on, it tells well
SORTS = (("n", "name"), ("k", "kata"), ("o", "outcome"), ("c", "checks"), ("l", "to look at"))


@dataclass
class Line:
    """One submission as the page shows it. marks: a sign for each check; order: its place by each
    way to sort."""

    who: str
    slug: str
    said: str
    colour: str
    checks: tuple[int, int]
    wrong: list[str]
    told: list[str]
    look: list[str]
    facts: str
    marks: dict[str, str] = field(default_factory=dict)
    order: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Kata:
    """What is said of one kata. lines: each submission's with its cells, one an item."""

    card: catalog.Card
    judged: int
    items: Sequence[Item]
    lines: Sequence[tuple[Line, Markup]]


def page(results: Results) -> str:
    """The whole page."""
    statistics = Statistics()
    lines: list[Line] = []
    outcomes = dict.fromkeys(Result, 0)
    missing = unboxed = to_look_at = 0
    looked: list[Line] = []
    sources: dict[str, list[tuple[str, int]]] = {}
    for one in judged.each(results):
        statistics.add(one)
        outcomes[one.outcome] += 1
        missing += one.missing
        unboxed += one.row.boxed is False
        if one.checks:
            sources.setdefault(one.slug, []).append((harmless(one.who), one.row.id))
        line = _line(one)
        if line.look:
            to_look_at += 1
            if len(looked) < _LOOKED:
                looked.append(line)
        if len(lines) < ROWS:
            lines.append(line)
    groups = _alike(results, sources)
    for group in groups:
        for line in lines:
            if line.slug == group.slug and line.who in group.people:
                line.look.append(f"nearly alike: {', '.join(_others(group, line.who))}")
    _order(lines)
    options = results.get("options", Options) or Options()
    return html.render(
        "grades.html",
        lines=lines,
        sorts=SORTS,
        left=sum(outcomes.values()) - len(lines),
        numbers=_numbers(outcomes, missing, len(results.people())),
        options=options,
        kata=results.get("kata", str),
        layers=results.get("layers", list[dict[str, Any]]) or [],
        notes=results.get("notes", list[str]) or [],
        unboxed=unboxed,
        looked=looked,
        looked_left=to_look_at - len(looked),
        groups=groups[:_GROUPS],
        katas=_katas(statistics, lines),
        mistakes=statistics.mistakes()[:_MISTAKES],
        lessons=[(lesson, _prompt(lesson)) for lesson in statistics.lessons()[:_LESSONS]],
        percent=_percent,
        telling=_telling,
        counted=counted,
        least=LEAST,
    )


def _numbers(outcomes: dict[Result, int], missing: int, people: int) -> list[tuple[int, str]]:
    whole = sum(outcomes.values())
    outcomes = {**outcomes, Result.FAILED: outcomes[Result.FAILED] - missing}
    found = [(people, "person" if people == 1 else "people")]
    found.append((whole, "submission" if whole == 1 else "submissions"))
    found += [(n, outcome.value) for outcome, n in outcomes.items() if n]
    return [*found, (missing, "not handed in")] if missing else found


def _line(one: Judged) -> Line:
    said, colour = _WORDS[one.outcome]
    if one.missing:
        said, colour = "– missing", "bad"
    elif one.outcome is Result.FAILED and one.level is Level.CORE:
        said, colour = "✗ core complete", "fair"
    look = [*(f"replaces {name}" for name in one.tampered), *one.marks]
    if one.outcome is Result.UNSTABLE:
        look.append(f"unstable: {', '.join(sorted(one.unsteady)[:3]) or 'differs by draw'}")
    facts = [one.row.submission.file, f"sha256 {(one.row.submission.sha256 or 'none')[:12]}"]
    if one.verdicts:
        draws = ", ".join(str(grading.seed) for grading in one.row.gradings)
        facts.append(f"draws {draws}, {one.seconds:.1f} s")
    if one.row.boxed is False:
        facts.append("ran without the sandbox")
    wrong, told = _wrong(one)
    about = " · ".join(filter(None, facts))
    marks = {check.name: _mark(check) for check in one.checks}
    return Line(
        harmless(one.who),
        one.slug,
        said,
        colour,
        one.points,
        wrong,
        told,
        [*map(harmless, look)],
        harmless(about),
        marks,
    )


def _wrong(one: Judged) -> tuple[list[str], list[str]]:
    """What is wrong in a few words, and the first failures with what was said of them."""
    if one.trouble:
        return [_first(one.trouble)], []
    if one.error is not None:
        return [f"{one.error.kind}: {_first(one.error.message)}"], [
            harmless(one.error.message[:1000])
        ]
    if one.unwritten:
        return ["Nothing is written in it yet."], []
    titles = [bug.title for id in one.bugs if (bug := bug_of(one.slug, id)) is not None]
    failed = one.failed
    alike: dict[str, Check] = {}
    for check in failed:
        alike.setdefault(check.bug or check.name, check)
    told = [f"{check.part}: {_told(check)}" for check in [*alike.values()][:_FAILURES]]
    if (more := len(failed) - len(told)) > 0:
        told.append(f"{counted(more, 'more check')} failed.")
    return titles or (
        [f"{counted(len(failed), 'check')}, no known mistake"] if failed else []
    ), told


def _told(check: Check) -> str:
    return f"{feedback.words(check)}. {_first(check.message)}"


def _first(message: str) -> str:
    line = " ".join(harmless(message).split())
    return line if len(line) <= _MESSAGE_CHARS else f"{line[: _MESSAGE_CHARS - 1]}…"


def _mark(check: Check) -> str:
    if is_not_run(check):
        return "?"
    return "✗" if is_wrong(check) else "–" if check.outcome is Outcome.SKIPPED else "·"


def _cells(line: Line, items: Sequence[Item]) -> Markup:
    """The checks of one submission, in as few characters as can be: there are thousands."""
    marks = (line.marks.get(item.name, "–") for item in items)
    return Markup("").join(
        Markup("<td class=x>✗</td>") if mark == "✗" else Markup("<td>{}</td>").format(mark)
        for mark in marks
    )


def _alike(results: Results, sources: dict[str, list[tuple[str, int]]]) -> list[Group]:
    found: list[Group] = []
    for slug, some in sources.items():
        read = ((who, results.source(id)) for who, id in some)
        found += copies.groups(slug, ((who, data) for who, data in read if data is not None))
    return sorted(found, key=lambda group: -group.least)


def _others(group: Group, who: str) -> list[str]:
    others = [other for other in group.people if other != who]
    return [*others[:3], *([f"{len(others) - 3} more"] if len(others) > 3 else [])]


def _order(lines: list[Line]) -> None:
    """Each line's place by each way to sort; ties stand by name."""
    slugs = {card.slug: place for place, card in enumerate(catalog.cards())}
    words = [said for said, _ in _WORDS.values()]

    def share(line: Line) -> float:
        return line.checks[0] / line.checks[1] if line.checks[1] else 0.0

    by_name = sorted(lines, key=lambda line: (line.who.casefold(), slugs.get(line.slug, -1)))
    ways: dict[str, Any] = {
        "n": lambda line: 0,
        "k": lambda line: slugs.get(line.slug, -1),
        "o": lambda line: words.index(line.said) if line.said in words else len(words),
        "c": share,
        "l": lambda line: -len(line.look),
    }
    for way, key in ways.items():
        for place, line in enumerate(sorted(by_name, key=key)):
            line.order[way] = place


def _katas(statistics: Statistics, lines: Sequence[Line]) -> list[Kata]:
    """The katas of which something was judged, in teaching order."""
    there = set(statistics.slugs)
    found = []
    for card in catalog.cards():
        if card.slug in there:
            here = [line for line in lines if line.slug == card.slug and line.marks]
            here.sort(key=lambda line: (-line.checks[0], line.who.casefold()))
            items = statistics.items(card.slug)
            shown = [(line, _cells(line, items)) for line in here]
            found.append(Kata(card, statistics.judged(card.slug), items, shown))
    return found


def _telling(item: Item) -> tuple[str, str]:
    """How well an item tells who can do the kata, and the colour of that."""
    if item.discrimination is None:
        return "–", "soft"
    grade = "bad" if item.discrimination < _WEAK else "good"
    if _WEAK <= item.discrimination < _GOOD:
        grade = "fair"
    return f"{item.discrimination:.2f}".replace("-", "−"), grade


def _prompt(lesson: Lesson) -> str:
    """What the question asks, in a line; empty where its numbers are drawn anew."""
    question = bank.question(lesson.question)
    if question is None or question.numeric is not None:
        return ""
    text = " ".join(markdown(question.prompt, 100_000, False)).replace("`", "")
    return textwrap.shorten(text, _PROMPT_CHARS, placeholder=" …")


def _percent(share: float) -> str:
    return f"{share:.0%}"
