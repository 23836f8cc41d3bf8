"""A round of a kata begins at the blank stub; a kept version comes back into it, and the reference
may be looked at."""

from dataclasses import dataclass

from grader.errors import UsageFault
from grader.practice import clock, current, stubs, work
from grader.practice.workspace import Workspace, put
from grader.store import Store
from grader.store.attempts import Reason, Snapshot


@dataclass(frozen=True)
class Restored:
    """`kept` is what stood in the file, if that was something; `stopped` whether the version is
    older than the round, whose time is not taken any more then."""

    kept: Snapshot | None
    stopped: bool


def begin(slug: str, space: Workspace, reason: Reason) -> Snapshot | None:
    """The stub in place of what is there, and a new round; what was kept, if something was."""
    path = space.path(slug)
    now = clock.now()
    with Store.open(create=True) as store:
        kept = put(path, slug, stubs.stub(slug).encode(), reason, store.attempts, now)
        store.attempts.begin_round(slug, now)
        current.make(store, slug, space)
    return kept


def restore(slug: str, number: int, space: Workspace) -> Restored:
    """Version `number` in place of what is there. Raises UsageFault if there is no such one."""
    path = space.path(slug)
    with Store.open(create=False) as store:
        known = {snapshot.number: snapshot for snapshot in store.attempts.snapshots(slug)}
    if number not in known:
        there = f"`kata history {slug}` shows 1 to {max(known)}" if known else "none is kept yet"
        raise UsageFault(f"{slug} has no version {number}: {there}.")
    with Store.open(create=True) as store:
        kept = put(path, slug, known[number].source, Reason.RESTORE, store.attempts, clock.now())
        stopped = store.attempts.untime_round(slug, known[number])
    return Restored(kept, stopped)


def saw_solution(store: Store, slug: str) -> None:
    """The learner looks at the reference now."""
    now = clock.now()
    with store.transaction():
        work.on_kata(store, slug, now)
        store.attempts.saw_solution(slug, now)
