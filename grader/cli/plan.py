"""plan: the day of the interview, and the minutes for each day before it."""

from datetime import date, datetime
from pathlib import Path

import click

from grader.cli import common, terminal
from grader.errors import UsageFault
from grader.practice import clock
from grader.practice import plan as plans
from grader.recall import planning
from grader.recall.planning import Outlook
from grader.store import Store
from grader.views import json
from grader.views import today as pages
from grader.views.plain import counted

_HOW = "kata plan --interview DATE --minutes-per-day N"


class _Day(common.ParamType[date]):
    name = "date"

    def convert(self, value: object, param: object, ctx: object) -> date:
        return planning.day_of(str(value))


@click.command("plan")
@click.option("--interview", metavar="DATE", type=_Day(), help="The day, as 2026-12-06.")
@click.option(
    "--minutes-per-day",
    metavar="N",
    type=click.IntRange(plans.FEWEST_MINUTES, plans.MOST_MINUTES),
    help="Minutes for each day.",
)
@click.option("--deck", type=click.Choice(common.DECKS), help="The questions; at first core.")
@click.option("--all", "all_", is_flag=True, help="Every day, and all that is left out.")
@click.option(
    "--ics",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the days as calendar entries.",
)
@click.option("--force", is_flag=True, help="Replace FILE.")
@click.option("--clear", is_flag=True, help="Forget the plan.")
@common.as_json
def plan_command(
    interview: date | None,
    minutes_per_day: int | None,
    deck: str | None,
    all_: bool,
    ics: Path | None,
    force: bool,
    clear: bool,
    json_: bool,
) -> None:
    """Set the interview's day and the minutes a day; without options, show how it works out.

    The days hold questions and katas, and on their dates mock interviews and bug hunts. It is
    made anew each time: what a missed day held moves on.
    """
    now = clock.now().astimezone()
    changes = interview is not None or minutes_per_day is not None or deck is not None
    if clear and (changes or ics is not None):
        raise UsageFault("--clear goes without other options.")
    if force and ics is None:
        raise UsageFault("--force goes with --ics FILE.")
    with Store.open(create=clear or changes) as store:
        if clear:
            plans.store(store.settings, None)
        plan = plans.stored(store.settings)
        if changes:
            plan = planning.changed(plan, interview, minutes_per_day, deck, plans.study_day(now))
            plans.store(store.settings, plan)
        if plan is not None and plan.days_left(now):
            shown = planning.worked_out(store, plan, now)
            if ics is not None:
                _write(shown, ics, force, now)
            elif json_:
                terminal.say_json(json.plan(plan, shown.forecast, shown.seen, shown.missed))
            else:
                terminal.say(*pages.planned(shown, all_, terminal.width(), terminal.colour()))
        elif ics is not None:
            raise UsageFault(f"There is no plan to write. To make one: `{_HOW}`.")
        elif json_:
            terminal.say_json({"plan": None})
        elif plan is not None:
            over = pages.long_day(plan.interview)
            terminal.tell(f"The interview of {over} is over.", f"The next: `{_HOW}`.")
        else:
            terminal.tell(
                "There is no plan: `kata today` goes by what is due.", f"To make one: `{_HOW}`."
            )


def _write(shown: Outlook, path: Path, force: bool, now: datetime) -> None:
    from grader.views import ics  # and its library

    content = ics.file(shown, now)
    common.write(path, content, force)
    days = content.count(b"BEGIN:VEVENT") - 1
    terminal.tell(
        f"Written: {path}, {counted(days, 'day')} and the interview.",
        "Import it into your calendar; a later file brings the same entries up to date.",
    )
