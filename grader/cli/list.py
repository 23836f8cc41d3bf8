"""list: the katas."""

from datetime import datetime
from typing import TYPE_CHECKING

import click

from grader import catalog
from grader.cli import common, terminal
from grader.store import Store

if TYPE_CHECKING:
    from grader.views.listing import Row


@click.command("list")
@click.option("--track", type=click.Choice(catalog.tracks()), help="This track alone.")
@common.as_json
def list_command(track: str | None, json_: bool) -> None:
    """Katas in teaching order, with status, what is due, best time and par time."""
    if json_:
        from grader.views import json

        terminal.say_json(json.katas(*_rows(track)))
    else:
        terminal.page(*listed(track, terminal.width(), terminal.colour()))


def listed(track: str | None, width: int, colour: bool) -> list[str]:
    """The page of the katas, or of a track's."""
    from grader.views import listing

    return listing.page(*_rows(track), width, colour)


def _rows(track: str | None) -> "tuple[list[Row], datetime]":
    """The katas, how far they are, and the end of the study day."""
    from grader.practice import clock, schedule
    from grader.views import listing

    with Store.open(create=False) as store:
        standings, cards = store.attempts.standings(), store.memory.cards()
    rows = listing.rows_of(standings, cards, track)
    return rows, schedule.day_end(clock.now().astimezone())
