"""plan: the day of the interview, and the minutes for each day before it."""

from datetime import date, datetime
from pathlib import Path

import click

from grader.cli import common, terminal
from grader.errors import UsageFault
from grader.practice import clock, queue, work
from grader.practice import plan as plans
from grader.practice.plan import Plan
from grader.recall import agenda, bank
from grader.store import Store
from grader.views import json
from grader.views import today as pages
from grader.views.plain import counted

_HOW = "kata plan --interview DATE --minutes-per-day N"


class _Day(common.ParamType[date]):
    name = "date"

    def convert(self, value: object, param: object, ctx: object) -> date:
        try:
            return date.fromisoformat(str(value))
        except ValueError:
            raise UsageFault(f"`{value}` is no date. Write it as 2026-12-06.") from None


@click.command("plan")
@click.option("--interview", metavar="DATE", type=_Day(), help="The day, as 2026-12-06.")
@click.option(
    "--minutes-per-day", metavar="N", type=click.IntRange(5, 720), help="Minutes for each day."
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
            plan = _changed(plan, interview, minutes_per_day, deck, plans.study_day(now))
            plans.store(store.settings, plan)
        if plan is not None and plan.days_left(now):
            shown = _worked_out(store, plan, now)
            if ics is not None:
                _write(shown, ics, force, now)
            elif json_:
                terminal.say_json(json.plan(plan, shown.outlook, shown.seen, shown.missed))
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


def _changed(
    plan: Plan | None, day: date | None, minutes: int | None, deck: str | None, today: date
) -> Plan:
    """The stored plan with what was given in its place; the rest has to be there."""
    if plan is not None and plan.interview < today:
        plan = None
    day = day or (plan.interview if plan else None)
    minutes = minutes or (plan.minutes_per_day if plan else None)
    if day is None or minutes is None:
        missing = "--interview DATE" if day is None else "--minutes-per-day N"
        raise UsageFault(f"A plan needs {missing} as well.")
    if day < today:
        raise UsageFault(f"{day} is past: today is {today}.")
    if (day - today).days > plans.FARTHEST_DAYS:
        raise UsageFault(f"{day} is too far away: a plan reaches {plans.FARTHEST_DAYS} days.")
    same = plan is not None and plan.interview == day
    return Plan(
        day,
        minutes,
        deck or (plan.deck if plan else bank.CORE),
        plan.made if plan is not None and same else today,
    )


def _worked_out(store: Store, plan: Plan, now: datetime) -> pages.Shown:
    """How the plan works out, and how it has gone so far."""
    known, cards, today = agenda.items(), store.memory.cards(), plans.study_day(now)
    wanted = agenda.planned(known, cards, plan.deck)
    outlook = plans.forecast(
        wanted,
        queue.memories(cards),
        now,
        plan,
        work.done_minutes(store.memory, now),
        agenda.ahead(store.memory, plan, now),
    )
    practised = {plans.study_day(at.astimezone()) for at in store.tallies.practised()}
    return pages.Shown(
        plan,
        outlook,
        (sum(item.key in cards for item in wanted), len(wanted)),
        today,
        tuple(plans.missed(plan, today, practised)),
    )


def _write(shown: pages.Shown, path: Path, force: bool, now: datetime) -> None:
    from grader.views import ics  # and its library

    content = ics.file(shown, now)
    common.write(path, content, force)
    days = content.count(b"BEGIN:VEVENT") - 1
    terminal.tell(
        f"Written: {path}, {counted(days, 'day')} and the interview.",
        "Import it into your calendar; a later file brings the same entries up to date.",
    )
