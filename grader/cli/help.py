"""hint, solution: help, noted as seen."""

import difflib
from pathlib import Path

import click

from grader import catalog
from grader.cli import common, terminal
from grader.harmless import harmless
from grader.practice import clock, files, stubs
from grader.practice.workspace import shown
from grader.store import Store
from grader.views.plain import wrapped


@click.command("hint")
@common.slug
def hint_command(slug: str) -> None:
    """The next hint for SLUG; a new round begins the ladder anew."""
    hints = catalog.entry(slug).hints
    with Store.open(create=True) as store:
        rung = store.attempts.next_hint(slug, len(hints), clock.now())
    if rung is not None:
        terminal.say(*wrapped(f"Hint {rung} of {len(hints)}: {hints[rung - 1]}", terminal.width()))
        return
    for number, text in enumerate(hints, 1):
        terminal.say(*wrapped(text, terminal.width(), f"{number}. "))
    terminal.say("", f"These were all. `kata solution {slug}` shows the reference.")


@click.command("solution")
@common.slug
@click.option("--diff", is_flag=True, help="What leads from your file to the reference.")
@common.in_workspace
def solution_command(slug: str, diff: bool, workspace: Path | None) -> None:
    """The reference solution of SLUG (noted as seen)."""
    text = stubs.solution(slug)
    if diff:
        text = _diff(slug, common.find_workspace(workspace).existing(slug), text)
    common.try_to_store(
        "that you saw it", lambda store: store.attempts.saw_solution(slug, clock.now())
    )
    terminal.say(text.rstrip("\n"))


def _diff(slug: str, path: Path, reference: str) -> str:
    yours = (files.read(path) or b"").decode(errors="replace")
    lines = difflib.unified_diff(
        yours.splitlines(), reference.splitlines(), shown(path), f"solution of {slug}", lineterm=""
    )
    return harmless("\n".join(lines)) or "Your file is the reference, line by line."
