"""next: the kata that is due or comes next, begun."""

from pathlib import Path

import click

from grader.cli import common, terminal
from grader.cli.start import begin
from grader.practice import clock
from grader.recall import agenda
from grader.store import Store
from grader.store.attempts import Reason


@click.command("next")
@common.in_workspace
def next_command(workspace: Path | None) -> None:
    """Start what the plan has next, or what is due, or the next kata not passed yet.

    The old file is kept.
    """
    with Store.open(create=False) as store:
        slug = agenda.next_kata(store, clock.now().astimezone())
    if slug is None:
        terminal.say("All katas are passed and none is due. `kata list` shows them.")
        return
    terminal.say(*begin(slug, common.find_workspace(workspace), Reason.START))
