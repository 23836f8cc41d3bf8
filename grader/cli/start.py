"""start: a fresh stub and the clock."""

from pathlib import Path

import click

from grader import catalog
from grader.cli import common, terminal
from grader.practice import rounds
from grader.practice.workspace import Workspace, shown
from grader.store.attempts import Reason, Snapshot


@click.command("start")
@common.slug
@common.in_workspace
def start_command(slug: str, workspace: Path | None) -> None:
    """A fresh stub of SLUG; starts the clock. The old file is kept.

    The clock counts time on task: while the file is saved or the tool is used. Of a longer pause
    it counts five minutes, and half a minute for each line then saved; lunch is not on it.
    """
    terminal.say(*begin(slug, common.find_workspace(workspace), Reason.START))


def begin(slug: str, space: Workspace, reason: Reason) -> list[str]:
    """The stub in place of what is there, which is kept, and a new round; what to say of it."""
    kept = rounds.begin(slug, space, reason)
    par = catalog.card(slug).minutes
    return [
        *said_kept(slug, kept),
        f"{shown(space.path(slug))} is the blank stub. The clock runs; par is {par} minutes.",
        f"Next: `kata show {slug}` tells the task, `kata run` grades it.",
    ]


def said_kept(slug: str, kept: Snapshot | None) -> list[str]:
    """How what stood in the file is brought back, if something did."""
    if kept is None:
        return []
    back = f"`kata restore {slug} {kept.number}` brings it back."
    return [f"What you had is kept as version {kept.number}: {back}"]
