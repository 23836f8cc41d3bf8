"""start, reset, history, restore: the learner's file and its kept versions."""

from pathlib import Path

import click

from grader import catalog
from grader.cli import common, terminal
from grader.errors import UsageFault
from grader.practice import clock, stubs
from grader.practice.workspace import put, shown
from grader.store import Store
from grader.store.attempts import Reason, Snapshot


@click.command("start")
@common.slug
@common.in_workspace
def start_command(slug: str, workspace: Path | None) -> None:
    """A fresh stub of SLUG; starts the clock. The old file is kept."""
    _blank(slug, workspace, Reason.START)


@click.command("reset")
@common.slug
@common.in_workspace
def reset_command(slug: str, workspace: Path | None) -> None:
    """Put SLUG back to its stub and the clock to zero. The old file is kept."""
    _blank(slug, workspace, Reason.RESET)


def _blank(slug: str, workspace: Path | None, reason: Reason) -> None:
    path = common.find_workspace(workspace).path(slug)
    now = clock.now()
    with Store.open(create=True) as store:
        kept = put(path, slug, stubs.stub(slug).encode(), reason, store.attempts, now)
        store.attempts.begin_round(slug, now)
    _say_kept(slug, kept)
    par = catalog.card(slug).minutes
    terminal.say(
        f"{shown(path)} is the blank stub. The clock runs; par is {par} minutes.",
        f"Next: `kata show {slug}` tells the task, `kata run {slug}` grades it.",
    )


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
        _say_kept(slug, kept)
    terminal.say(f"{shown(path)} is version {number} again.")
    if stopped:
        terminal.say(
            f"It is older than your last start: no time is taken until `kata start {slug}`."
        )
    terminal.say(f"Next: `kata run {slug}`.")


def _say_kept(slug: str, kept: Snapshot | None) -> None:
    if kept is not None:
        terminal.say(
            f"What you had is kept as version {kept.number}: "
            f"`kata restore {slug} {kept.number}` brings it back."
        )


@click.command("history")
@common.slug
@common.as_json
def history_command(slug: str, json_: bool) -> None:
    """Kept versions of SLUG and the attempts made with them."""
    from grader.views import history, json

    with Store.open(create=False) as store:
        snapshots, attempts = store.attempts.snapshots(slug), store.attempts.of(slug)
    if json_:
        terminal.say_json(json.history(slug, snapshots, attempts))
    else:
        terminal.say(*history.page(slug, snapshots, attempts, terminal.colour()))
