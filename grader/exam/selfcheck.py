"""The suite checks itself: its solution passes, and every catalogued bug fails and is named."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from grader import catalog, content
from grader.errors import KataError
from grader.exam import checks
from grader.exam.examiner import Examiner
from grader.exam.verdict import Outcome, Verdict


@dataclass(frozen=True)
class Finding:
    """One thing verified: the reference (`bug` None), or that a bug is caught and named."""

    slug: str
    bug: str | None
    ok: bool
    message: str = ""


def verify(slugs: list[str], report: Callable[[Finding], None]) -> bool:
    """Check each suite against its solution and its bugs; True if all is as it should be."""
    good = True
    with Examiner() as examiner, checks.strict():
        for slug in slugs:
            for finding in _findings(examiner, slug):
                good = good and finding.ok
                report(finding)
    return good


def _findings(examiner: Examiner, slug: str) -> Iterator[Finding]:
    solution = content.solution(slug).read_text(encoding="utf-8")
    try:
        message = _rejected(examiner.grade(slug, solution.encode()))
    except KataError as error:
        message = str(error)
    yield Finding(slug, None, not message, message)
    for bug in catalog.entry(slug).bugs:
        try:
            wrong = catalog.planted(slug, bug, solution)
            verdict = examiner.grade(slug, wrong.encode(), until_named=True)
            message = _unnamed(verdict, bug.id)
        except KataError as error:
            message = str(error)
        yield Finding(slug, bug.id, not message, message)


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
