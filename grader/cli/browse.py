"""list, show: what there is to do."""

from datetime import datetime

import click

from grader import catalog
from grader.cli import common, terminal
from grader.store import Store
from grader.store.attempts import Standing


@click.command("list")
@click.option("--track", type=click.Choice(catalog.TRACKS), help="This track alone.")
@common.as_json
def list_command(track: str | None, json_: bool) -> None:
    """Katas in teaching order, with status, what is due, best time and par time."""
    from grader.practice import clock, schedule
    from grader.render import listing

    with Store.open(create=False) as store:
        standings, cards = store.attempts.standings(), store.memory.cards()
    due = {key: card.due for key, card in cards.items()}
    rows = [
        listing.Row(card, standings.get(card.slug, Standing()), due.get(f"kata:{card.slug}"))
        for card in catalog.cards()
        if track in (None, card.track)
    ]
    end = schedule.day_end(clock.now().astimezone())
    if json_:
        terminal.say_json({"katas": [_item(*row, end) for row in rows]})
    else:
        terminal.say(*listing.page(rows, end, terminal.width(), terminal.colour()))


def _item(
    card: catalog.Card, standing: Standing, due: datetime | None, end: datetime
) -> dict[str, object]:
    return {
        "slug": card.slug,
        "title": card.title,
        "track": card.track,
        "difficulty": card.difficulty,
        "minutes": card.minutes,
        "level": standing.level,
        "attempts": standing.attempts,
        "best_seconds": standing.best_s,
        "due": due is not None and due < end,
        "due_at": due,
    }


@click.command("show")
@common.slug
def show_command(slug: str) -> None:
    """The task SLUG: contract, checked rules, tolerance, par time."""
    from grader.practice import contract
    from grader.render import task

    page = task.page(catalog.card(slug), contract.task(slug), terminal.width(), terminal.colour())
    terminal.say(*page)
