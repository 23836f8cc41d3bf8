"""One grading as one screen."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

from grader.catalog import Bug, Card
from grader.exam.verdict import CORE, Check, Kind, Level, Outcome, Part, Verdict
from grader.views import difference, mistake
from grader.views.plain import clock, counted, paint, paragraphs, wrapped

_SHOWN_FAILURES = 2
_FOLDED = 1  # rows that the last line, which is not wrapped here, may take beside its first
_SHOWN_LINES = 8
_SHOWN_OUTPUT = 5
_SHOWN_NAMES = 4
_TWO_COLUMNS, _COLUMN = 76, 36


@dataclass(frozen=True)
class Around:
    """What the screen says beside the verdict. Times in seconds. elapsed_s: the time on task;
    best_s: the shortest before this one; questions: ids of some on what was written; more: how to
    mend it, and where arrays differ; rows: what the screen has room for, if it is one."""

    card: Card
    bugs: dict[str, Bug]
    file: str
    attempt: int | None = None
    elapsed_s: float | None = None
    best_s: float | None = None
    next_slug: str | None = None
    due_again: str | None = None
    questions: Sequence[str] = ()
    more: bool = False
    rows: int | None = None


class Score(NamedTuple):
    """How far a part is: a mark, how many of its checks passed, a word, and its style."""

    mark: str
    part: Part
    passed: int
    checks: int
    word: str
    style: str


def page(verdict: Verdict, around: Around, width: int, colour: bool) -> list[str]:
    """The verdict: parts, first failures with their diagnosis, what to do next. On a screen too low
    for that it is one failure, then with the rest as a number, unless more is asked for: how far
    the parts are stays in sight."""
    ink = _Ink(width, colour)
    head = [ink.paint(verdict.slug, "bold") + ink.paint(f" · {around.file}", "dim")]
    if verdict.error is not None:
        head.append("")
    end = ["", *_footer(verdict, around, ink)]
    for failures, named in ((_SHOWN_FAILURES, True), (1, True), (1, False)):
        found = findings(verdict, around, width, colour, failures, named)
        lines = [*head, *found, *end]
        if around.rows is None or around.more or len(lines) + _FOLDED <= around.rows:
            break
    return lines


def findings(
    verdict: Verdict,
    around: Around,
    width: int,
    colour: bool,
    failures: int = _SHOWN_FAILURES,
    named: bool = True,
) -> list[str]:
    """How far each part is, so many failures with their diagnosis, the rest by name or as a number,
    and what was printed."""
    ink = _Ink(width, colour)
    lines = [*standing(verdict, width, colour), *_failures(verdict, around, ink, failures, named)]
    return lines if verdict.passed else [*lines, *_output(verdict, ink)]


def in_a_line(verdict: Verdict, width: int, colour: bool) -> str:
    """The verdict among others: whether it passed, or what came first of what did not."""
    mark, word, style = "✓", "passed", "green"
    if not verdict.passed:
        mark, word, style = "✗", "core complete", "yellow"
        if not verdict.started:
            mark, word = "·", "not started"
        elif verdict.error is not None:
            word, style = f"{verdict.error.kind}: {verdict.error.message}", "red"
        elif verdict.headline is not None:
            check = verdict.checks[verdict.headline]
            style = "yellow" if verdict.level is Level.CORE else "red"
            word = f"{check.part}: {check.message}"
    text = f"{mark} {verdict.slug:24} {' '.join(word.split())}"
    return paint(text if len(text) <= width else f"{text[: width - 1]}…", style, colour)


def standing(verdict: Verdict, width: int, colour: bool) -> list[str]:
    """What kept the file from being judged, or how far each part is: nothing of what is wrong."""
    ink, lines = _Ink(width, colour), []
    if verdict.error is not None:
        lines = ink.text(f"{verdict.error.kind.upper()}: {verdict.error.message}", "red")
    if verdict.error is None or any(c.outcome is not Outcome.ERROR for c in verdict.checks):
        lines += _parts(verdict, ink)
    return lines


def names(checks: Sequence[Check]) -> str:
    """Checks by part and name, the first few."""
    shown = ", ".join(f"{c.part}: {c.name.replace('_', ' ')}" for c in checks[:_SHOWN_NAMES])
    rest = len(checks) - _SHOWN_NAMES
    return f"{shown} and {rest} more" if rest > 0 else shown


@dataclass(frozen=True)
class _Ink:
    width: int
    colour: bool

    def paint(self, text: str, style: str) -> str:
        return paint(text, style, self.colour)

    def text(self, text: str, style: str = "", indent: str = "") -> list[str]:
        """Wrapped and painted, each line of the text for itself."""
        return [self.paint(line, style) for line in paragraphs(text, self.width, indent)]


def _parts(verdict: Verdict, ink: _Ink) -> list[str]:
    """A line for each part: the core and, beside it where there is room, the follow-ups."""
    core, rest = (
        [(f"{s.mark} {s.part:8} {f'{s.passed}/{s.checks}':>5}  {s.word}", s.style) for s in some]
        for some in (
            scores(verdict, [part for part in Part if part in CORE]),
            scores(verdict, [part for part in Part if part not in CORE]),
        )
    )
    if ink.width < _TWO_COLUMNS:
        return [ink.paint(f"  {text}", style) for text, style in core + rest]
    lines = []
    for (left, style), (right, other) in zip_longest(core, rest, fillvalue=("", "")):
        second = ink.paint(right, other) if right else ""
        lines.append(f"  {ink.paint(f'{left:{_COLUMN}}', style)}{second}".rstrip())
    return lines


def scores(verdict: Verdict, parts: Sequence[Part]) -> list[Score]:
    """How far each of these parts is that there is."""
    found = []
    for part in parts:
        checks = [c for c in verdict.checks if c.part is part]
        if not checks:
            continue
        passed = sum(c.outcome is Outcome.PASSED for c in checks)
        if all(c.outcome is Outcome.SKIPPED for c in checks):
            why = checks[0].message.removesuffix(" on this machine.")
            mark, word, style = "–", f"skipped: {why}", "dim"
        elif passed == len(checks):
            mark, word, style = "✓", "passed", "green"
        elif not any(c.started for c in checks if c.outcome is not Outcome.PASSED):
            mark, word, style = "·", "not started", "yellow"
        else:
            mark, word, style = "✗", "failed", "red"
        found.append(Score(mark, part, passed, len(checks), word, style))
    return found


def failures(verdict: Verdict) -> list[Check]:
    """The failed checks to speak of, what says most first, one for each mistake or cause."""
    return [verdict.checks[at] for at in verdict.distinct]


def _failures(verdict: Verdict, around: Around, ink: _Ink, most: int, named: bool) -> list[str]:
    failed = [c for c in verdict.checks if c.outcome is Outcome.FAILED and c.started]
    shown = failures(verdict)[:most]
    lines, drilled = [], False
    for check in shown:
        lines += ["", f"{ink.paint(check.part, 'bold')}: {check.name.replace('_', ' ')}"]
        lines += ink.text("\n".join(check.message.splitlines()[:_SHOWN_LINES]), indent="  ")
        if check.bug in around.bugs:
            bug = around.bugs[check.bug]
            drill = not drilled and bug.question is not None  # one at a time, the first
            lines += mistake.lines(bug, ink.width, ink.colour, mend=around.more, drill=drill)
            drilled = drilled or drill
        if around.more and check.difference is not None:
            lines += difference.lines(check.difference, ink.width, ink.colour)
    rest = [check for check in failed if check not in shown]
    if rest:
        what = names(rest) if named else counted(len(rest), "check")
        also = f"Also failed, perhaps for the same reason: {what}."
        lines += ["", *ink.text(also, "dim")]
    return lines


def _output(verdict: Verdict, ink: _Ink) -> list[str]:
    """What the check that the page leads with has printed, or else what loading the file has."""
    leading = verdict.checks[verdict.headline].printed if verdict.headline is not None else ""
    lines: list[str] = []
    for text, where in ((leading, "in that check"), (verdict.output, "while it was loaded")):
        printed = text.rstrip().splitlines()
        if not printed:
            continue
        lines += ["", ink.paint(f"It printed {where}:", "bold")]
        lines += [ink.paint(f"  {line[:200]}", "dim") for line in printed[:_SHOWN_OUTPUT]]
        if len(printed) > _SHOWN_OUTPUT:
            more = counted(len(printed) - _SHOWN_OUTPUT, "more line")
            lines.append(ink.paint(f"  and {more}", "dim"))
    return lines


def facts(verdict: Verdict, around: Around) -> list[str]:
    """Attempt, times, and when it is due again."""
    told = [f"graded in {verdict.seconds:.2f} s"]
    if around.attempt is not None:
        told.insert(0, f"attempt {around.attempt}")
    if around.elapsed_s is not None:
        told.append(f"{clock(around.elapsed_s)} on task (par {around.card.minutes} min)")
    if around.best_s is not None and verdict.passed:
        told.append(f"best before {clock(around.best_s)}")
    if around.due_again is not None:
        told.append(f"due again {around.due_again}")
    if not verdict.passed:
        told.append(f"--seed {verdict.seed} replays it")
    return told


def _footer(verdict: Verdict, around: Around, ink: _Ink) -> list[str]:
    slug = verdict.slug
    told = (fact.replace(" ", "\u00a0") for fact in facts(verdict, around))
    whole = " · ".join(told)  # a fact stays on its line
    lines = [line.replace("\u00a0", " ").removesuffix(" ·") for line in wrapped(whole, ink.width)]
    lines = [ink.paint(line, "dim") for line in lines]
    mark, word, style = conclusion(verdict)
    said = ink.paint(f"{mark} {slug}: {word}.", style)
    if verdict.passed:
        after = f"`kata next` ({around.next_slug})" if around.next_slug else "`kata list`"
        if verdict.only:
            after = f"`kata run {slug}`, all of it"
        if around.attempt is not None and not verdict.only:
            more = ["What the reference does otherwise: `kata solution --diff`."]
            if around.questions:
                more.append(f"Asked about it, `kata quiz --ask ID`: {', '.join(around.questions)}.")
            lines += [line for text in more for line in wrapped(text, ink.width)]
    elif not verdict.started:
        after = f"`kata show {slug}`, then edit the file and run it again"
    elif verdict.level is Level.CORE and verdict.error is None:
        after = f"mend it, then `kata run {slug}`"
    else:
        after = f"mend it, or `kata hint {slug}`"
        if verdict.error is not None and verdict.error.kind is Kind.BREAKPOINT:
            after = f"`kata debug {slug}`"
    return [*lines, f"{said} Next: {after}."]


def conclusion(verdict: Verdict) -> tuple[str, str, str]:
    """A mark, the verdict in a few words, and their style."""
    if verdict.passed and verdict.only:
        return "✓", f"{alone(verdict.only, verdict.check)} passed", "bold green"
    if verdict.passed:
        return "✓", "passed, complete", "bold green"
    if not verdict.started:
        return "·", "not started", "bold yellow"
    if verdict.level is Level.CORE and verdict.error is None:
        left, of = _follow_ups(verdict)
        return "✗", f"core complete, {left} of {of} follow-ups left", "bold yellow"
    if verdict.error is not None and verdict.error.kind is Kind.BREAKPOINT:
        return "✗", "not judged", "bold yellow"
    return "✗", "not passed", "bold red"


def alone(part: str, check: str | None) -> str:
    """What of a suite was run, where it was not all: part merge, check merge keeps the output."""
    return f"check {check.replace('_', ' ')}" if check else f"part {part}"


def _follow_ups(verdict: Verdict) -> tuple[int, int]:
    """How many of the parts beyond the core are not passed yet, and of how many."""
    ran = [c for c in verdict.checks if c.part not in CORE and c.outcome is not Outcome.SKIPPED]
    left = {c.part for c in ran if c.outcome is not Outcome.PASSED}
    return len(left), len({c.part for c in ran})
