"""hint: the next of the ladder, noted as seen."""

import click

from grader import catalog
from grader.cli import common, terminal
from grader.practice import clock
from grader.store import Store
from grader.views.plain import wrapped


@click.command("hint")
@common.slug_or_current
def hint_command(slug: str) -> None:
    """The next hint for SLUG, or the current kata; a new round begins the ladder anew."""
    hints = catalog.entry(slug).hints
    with Store.open(create=True) as store:
        rung = store.attempts.next_hint(slug, len(hints), clock.now())
    if rung is not None:
        terminal.say(*wrapped(f"Hint {rung} of {len(hints)}: {hints[rung - 1]}", terminal.width()))
        return
    for number, text in enumerate(hints, 1):
        terminal.say(*wrapped(text, terminal.width(), f"{number}. "))
    terminal.say("", f"These were all. `kata solution {slug}` shows the reference.")
