"""What a learner is told of a grading, and what never.

Nothing here holds an input, a value, a shape or a line of a suite, at any level: a check's own
message does, the text of an exception may (a file can raise with what it was given), and what
a submission prints too. So none of them is used. What is told comes from the catalogue, from
the rules that `kata show` prints, and from the closed set of kinds of trouble.

`score`: how many checks of each part pass. `named`: also which, with title, symptom and cause of
each mistake found. `full`: also how to mend it, the question that drills it, the rule that is
broken, and in which line of the file which of Python's own exceptions came up.
"""

import builtins
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from grader import catalog
from grader.batch.judged import Judged, bug_of, is_not_run, is_wrong
from grader.batch.records import Result
from grader.exam.verdict import CORE, Check, Kind, Level, Outcome, Part
from grader.harmless import harmless
from grader.practice import contract


class Told(StrEnum):
    """How much."""

    FULL = "full"
    NAMED = "named"
    SCORE = "score"


@dataclass(frozen=True)
class Item:
    """One line of a result, and its points. `text` says what is wrong."""

    name: str
    part: Part | None
    passed: int
    of: int
    text: str = ""

    @property
    def right(self) -> bool:
        return self.passed == self.of


_KINDS = {
    Kind.IMPORT: "The file cannot be loaded.",
    Kind.MISSING: "The file does not define what the kata asks for.",
    Kind.TIMEOUT: "It takes longer than is allowed.",
    Kind.MEMORY: "It takes more memory than is allowed.",
    Kind.CRASH: "It ends the process that it runs in, or answers what cannot be read.",
    Kind.OUTPUT: "It prints more than is allowed.",
    Kind.BREAKPOINT: "It stops at a breakpoint.",
}
_TAMPERED = "It replaces something in torch or in Python that the checks rely on."
_SYNTAX_CHARS = 300
_LOADING = "The file cannot be loaded.\n"
_RAISED = re.compile(r"([A-Za-z_]\w*)(?=:|\n)")
_LACKING = re.compile(
    r"^ModuleNotFoundError: No module named '([A-Za-z_][\w.]{0,60})'", re.MULTILINE
)
_AT = re.compile(r"^  line (\d{1,7}), in ", re.MULTILINE)


def items(one: Judged, told: Told) -> list[Item]:
    """What is told of a submission, in the suite's order: checks, or with `score` the parts.

    Where no check says why it has not passed, an item without a part does: nothing could be
    judged, it tampered with what judges it, or it came to its end after the last check.
    """
    if one.tampered or all(map(is_not_run, one.checks)):
        return [Item("graded", None, 0, one.points[1], trouble(one, told))]
    made = [check for check in one.checks if check.outcome is not Outcome.SKIPPED]
    if told is Told.SCORE:
        found = [*_by_part(made)]
    else:
        found = [
            Item(words(check), check.part, int(not is_wrong(check)), 1, about(one, check, told))
            for check in made
        ]
    if one.outcome is not Result.PASSED and all(item.right for item in found):
        found.append(Item("graded", None, 0, 1, trouble(one, told)))
    return found


def _by_part(made: Sequence[Check]) -> Iterator[Item]:
    for part in Part:
        here = [check for check in made if check.part is part]
        if here:
            yield Item(part.value, part, sum(not is_wrong(c) for c in here), len(here))


def words(check: Check) -> str:
    return check.name.replace("_", " ")


def summary(one: Judged) -> str:
    """Passed or how far, in one plain sentence."""
    passed, of = one.points
    count = f"{passed} of {of} checks pass"
    match one.outcome:
        case Result.PASSED:
            return f"Passed: all {of} checks pass."
        case Result.UNSTABLE:
            return f"Not passed: it passes for some inputs only; {count} for all."
        case Result.FAILED if one.missing:
            return "Not handed in."
        case Result.REFUSED | Result.OPEN:
            return "Not graded."
    if one.unwritten:
        return "Not passed: nothing is written in it yet."
    core = ", the core is complete" if one.level is Level.CORE else ""
    return f"Not passed: {count}{core}."


def trouble(one: Judged, told: Told) -> str:
    """Why a submission could not be judged as a whole; empty if it could."""
    if one.missing:
        return "Not handed in."
    if one.tampered:
        return _TAMPERED
    if one.row.submission.trouble:  # what was handed in, before any of it ran
        return one.row.submission.trouble
    if one.trouble:
        return "The grader gave up on it."
    error = one.error
    if error is None or told is Told.SCORE:
        return "" if error is None else "It could not be judged as a whole."
    if error.kind is Kind.SYNTAX:  # from its text alone
        return error.message[:_SYNTAX_CHARS]
    text = _KINDS[error.kind]
    if error.kind is Kind.MISSING and one.slug:
        text += f" It is to define {', '.join(catalog.card(one.slug).defines)}."
    # While it is loaded nothing has been given to it that its words could tell.
    if error.kind is Kind.IMPORT and (lacking := _LACKING.search(error.message)):
        text += f" It imports `{lacking[1]}`, which is not there: a submission is one file."
    where = _where(error.message.removeprefix(_LOADING)) if told is Told.FULL else ""
    return f"{text} {where}".strip()


