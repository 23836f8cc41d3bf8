"""today: the one queue of what to practise."""

import click

from grader.cli import common, terminal
from grader.practice import clock
from grader.practice import plan as plans
from grader.recall import agenda
from grader.store import Store
from grader.views import json
from grader.views import today as pages


@click.command("today")
@common.as_json
def today_command(json_: bool) -> None:
    """What is due and what is new today: questions, katas and bug hunts, with minutes."""
    now = clock.now().astimezone()
    with Store.open(create=False) as store:
        plan = plans.current(store.settings, now)
        found = agenda.today(store.memory, plan, now)
    if json_:
        terminal.say_json(json.today(found))
    else:
        terminal.say(*pages.page(found, terminal.width(), terminal.colour()))
