"""show: one kata's task."""

import click

from grader import catalog
from grader.cli import common, terminal


@click.command("show")
@common.slug_or_current
def show_command(slug: str) -> None:
    """The task SLUG, or the current kata: why it is asked, contract, what is checked, its
    questions."""
    from grader.practice import contract
    from grader.recall import bank
    from grader.views import task

    common.on_task(slug)
    card, asked = catalog.card(slug), catalog.entry(slug).asked
    questions = [question.id for question in bank.load() if slug in question.katas]
    width, colour = terminal.width(), terminal.colour()
    terminal.page(*task.page(card, asked, contract.task(slug), questions, width, colour))
