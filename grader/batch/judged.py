"""A submission with what its gradings say together: each check in the worst of its draws."""

from collections.abc import Iterator
from functools import cache, cached_property
from itertools import groupby

import msgspec

from grader import catalog
from grader.batch.records import Results, Row
from grader.exam.verdict import Check, Level, Outcome, Part, Trouble, Verdict
from grader.practice import contract
from grader.store.results import NOT_RUN, counts_here

_NOT_STARTED = "Not started yet."  # what the examiner says of a check that has met the stub
_LEVELS = (Level.NONE, Level.CORE, Level.COMPLETE)


class Judged:
    """One row, its verdicts read."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.who, self.slug = row.submission.who, row.submission.slug
        self.outcome, self.trouble = row.outcome, row.trouble
        self.verdicts = tuple(
            msgspec.json.decode(grading.verdict, type=Verdict) for grading in row.gradings
        )
        self.tampered, self.marks = row.tampered, row.marks

    @property
    def missing(self) -> bool:
        """Whether nothing was handed in."""
        return not self.row.submission.file

    @property
    def unwritten(self) -> bool:
        """Whether it is the stub still: no check has met anything else."""
        failed = self.failed
        return bool(failed) and all(check.message == _NOT_STARTED for check in failed)

    @cached_property
    def checks(self) -> tuple[Check, ...]:
        """Each check as it stands in the draw in which it came out worst; empty if none ran."""
        by_name: dict[str, list[Check]] = {}
        for verdict in self.verdicts:
            for check in verdict.checks:
                by_name.setdefault(check.name, []).append(check)
        return tuple(max(alike, key=_badness) for alike in by_name.values())

    @property
    def failed(self) -> list[Check]:
        """The checks that ran and did not pass, those that name a mistake first."""
        wrong = [check for check in self.checks if is_wrong(check) and not is_not_run(check)]
        return sorted(wrong, key=lambda check: check.bug is None)

    @cached_property
    def unsteady(self) -> frozenset[str]:
        """The names of checks that pass for some draws only."""
        seen: dict[str, set[bool]] = {}
        for verdict in self.verdicts:
            for check in verdict.checks:
                seen.setdefault(check.name, set()).add(is_wrong(check))
        return frozenset(name for name, both in seen.items() if len(both) > 1)

    @property
    def error(self) -> Trouble | None:
        """What kept it from being judged as a whole, in the first draw where something did."""
        return next((v.error for v in self.verdicts if v.error is not None), None)

    @property
    def level(self) -> Level:
        """How far it is in the worst of its draws."""
        return min((v.level for v in self.verdicts), key=_LEVELS.index, default=Level.NONE)

    @property
    def points(self) -> tuple[int, int]:
        """How many checks pass for every draw, and of how many that there are on this machine."""
        made = [check for check in self.checks if counts_here(check)]
        if not any(check.outcome is not Outcome.ERROR for check in made):
            return 0, possible(self.slug)
        return sum(not is_wrong(check) for check in made), len(made)

    @property
    def bugs(self) -> tuple[str, ...]:
        """The named mistakes, each once, in the order of the checks that found them; those that
        the catalogue has no more are left out."""
        return tuple(bug for bug in self.row.bugs if bug_of(self.slug, bug) is not None)

    @property
    def seconds(self) -> float:
        return sum(verdict.seconds for verdict in self.verdicts)


def each(results: Results) -> Iterator[Judged]:
    """All of the latest run, in its order, one read after another."""
    return map(Judged, results.rows())


def people(results: Results) -> Iterator[tuple[str, list[Judged]]]:
    """The same by person, whose rows follow one another."""
    for who, some in groupby(each(results), key=lambda one: one.who):
        yield who, list(some)


def is_wrong(check: Check) -> bool:
    return check.outcome not in (Outcome.PASSED, Outcome.SKIPPED)


def is_not_run(check: Check) -> bool:
    """Whether a check was not made, for what an earlier one met or since the file cannot load."""
    return check.outcome is Outcome.ERROR and check.message.startswith(NOT_RUN)


def bug_of(slug: str, bug: str | None) -> catalog.Bug | None:
    """The mistake of this id, if the catalogue has it."""
    if not slug or bug is None:
        return None
    return next((known for known in catalog.entry(slug).bugs if known.id == bug), None)


@cache
def possible(slug: str) -> int:
    """How many checks a kata has without those that need an accelerator."""
    if not slug:
        return 1
    return sum(len(rules) for part, rules in contract.rules(slug).items() if part is not Part.GPU)


def _badness(check: Check) -> tuple[bool, bool, bool]:
    """A failure that says more comes out before one that says less."""
    return is_wrong(check), check.bug is not None, check.outcome is Outcome.FAILED
