"""The pages of the plan: the interview's day, the minutes for each day before it, the calendar."""

from datetime import date, datetime
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from grader.practice import clock
from grader.practice import plan as plans
from grader.recall import bank, planning
from grader.recall.planning import BadPlan, Outlook
from grader.store import Store
from grader.views import today as days
from grader.views.plain import counted
from grader.web import pages
from grader.web.asked import back, fields, shown, whole

if TYPE_CHECKING:
    from grader.web.app import Web

_FIELDS = planning.INTERVIEW, planning.MINUTES, "deck"


def routes(web: "Web") -> list[Route]:
    async def plan(request: Request) -> Response:
        return await shown(page, "all" in request.query_params)

    async def change(request: Request) -> Response:
        given = await fields(request)
        wrong = await web.write(_change, given)
        if wrong:
            return HTMLResponse(await run_in_threadpool(page, False, given, wrong), 422)
        return back("/plan")

    async def clear(request: Request) -> Response:
        await web.write(_clear)
        return back("/plan")

    async def calendar(request: Request) -> Response:
        content = await run_in_threadpool(_calendar)
        if content is None:
            raise HTTPException(404, "There is no plan to write.")
        name = {"Content-Disposition": 'attachment; filename="kata-plan.ics"'}
        return Response(content, headers=name, media_type="text/calendar")

    return [
        Route("/plan", plan),
        Route("/plan", change, methods=["POST"]),
        Route("/plan/clear", clear, methods=["POST"]),
        Route("/plan.ics", calendar),
    ]


def page(
    all_: bool, given: dict[str, str] | None = None, wrong: dict[str, str] | None = None
) -> str:
    """How the plan works out, by day, and the form to change it; with `all_` every day, and what is
    left out by name. given, wrong: what was sent that cannot be, and why, by field."""
    now = clock.now().astimezone()
    with Store.open(create=False) as store:
        plan, outlook = plans.stored(store.settings), _outlook(store, now)
    if plan is not None and outlook is not None:
        values = str(plan.interview), str(plan.minutes_per_day), plan.deck
    else:
        values = "", "", bank.CORE
    return pages.render(
        "plan.html",
        plan=plan,
        outlook=outlook,
        rows=[] if outlook is None else _rows(outlook, all_),
        all=all_,
        values={**dict(zip(_FIELDS, values, strict=True)), **(given or {})},
        wrong=wrong or {},
        decks=bank.CHOICES,
        fewest=plans.FEWEST_MINUTES,
        most=plans.MOST_MINUTES,
        days=days,
        counted=counted,
    )


def _rows(outlook: Outlook, all_: bool) -> list[tuple[date, float, str]]:
    """Each day, its minutes, and what it holds."""
    shown, names = outlook.forecast.days, None
    if not all_:
        shown, names = shown[: days.WEEK], days.SHOWN_NAMES
    return [(day.day, day.minutes, days.of_day(day, names)) for day in shown]


def _change(given: dict[str, str]) -> dict[str, str]:
    """Store the plan; returns what is wrong by field, and stores nothing then."""
    today = plans.study_day(clock.now().astimezone())
    wrong: dict[str, str] = {}
    day, minutes = _day(given, wrong), _minutes(given, wrong)
    deck = given.get("deck", bank.CORE)
    if deck not in bank.CHOICES:
        wrong["deck"] = f"There is no deck `{deck}`."
    with Store.open(create=False) as store:
        before = plans.stored(store.settings)
    try:
        if day is not None:
            least = minutes or plans.FEWEST_MINUTES  # for what else is wrong
            changed = planning.changed(before, day, least, deck, today)
    except BadPlan as error:
        wrong[error.part] = str(error)
    if not wrong:
        with Store.open(create=True) as store:
            plans.store(store.settings, changed)
    return {part: wrong[part] for part in _FIELDS if part in wrong}


def _day(given: dict[str, str], wrong: dict[str, str]) -> date | None:
    text = given.get(planning.INTERVIEW, "").strip()
    try:
        if text:
            return planning.day_of(text)
        wrong[planning.INTERVIEW] = "Say on which day it is."
    except BadPlan as error:
        wrong[error.part] = str(error)
    return None


def _minutes(given: dict[str, str], wrong: dict[str, str]) -> int | None:
    minutes = whole(given.get(planning.MINUTES, "").strip(), 5)
    if minutes is not None and plans.FEWEST_MINUTES <= minutes <= plans.MOST_MINUTES:
        return minutes
    wrong[planning.MINUTES] = (
        f"Wanted is a whole number from {plans.FEWEST_MINUTES} to {plans.MOST_MINUTES}."
    )
    return None


def _clear() -> None:
    with Store.open(create=True) as store:
        plans.store(store.settings, None)


def _calendar() -> bytes | None:
    """The days as calendar entries; None without a plan."""
    now = clock.now().astimezone()
    with Store.open(create=False) as store:
        outlook = _outlook(store, now)
    if outlook is None:
        return None
    from grader.views import ics  # and its library

    return ics.file(outlook, now)


def _outlook(store: Store, now: datetime) -> Outlook | None:
    plan = plans.current(store.settings, now)
    return None if plan is None else planning.worked_out(store, plan, now)
