"""start, reset, history, restore: the learner's file and its kept versions."""

from pathlib import Path

import click
import msgspec

from grader import catalog
from grader.cli import common
from grader.errors import UsageFault
from grader.practice import stubs, workspace
from grader.practice.progress import Progress, Reason


def _blank(slug: str, folder: Path | None, reason: Reason) -> None:
    path = common.find_workspace(folder).path(slug)
    now = common.now()
    with Progress.open(create=True) as progress:
        kept = workspace.put(path, slug, stubs.stub(slug).encode(), reason, progress, now)
        progress.begin_round(slug, now)
    if kept is not None:
        click.echo(f"Your file is kept: kata restore {slug} {kept.number}")
    par = catalog.card(slug).minutes
    click.echo(f"{workspace.shown(path)} is the blank stub. The clock runs; par is {par} minutes.")
    click.echo(f"Next: kata show {slug}, then kata run {slug}")


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
    """Put SLUG back to its stub. The old file is kept."""
    _blank(slug, workspace, Reason.RESET)


@click.command("history")
@common.slug
@common.as_json
def history_command(slug: str, json_: bool) -> None:
    """Attempts and kept versions of SLUG."""
    with Progress.open(create=False) as progress:
        attempts, snapshots = progress.attempts(slug), progress.snapshots(slug)
    if json_:
        versions = [
            {"number": s.number, "at": s.at, "reason": s.reason, "bytes": len(s.source)}
            for s in snapshots
        ]
        tries = [
            {
                "number": a.number,
                "at": a.at,
                "version": a.snapshot,
                "part": a.part,
                "passed": a.passed,
                "level": a.level,
                "seed": a.seed,
                "seconds": round(a.seconds, 3),
            }
            for a in attempts
        ]
        answer = {"slug": slug, "attempts": tries, "versions": versions}
        click.echo(msgspec.json.encode(answer))
        return
    if not snapshots and not attempts:
        click.echo(f"Nothing yet. kata start {slug} begins.")
        return
    by_version = {a.snapshot: a for a in attempts}
    click.echo(f"{slug}: {len(attempts)} attempts, {len(snapshots)} kept versions")
    for s in snapshots:
        tried = by_version.get(s.number)
        result = ""
        if tried is not None:
            word = "passed" if tried.passed else "not passed"
            result = f"  attempt {tried.number}: {tried.checks[0]}/{tried.checks[1]} checks, {word}"
        when = s.at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        click.echo(f"{s.number:4}  {when}  kept by {s.reason:8}{result}")
    click.echo(f"Next: kata restore {slug} N brings version N back.")


@click.command("restore")
@common.slug
@click.argument("number", type=int)
@common.in_workspace
def restore_command(slug: str, number: int, workspace: Path | None) -> None:
    """Bring kept version NUMBER of SLUG back. The present file is kept first."""
    from grader.practice.workspace import put, shown

    path = common.find_workspace(workspace).path(slug)
    with Progress.open(create=True) as progress:
        known = {s.number: s for s in progress.snapshots(slug)}
        if number not in known:
            there = f"1 to {max(known)}" if known else "none yet"
            raise UsageFault(f"{slug} has no version {number}; there is {there}.")
        kept = put(path, slug, known[number].source, Reason.RESTORE, progress, common.now())
        progress.untime_round(slug, known[number])
    if kept is not None and kept.number != number:
        click.echo(f"Your file is kept: kata restore {slug} {kept.number}")
    click.echo(f"{shown(path)} is version {number} again.")
