"""hint: the next of the ladder, noted as seen."""

import click

from grader import catalog
from grader.catalog import Bug
from grader.cli import common, terminal
from grader.exam.verdict import Verdict
from grader.practice import clock
from grader.store import Store


@click.command("hint")
@common.slug_or_current
def hint_command(slug: str) -> None:
    """The next hint for SLUG, or the current kata; a new round begins the ladder anew.

    It begins with what failed last. The ladder ends with how to mend that, if it was named.
    """
    known = catalog.entry(slug)
    with Store.open(create=True) as store:
        last = store.attempts.last_verdict(slug)
        bug = _named(last, known)
        hints = [*known.hints, *([bug.fix] if bug else [])]
        rung = store.attempts.next_hint(slug, len(hints), clock.now())
    if last is not None and (failed := _failed(last, bug)):
        terminal.tell(f"Your last run: {failed}")
    if rung is not None:
        terminal.tell(f"Hint {rung} of {len(hints)}: {hints[rung - 1]}")
        return
    for number, text in enumerate(hints, 1):
        terminal.tell(f"{number}. {text}")
    terminal.say("", f"These were all. `kata solution {slug}` shows the reference.")


def _named(last: Verdict | None, known: catalog.Entry) -> Bug | None:
    """The mistake that the last attempt's page led with."""
    if last is None or last.headline is None:
        return None
    name = last.checks[last.headline].bug
    return next((bug for bug in known.bugs if bug.id == name), None)


def _failed(last: Verdict, bug: Bug | None) -> str:
    """What was wrong with the last attempt, in a sentence; nothing where it says nothing."""
    if last.passed or not last.started:
        return ""
    if last.error is not None:
        return f"{last.error.kind}: {last.error.message}"
    if bug is not None:
        return f"{bug.title}."
    if last.headline is None:
        return ""
    check = last.checks[last.headline]
    return f"{check.part}: {' '.join(check.message.split())}"
