"""edit: a kata's file in the learner's editor."""

from pathlib import Path

import click

from grader.cli import common, terminal
from grader.cli.terminal import editor
from grader.practice import current


@click.command("edit")
@common.slug_or_current
@common.in_workspace
def edit_command(slug: str, workspace: Path | None) -> None:
    """Open SLUG, or the current kata, in your editor (VISUAL, else EDITOR, arguments included)."""
    space = common.find_workspace(workspace)
    path = space.existing(slug)
    common.try_to_store("which kata is current", lambda store: current.make(store, slug, space))
    editor.edit(path)
    terminal.say("Next: `kata run` grades it.")
