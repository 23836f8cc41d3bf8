"""What has its date on the way to an interview: mock interviews, and bug hunts between them.

Counted back from the interview, mocks stand 2 and 6 days before it and every seventh day before
that: the last is not on the eve, so that two days are left to mend what it shows. Hunts stand 4 and
8 days before, and then three days before each mock. Nothing stands on the plan's first day, when
there is nothing yet to be asked about. A mock takes 45 minutes, or the day's if these are fewer; a
hunt 8. One that was missed moves to today, unless the next of its kind is as near as tomorrow, or
it is too late for any. Pure.
"""

from collections.abc import Iterable
from datetime import date, timedelta

from grader.practice.plan import HUNT, MOCK, Plan, Stop

_BEFORE = {MOCK: (2, 6), HUNT: (4, 8)}  # days before the interview
_WEEKLY = {MOCK: 13, HUNT: 16}  # from here on every seventh
_EARLY = {MOCK: 2, HUNT: 1}  # done so many days early it counts as done
_DAY = timedelta(days=1)


def ahead(plan: Plan, today: date, mocks: Iterable[date], hunts: Iterable[date]) -> list[Stop]:
    """What is to come, today's included, by date. `mocks`, `hunts`: the days on which some were
    held since the plan was made."""
    mocks = list(mocks)
    found = _open(plan, MOCK, today, mocks)
    busy = {*mocks, *(stop.day for stop in found)}
    found += [stop for stop in _open(plan, HUNT, today, hunts) if stop.day not in busy]
    return sorted(found, key=lambda stop: stop.day)


def _open(plan: Plan, kind: str, today: date, held: Iterable[date]) -> list[Stop]:
    """Those of one kind that are not done, the missed ones moved."""
    left, missed = [], False
    days = sorted(held)
    for day in _dates(plan, kind, today):
        done = next((one for one in days if one >= day - _EARLY[kind] * _DAY), None)
        if done is not None:
            days.remove(done)
        elif day < today:
            missed = True
        else:
            left.append(Stop(kind, day))
    nearest = min((stop.day for stop in left), default=plan.interview)
    late = today > plan.interview - min(_BEFORE[kind]) * _DAY
    if missed and not late and nearest > today + _DAY:
        left.insert(0, Stop(kind, today))
    return left


def _dates(plan: Plan, kind: str, today: date) -> list[date]:
    """All dates of one kind since the plan was made, in order."""
    first = plan.made or today - _DAY
    far = (plan.interview - first).days
    before = [*_BEFORE[kind], *range(_WEEKLY[kind], far, 7)]
    return [plan.interview - days * _DAY for days in reversed(before) if days < far]
