"""show: one kata's task."""

import click

from grader import catalog
from grader.cli import common, terminal


@click.command("show")
@common.slug
def show_command(slug: str) -> None:
    """The task SLUG: contract, checked rules, tolerance, par time."""
    from grader.practice import contract
    from grader.views import task

    page = task.page(catalog.card(slug), contract.task(slug), terminal.width(), terminal.colour())
    terminal.say(*page)
