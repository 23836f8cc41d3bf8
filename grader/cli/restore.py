"""restore: a kept version comes back."""

from pathlib import Path

import click

from grader.cli import common, terminal
from grader.cli.start import said_kept
from grader.practice import rounds
from grader.practice.workspace import shown


@click.command("restore")
@common.slug
@click.argument("number", metavar="N", type=int)
@common.in_workspace
def restore_command(slug: str, number: int, workspace: Path | None) -> None:
    """Bring version N of SLUG back, as `kata history` numbers them. The present file is kept."""
    space = common.find_workspace(workspace)
    restored = rounds.restore(slug, number, space)
    kept, path = restored.kept, space.path(slug)
    if kept is not None and kept.number != number:
        terminal.say(*said_kept(slug, kept))
    terminal.say(f"{shown(path)} is version {number} again.")
    if restored.stopped:
        terminal.say(
            f"It is older than your last start: no time is taken until `kata start {slug}`."
        )
    terminal.say(f"Next: `kata run {slug}`.")