def about(one: Judged, check: Check, told: Told) -> str:
    """What is told of one check; empty if it passes."""
    if not is_wrong(check) or told is Told.SCORE:
        return ""
    if is_not_run(check):
        return "Not run."
    lines = []
    bug = bug_of(one.slug, check.bug)
    if bug is not None:
        lines += [f"{bug.title}.", *_known(bug, told)]
    if told is Told.FULL:
        rule = _rules(one.slug).get(check.name)
        lines += [f"Rule: {rule}"] if rule else []
        said = check.message.removeprefix(f"{bug.title}: " if bug else "")
        lines += [where] if (where := _where(said)) else []
    if check.name in one.unsteady:
        lines.append("For some inputs it passes.")
    return "\n".join(lines) or "Not as it should be."


def document(one: Judged, told: Told) -> str:
    """All that a learner is told of one submission, as Markdown."""
    lines = [f"# {one.slug or _plain(one.who)}", "", _plain(summary(one))]
    wrong = trouble(one, told)
    if wrong and wrong not in lines:
        lines += ["", _plain(wrong)]
    parts = [item for item in items(one, Told.SCORE) if item.part is not None]
    if not parts:
        return "\n".join(lines) + "\n"
    lines += ["", "| part | checks that pass |", "| --- | --- |"]
    lines += [
        f"| {item.name}{' (core)' if item.part in CORE else ''} | {item.passed} of {item.of} |"
        for item in parts
    ]
    if told is not Told.SCORE and not one.unwritten:
        lines += _mistakes(one, told)
    return "\n".join(lines) + "\n"


def _mistakes(one: Judged, told: Told) -> Iterator[str]:
    """Each named mistake once, with the checks that show it, and the other checks that fail."""
    named: dict[str, list[Check]] = {}
    others = []
    for check in one.checks:
        if is_wrong(check) and not is_not_run(check):
            known = bug_of(one.slug, check.bug)
            named.setdefault(known.id, []).append(check) if known else others.append(check)
    for id, some in named.items():
        bug = bug_of(one.slug, id)
        assert bug is not None
        yield from ("", f"## {_ours(bug.title)}", "")
        yield from (f"- {_ours(line)}" for line in _known(bug, told))
        yield f"- Shown by {_listed(some)}."
    if others:
        yield from ("", f"## {'Also not passed' if named else 'Not passed'}", "")
        for check in others:
            text = f"{check.part}: {words(check)}"
            if told is Told.FULL:
                said = about(one, check, told).replace("\n", " ")
                text += f". {said}"
            yield f"- {_ours(text)}"
    left = sum(map(is_not_run, one.checks))
    if left:
        yield from ("", f"{left} {'check was' if left == 1 else 'checks were'} not run.")


def _known(bug: catalog.Bug, told: Told) -> Iterator[str]:
    """What the catalogue tells of a mistake, a line each."""
    yield f"Shows as: {_line(bug.symptom)}"
    yield f"Why: {_line(bug.cause)}"
    if told is Told.FULL:
        yield f"Mend: {_line(bug.fix)}"
        if bug.question:
            yield f"Drill: kata quiz --ask {bug.question}"


def _where(message: str) -> str:
    """Which of Python's exceptions came up, and in which line of the file: no word of its text."""
    lines = _AT.findall(message)
    if not lines:
        return ""
    raised = _RAISED.match(message)
    known = raised is not None and _is_exception(raised[1])
    return f"{raised[1] if raised and known else 'An exception'} in line {lines[-1]}."


def _is_exception(name: str) -> bool:
    known = getattr(builtins, name, None)
    return isinstance(known, type) and issubclass(known, BaseException)


@cache
def _rules(slug: str) -> dict[str, str]:
    return contract.promises(slug)


def _listed(some: Sequence[Check]) -> str:
    return ", ".join(f"{check.part}: {words(check)}" for check in some)


def _line(text: str) -> str:
    return " ".join(harmless(text).split())


def _plain(text: str) -> str:
    """The text as Markdown that says it, whatever stands in it."""
    return re.sub(r"([\\`*_{}\[\]<>#|~!&$])", r"\\\1", _line(text))


def _ours(text: str) -> str:
    """A text of the catalogue or of a rule as Markdown: what stands between ` is code."""
    parts = _line(text).split("`")
    return "`".join(
        part if at % 2 else re.sub(r"([\\*<\[])", r"\\\1", part) for at, part in enumerate(parts)
    )
