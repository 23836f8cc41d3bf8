"""The mocks that were begun, and their reports, each compared with the finished ones before it."""

from collections.abc import Sequence

from grader.errors import UsageFault
from grader.interview import paper, report, sitting, texts
from grader.interview.report import Report
from grader.store import Store
from grader.store.interviews import Interview


def every() -> list[Interview]:
    """Oldest first."""
    with Store.open(create=False) as store:
        return store.interviews.all()


def numbered(number: int) -> Interview:
    """Raises UsageFault if there is none of that number."""
    known = {interview.number: interview for interview in every()}
    if number not in known:
        there = "`kata mock --list` shows them" if known else "there is none yet"
        raise UsageFault(f"There is no mock {number}: {there}.")
    return known[number]


def unfinished() -> list[Interview]:
    """Those that can be gone on with, oldest first."""
    return [interview for interview in every() if interview.ended is None]


def reports(interviews: Sequence[Interview]) -> list[Report]:
    """Their reports; the last one with texts."""
    found: list[Report] = []
    for interview in interviews:
        theirs = paper.decode(interview.plan)
        state = sitting.state_of(interview, theirs)
        last = texts.read(theirs, state) if interview is interviews[-1] else report.Texts()
        earlier = [past for r in found if (past := report.past(r)) is not None]
        found.append(report.of(interview.number, interview.at, theirs, state, last, earlier))
    return found


def report_of(interview: Interview) -> Report:
    return reports([other for other in every() if other.number <= interview.number])[-1]
