"""solution: the reference, noted as seen."""

import difflib
import sys
from pathlib import Path

import click

from grader.cli import common, terminal
from grader.harmless import harmless
from grader.practice import files, rounds, stubs
from grader.practice.workspace import shown
from grader.views.plain import CUT


@click.command("solution")
@common.slug_or_current
@click.option("--diff", is_flag=True, help="What leads from your file to the reference.")
@common.in_workspace
def solution_command(slug: str, diff: bool, workspace: Path | None) -> None:
    """The reference solution of SLUG, or the current kata (noted as seen)."""
    text = stubs.solution(slug)
    if diff:
        text = _diff(slug, common.find_workspace(workspace).existing(slug), text)
    common.try_to_store("that you saw it", lambda store: rounds.saw_solution(store, slug))
    if sys.stdout is not None and sys.stdout.isatty():  # a file gets the lines as they are
        terminal.page(*terminal.fitting(text.splitlines(), CUT))
    else:
        terminal.write(text.rstrip("\n") + "\n")


def _diff(slug: str, path: Path, reference: str) -> str:
    yours = (files.read(path) or b"").decode(errors="replace")
    lines = difflib.unified_diff(
        yours.splitlines(), reference.splitlines(), shown(path), f"solution of {slug}", lineterm=""
    )
    return harmless("\n".join(lines)) or "Your file is the reference, line by line."
