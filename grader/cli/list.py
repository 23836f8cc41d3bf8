"""list: the katas."""

import click

from grader import catalog
from grader.cli import common, terminal
from grader.store import Store
from grader.store.attempts import Standing


@click.command("list")
@click.option("--track", type=click.Choice(catalog.tracks()), help="This track alone.")
@common.as_json
def list_command(track: str | None, json_: bool) -> None:
    """Katas in teaching order, with status, what is due, best time and par time."""
    from grader.practice import clock, schedule
    from grader.views import json, listing

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
        terminal.say_json(json.katas(rows, end))
    else:
        terminal.say(*listing.page(rows, end, terminal.width(), terminal.colour()))
