"""The learner's plan: what of it may be changed, and how it works out with what was practised."""

from dataclasses import dataclass
from datetime import date, datetime

from grader.errors import UsageFault
from grader.practice import plan as plans
from grader.practice import queue, work
from grader.practice.plan import Forecast, Plan
from grader.recall import agenda, bank
from grader.store import Store

INTERVIEW, MINUTES = "interview", "minutes"


class BadPlan(UsageFault):
    """A plan that cannot be. `part` is what is to be mended, INTERVIEW or MINUTES."""

    def __init__(self, part: str, message: str) -> None:
        super().__init__(message)
        self.part = part


@dataclass(frozen=True)
class Outlook:
    """A plan, how it works out, how many things have been seen and of how many, and the days up to
    yesterday that were missed."""

    plan: Plan
    forecast: Forecast
    seen: tuple[int, int]
    today: date
    missed: tuple[date, ...] = ()


def day_of(text: str) -> date:
    """The day that is written there. Raises BadPlan."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadPlan(INTERVIEW, f"`{text}` is no date. Write it as 2026-12-06.") from None


def changed(
    plan: Plan | None, day: date | None, minutes: int | None, deck: str | None, today: date
) -> Plan:
    """The stored plan with what was given in its place; the rest has to be there. Raises
    BadPlan."""
    if plan is not None and plan.interview < today:
        plan = None
    day = day or (plan.interview if plan else None)
    minutes = minutes or (plan.minutes_per_day if plan else None)
    if day is None:
        raise BadPlan(INTERVIEW, "A plan needs --interview DATE as well.")
    if minutes is None:
        raise BadPlan(MINUTES, "A plan needs --minutes-per-day N as well.")
    if day < today:
        raise BadPlan(INTERVIEW, f"{day} is past: today is {today}.")
    if (day - today).days > plans.FARTHEST_DAYS:
        far = f"{day} is too far away: a plan reaches {plans.FARTHEST_DAYS} days."
        raise BadPlan(INTERVIEW, far)
    same = plan is not None and plan.interview == day
    return Plan(
        day,
        minutes,
        deck or (plan.deck if plan else bank.CORE),
        plan.made if plan is not None and same else today,
    )


def worked_out(store: Store, plan: Plan, now: datetime) -> Outlook:
    """How the plan works out, and how it has gone so far. `now` is in the learner's own time
    zone."""
    known, cards, today = agenda.items(), store.memory.cards(), plans.study_day(now)
    wanted = agenda.planned(known, cards, plan.deck)
    forecast = plans.forecast(
        wanted,
        queue.memories(cards),
        now,
        plan,
        work.done_minutes(store.memory, now),
        agenda.ahead(store.memory, plan, now),
    )
    practised = {plans.study_day(at.astimezone()) for at in store.tallies.practised()}
    return Outlook(
        plan,
        forecast,
        (sum(item.key in cards for item in wanted), len(wanted)),
        today,
        tuple(plans.missed(plan, today, practised)),
    )
