"""history: attempts and kept versions."""

import click

from grader.cli import common, terminal
from grader.store import Store


@click.command("history")
@common.slug_or_current
@common.as_json
def history_command(slug: str, json_: bool) -> None:
    """Kept versions of SLUG, or the current kata, and the attempts made with them."""
    from grader.views import history, json

    with Store.open(create=False) as store:
        snapshots, attempts = store.attempts.snapshots(slug), store.attempts.of(slug)
    if json_:
        terminal.say_json(json.history(slug, snapshots, attempts))
    else:
        width, colour = terminal.width(), terminal.colour()
        terminal.page(*history.page(slug, snapshots, attempts, width, colour))
