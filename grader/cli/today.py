"""today: the one queue of what to practise."""

import click

from grader.cli import common, terminal
from grader.practice import clock
from grader.practice import plan as plans
from grader.recall import agenda
from grader.recall.agenda import Agenda, Entry
from grader.render import today as pages
from grader.store import Store


@click.command("today")
@common.as_json
def today_command(json_: bool) -> None:
    """What is due and what is new today: questions, katas and bug hunts, with minutes."""
    now = clock.now().astimezone()
    with Store.open(create=False) as store:
        plan = plans.current(store.settings, now)
        found = agenda.today(store.memory, plan, now)
    if json_:
        terminal.say_json(_object(found, pages.commands(found)))
    else:
        terminal.say(*pages.page(found, terminal.width(), terminal.colour()))


def _object(agenda: Agenda, commands: list[str]) -> dict[str, object]:
    return {
        "day": agenda.day,
        "plan": agenda.plan,
        "due": [_item(entry) for entry in agenda.due],
        "new": [_item(entry) for entry in agenda.new],
        "minutes": agenda.minutes,
        "done_minutes": agenda.done_minutes,
        "next_due": agenda.next_due,
        "commands": commands,
    }


def _item(entry: Entry) -> dict[str, object]:
    return {
        "key": entry.item.key,
        "kind": entry.kind,
        "name": entry.name,
        "about": entry.about,
        "minutes": entry.item.minutes,
        "due": entry.due,
    }
