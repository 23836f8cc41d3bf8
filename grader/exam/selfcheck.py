"""The suite checks itself: its solution passes, every catalogued bug fails and is named, and small
edits of the solution fail."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from grader import catalog, content
from grader.errors import KataError
from grader.exam import checks, mutants
from grader.exam.examiner import Examiner
from grader.exam.nursery import cores
from grader.exam.verdict import Outcome, Verdict

T = TypeVar("T")

_SEED = 11  # of edits: which of them show must not depend on the draw


@dataclass(frozen=True)
class Finding:
    """One thing verified: the reference (`bug` None), or that a bug is caught and named."""

    slug: str
    bug: str | None
    ok: bool
    message: str = ""


@dataclass(frozen=True)
class Mutated:
    """What a suite made of the edits of its solution: how many were made, caught and caught with a
    name; how many pass as the catalogue says; which others pass; which entries fit no edit."""

    slug: str
    made: int
    caught: int
    named: int
    spared: int
    survivors: tuple[str, ...]
    stale: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.survivors and not self.stale


def each(check: Callable[[str, Examiner], T], slugs: Sequence[str]) -> Iterator[T]:
    """check(slug, examiner) of every slug, in this order: side by side, one examiner a core.

    The examiners also hold each known mistake apart from what is right.
    """
    processes = multiprocessing.get_context("fork")  # torch is imported once, here
    with processes.Pool(min(len(slugs), cores()), _begin) as pool:
        yield from pool.imap(_Asked(check), slugs)


def _begin() -> None:
    """A process of `each` begins. Ctrl-C is for the first of us, who ends all."""
    global _examiner
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _examiner = Examiner()


_examiner: Examiner


@dataclass(frozen=True)
class _Asked(Generic[T]):
    check: Callable[[str, Examiner], T]

    def __call__(self, slug: str) -> T:
        with checks.strict():
            return self.check(slug, _examiner)


def verify(slug: str, examiner: Examiner) -> list[Finding]:
    """Check a suite against its solution and its bugs."""
    solution = content.solution(slug).read_text(encoding="utf-8")
    try:
        message = _rejected(examiner.grade(slug, solution.encode()))
    except KataError as error:
        message = str(error)
    found = [Finding(slug, None, not message, message)]
    for bug in catalog.entry(slug).bugs:
        try:
            wrong = catalog.planted(slug, bug, solution)
            verdict = examiner.grade(slug, wrong.encode(), until_named=True)
            message = _unnamed(verdict, bug.id)
        except KataError as error:
            message = str(error)
        found.append(Finding(slug, bug.id, not message, message))
    return found


def mutate(slug: str, examiner: Examiner) -> Mutated:
    """Check a suite against every small edit of its solution."""
    spared = {known.edit for known in catalog.entry(slug).spared}
    made = caught = named = 0
    passing: list[str] = []
    for mutant in mutants.of(content.solution(slug).read_text(encoding="utf-8")):
        made += 1
        verdict = examiner.grade(slug, mutant.source.encode(), seed=_SEED, until_named=True)
        if verdict.passed:
            passing.append(mutant.edit)
        else:
            caught += 1
            named += any(check.bug for check in verdict.checks)
    return Mutated(
        slug=slug,
        made=made,
        caught=caught,
        named=named,
        spared=sum(edit in spared for edit in passing),
        survivors=tuple(edit for edit in passing if edit not in spared),
        stale=tuple(sorted(spared - set(passing))),
    )


def _rejected(verdict: Verdict) -> str:
    if verdict.passed:
        return ""
    if verdict.error is not None:
        return f"the solution: {verdict.error.message}"
    wrong = [c for c in verdict.checks if c.outcome not in (Outcome.PASSED, Outcome.SKIPPED)]
    return "; ".join(f"the solution fails {c.name}: {c.message}" for c in wrong)


def _unnamed(verdict: Verdict, bug: str) -> str:
    if verdict.passed:
        return "the suite passes it"
    named = next((check.bug for check in verdict.checks if check.bug is not None), None)
    if named is None:
        failing = [c.name for c in verdict.checks if c.outcome not in ("passed", "skipped")]
        return f"fails ({', '.join(failing[:4])}) but is not named"
    # What the screen shows first is what the learner acts on.
    return "" if named == bug else f"is first called {named}"
