"""init: a workspace of stubs."""

import shlex
from pathlib import Path

import click

from grader import catalog
from grader.cli import common, terminal
from grader.practice import workspace
from grader.views.plain import counted


@click.command("init")
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), default=".")
def init_command(folder: Path) -> None:
    """Lay out a workspace of stubs in DIR (here, if not said); files already there stay."""
    folder = folder.expanduser().absolute()
    cards = catalog.cards()
    new = workspace.lay_out(folder, (card.slug for card in cards))
    common.try_to_store(
        "where it is", lambda store: store.settings.set(workspace.SETTING, str(folder))
    )
    kept = len(cards) - len(new)
    there = (
        f"; {counted(kept, 'file')} already there stayed as {'it is' if kept == 1 else 'they are'}"
    )
    go = "" if folder.samefile(".") else f"`cd {shlex.quote(workspace.shown(folder))}`, then "
    terminal.say(
        f"{workspace.shown(folder)}: {counted(len(new), 'new stub')}{there if kept else ''}.",
        f"Next: {go}`kata list` shows what there is, `kata start SLUG` begins.",
    )
