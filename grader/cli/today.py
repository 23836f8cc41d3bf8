"""today: the one queue of what to practise."""

import click

from grader.cli import common, terminal
from grader.practice import clock
from grader.practice import plan as plans
from grader.practice.database import Database, file
from grader.practice.deck import Deck
from grader.practice.progress import Progress
from grader.recall import agenda
from grader.views import json
from grader.views import today as pages


@click.command("today")
@common.as_json
def today_command(json_: bool) -> None:
    """What is due and what is new today: questions, katas and bug hunts, with minutes."""
    now = clock.now().astimezone()
    with Database(file(), create=False) as database:
        plan = plans.current(Progress(database), now)
        found = agenda.today(Deck(database), plan, now)
    if json_:
        terminal.say_json(json.today(found))
    else:
        terminal.say(*pages.page(found, terminal.width(), terminal.colour()))
