"""hint: the next of the ladder, noted as seen."""

import click

from grader import catalog
from grader.catalog import Bug
from grader.cli import common, terminal
from grader.exam.verdict import Verdict
from grader.practice import clock, work
from grader.store import Store
from grader.views import mistake
from grader.views.plain import wrapped


@click.command("hint")
@common.slug_or_current
def hint_command(slug: str) -> None:
    """The next hint for SLUG, or the current kata; a new round begins the ladder anew.

    It begins with what failed last. The ladder ends with how to mend that, if it was named.
    """
    terminal.say(*next_hint(slug))


def next_hint(slug: str) -> list[str]:
    """The lines of the next rung, which is noted as seen."""
    known = catalog.entry(slug)
    now = clock.now()
    with Store.open(create=True) as store, store.transaction():
        work.on_kata(store, slug, now)
        last = store.attempts.last_verdict(slug)
        bug = _named(last, known)
        hints = [*known.hints, *([bug.fix] if bug else [])]
        rung = store.attempts.next_hint(slug, len(hints), now)
    texts = []
    if last is not None and (failed := _failed(last, bug)):
        texts.append(f"Your last run: {failed}")
    if bug is not None and bug.question is not None:
        texts.append(f"It is drilled by `{mistake.drilled(bug.question)}`.")
    if rung is not None:
        texts.append(f"Hint {rung} of {len(hints)}: {hints[rung - 1]}")
    else:
        texts += [f"{number}. {text}" for number, text in enumerate(hints, 1)]
        texts.append(f"These were all. `kata solution {slug}` shows the reference.")
    return [line for text in texts for line in wrapped(text, terminal.width())]


def _named(last: Verdict | None, known: catalog.Entry) -> Bug | None:
    """The mistake that the last attempt's page led with."""
    if last is None or last.headline is None:
        return None
    return known.known(last.checks[last.headline].bug)


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
    return f"{check.part}: {check.brief}"
