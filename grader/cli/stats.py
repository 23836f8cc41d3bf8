"""stats: what the record adds up to."""

from pathlib import Path

import click

from grader import catalog
from grader.cli import common, terminal
from grader.practice import clock
from grader.recall import record
from grader.store import Store
from grader.views import json
from grader.views import stats as pages


@click.command("stats")
@click.option(
    "--html", metavar="FILE", type=click.Path(path_type=Path), help="Write it as one HTML page."
)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@common.as_json
def stats_command(html: Path | None, force: bool, json_: bool) -> None:
    """Streak and days of practice, recall by topic, katas against par."""
    cards = {card.slug: card for card in catalog.cards()}
    with Store.open(create=False) as store:
        found = record.statistics_of(store, clock.now().astimezone())
    if html is not None:
        from grader.views import stats_html

        common.write(html, stats_html.page(found, cards).encode(), force)
        if not json_:
            terminal.say(f"{html} is written: open it in a browser.")
    if json_:
        terminal.say_json(json.statistics(found, cards))
    elif html is None:
        terminal.page(*pages.page(found, cards, terminal.width(), terminal.colour()))
