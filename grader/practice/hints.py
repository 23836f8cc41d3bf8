"""The ladder of hints: the catalogue's, then how to mend the mistake that the last run named."""

from dataclasses import dataclass

from grader import catalog
from grader.catalog import Bug
from grader.exam.verdict import Verdict
from grader.practice import clock, work
from grader.store import Store


@dataclass(frozen=True)
class Ladder:
    """`rungs` in order, of which `seen` were seen in this round. `failed` says in a sentence what
    was wrong with the last attempt ("" if nothing was), `bug` is the mistake that it named."""

    rungs: tuple[str, ...]
    seen: int
    failed: str
    bug: Bug | None


def ladder(store: Store, slug: str) -> Ladder:
    """How it stands now."""
    known = catalog.entry(slug)
    last = store.attempts.last_verdict(slug)
    bug = None
    if last is not None and last.headline is not None:
        bug = known.known(last.checks[last.headline].bug)
    rungs = (*known.hints, *([bug.fix] if bug else []))
    failed = "" if last is None else _failed(last, bug)
    return Ladder(rungs, min(store.attempts.hints_seen(slug), len(rungs)), failed, bug)


def climb(slug: str, rung: int | None = None) -> tuple[Ladder, int | None]:
    """The ladder and its next rung, from 1, which is noted as seen; None when all have been, or it
    is another than the `rung` that was asked for."""
    now = clock.now()
    with Store.open(create=True) as store, store.transaction():
        work.on_kata(store, slug, now)
        found = ladder(store, slug)
        if rung is not None and rung != found.seen + 1:
            return found, None
        return found, store.attempts.next_hint(slug, len(found.rungs), now)


def _failed(last: Verdict, bug: Bug | None) -> str:
    if last.passed or not last.started:
        return ""
    if last.error is not None:
        return f"{last.error.kind}: {last.error.message}"
    if bug is not None:
        return f"{bug.title}."
    if last.headline is None:
        return ""
    check = last.checks[last.headline]
    return f"{check.part}: {check.brief}"
