"""list, show: what there is to do."""

import click

from grader import catalog
from grader.cli import common, terminal
from grader.practice.progress import Progress, Standing


@click.command("list")
@click.option("--track", type=click.Choice(catalog.TRACKS), help="This track alone.")
@common.as_json
def list_command(track: str | None, json_: bool) -> None:
    """Katas in teaching order, with status, best time and par time."""
    from grader.render import listing

    with Progress.open(create=False) as progress:
        standings = progress.standings()
    rows = [
        (card, standings.get(card.slug, Standing()))
        for card in catalog.cards()
        if track in (None, card.track)
    ]
    if json_:
        terminal.say_json({"katas": [_item(card, standing) for card, standing in rows]})
    else:
        terminal.say(*listing.page(rows, terminal.colour()))


def _item(card: catalog.Card, standing: Standing) -> dict[str, object]:
    return {
        "slug": card.slug,
        "title": card.title,
        "track": card.track,
        "difficulty": card.difficulty,
        "minutes": card.minutes,
        "level": standing.level,
        "attempts": standing.attempts,
        "best_seconds": standing.best_s,
    }


@click.command("show")
@common.slug
def show_command(slug: str) -> None:
    """The task SLUG: contract, checked rules, tolerance, par time."""
    from grader.practice import contract
    from grader.render import task

    page = task.page(catalog.card(slug), contract.task(slug), terminal.width(), terminal.colour())
    terminal.say(*page)
