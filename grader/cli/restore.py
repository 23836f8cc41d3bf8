"""restore: a kept version comes back."""

from pathlib import Path

import click

from grader.cli import common, terminal
from grader.cli.start import said_kept
from grader.errors import UsageFault
from grader.practice import clock
from grader.practice.workspace import put, shown
from grader.store import Store
from grader.store.attempts import Reason


@click.command("restore")
@common.slug
@click.argument("number", metavar="N", type=int)
@common.in_workspace
def restore_command(slug: str, number: int, workspace: Path | None) -> None:
    """Bring version N of SLUG back, as `kata history` numbers them. The present file is kept."""
    path = common.find_workspace(workspace).path(slug)
    with Store.open(create=False) as store:
        known = {snapshot.number: snapshot for snapshot in store.attempts.snapshots(slug)}
    if number not in known:
        there = f"`kata history {slug}` shows 1 to {max(known)}" if known else "none is kept yet"
        raise UsageFault(f"{slug} has no version {number}: {there}.")
    with Store.open(create=True) as store:
        kept = put(path, slug, known[number].source, Reason.RESTORE, store.attempts, clock.now())
        stopped = store.attempts.untime_round(slug, known[number])
    if kept is not None and kept.number != number:
        terminal.say(*said_kept(slug, kept))
    terminal.say(f"{shown(path)} is version {number} again.")
    if stopped:
        terminal.say(
            f"It is older than your last start: no time is taken until `kata start {slug}`."
        )
    terminal.say(f"Next: `kata run {slug}`.")
