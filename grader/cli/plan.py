"""plan: the day of the interview, and the minutes for each day before it."""

from datetime import date, datetime

import click

from grader.cli import common, terminal
from grader.errors import UsageFault
from grader.practice import clock, queue, work
from grader.practice import plan as plans
from grader.practice.plan import Plan
from grader.recall import agenda
from grader.store import Store
from grader.store.memory import Memory
from grader.views import json
from grader.views import today as pages

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
@click.option("--clear", is_flag=True, help="Forget the plan.")
@common.as_json
def plan_command(
    interview: date | None, minutes_per_day: int | None, clear: bool, json_: bool
) -> None:
    """Set the interview's day and the minutes a day; without options, show how it works out."""
    now = clock.now().astimezone()
    changes = interview is not None or minutes_per_day is not None
    if clear and changes:
        raise UsageFault("--clear goes without other options.")
    with Store.open(create=clear or changes) as store:
        if clear:
            plans.store(store.settings, None)
        plan = plans.stored(store.settings)
        if changes:
            plan = _changed(plan, interview, minutes_per_day, plans.study_day(now))
            plans.store(store.settings, plan)
        if plan is not None and plan.days_left(now):
            _show(plan, store.memory, now, json_)
        elif json_:
            terminal.say_json({"plan": None})
        elif plan is not None:
            over = pages.long_day(plan.interview)
            terminal.tell(f"The interview of {over} is over.", f"The next: `{_HOW}`.")
        else:
            terminal.tell(
                "There is no plan: `kata today` goes by what is due.", f"To make one: `{_HOW}`."
            )


def _changed(plan: Plan | None, day: date | None, minutes: int | None, today: date) -> Plan:
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
    return Plan(day, minutes)


def _show(plan: Plan, memory: Memory, now: datetime, json_: bool) -> None:
    known, cards = agenda.items(), memory.cards()
    wanted = agenda.planned(known, cards)
    done = work.done_minutes(memory, now)
    outlook = plans.forecast(wanted, queue.memories(cards), now, plan, done)
    seen = sum(item.key in cards for item in wanted), len(wanted)
    if json_:
        terminal.say_json(json.plan(plan, outlook, seen))
        return
    page = pages.planned(
        plan,
        outlook,
        seen,
        plans.study_day(now),
        terminal.width(),
        terminal.colour(),
    )
    terminal.say(*page)
