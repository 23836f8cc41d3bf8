"""hint, solution: help, noted as seen."""

from pathlib import Path

import click

from grader import catalog
from grader.cli import common
from grader.practice import stubs
from grader.practice.progress import Progress
from grader.practice.workspace import shown


@click.command("hint")
@common.slug
def hint_command(slug: str) -> None:
    """The next hint of SLUG's ladder."""
    hints = catalog.entry(slug).hints
    with Progress.open(create=True) as progress:
        rung = progress.next_hint(slug, len(hints), common.now())
    if rung is None:
        for number, text in enumerate(hints, 1):
            click.echo(f"{number}. {text}")
        click.echo(f"\nThese were all. kata solution {slug} shows the reference.")
        return
    click.echo(f"Hint {rung} of {len(hints)}: {hints[rung - 1]}")


@click.command("solution")
@common.slug
@click.option("--diff", is_flag=True, help="The changes from your file to the reference.")
@common.in_workspace
def solution_command(slug: str, diff: bool, workspace: Path | None) -> None:
    """The reference solution of SLUG (noted as seen)."""
    text = stubs.solution(slug)
    if diff:
        import difflib

        path = common.find_workspace(workspace).existing(slug)
        yours = path.read_text(encoding="utf-8", errors="replace")
        lines = difflib.unified_diff(
            yours.splitlines(), text.splitlines(), shown(path), f"solution of {slug}", lineterm=""
        )
        text = "\n".join(lines) + "\n"
    with Progress.open(create=True) as progress:
        progress.saw_solution(slug, common.now())
    click.echo(text, nl=False)
