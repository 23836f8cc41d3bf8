"""The pages of `kata today` and `kata plan`."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime

from grader.practice.plan import Day, Forecast, Item, Plan
from grader.recall.agenda import BUG, KATA, QUESTION, Agenda, Entry
from grader.views.plain import columns, counted, paint, wrapped

_SHOWN_DAYS = 14
_HEAD = ("day", "min", "questions new", "again", "katas new", "again")
_THINGS = {QUESTION: "question", KATA: "kata", BUG: "bug hunt"}


def page(agenda: Agenda, width: int, colour: bool) -> list[str]:
    """What is due, what is new, the minutes, and the command to begin with."""
    lines = [paint(long_day(agenda.day), "bold", colour)]
    if agenda.plan is not None:
        lines += wrapped(_until(agenda.plan, agenda.day, agenda.done_minutes), width)
    entries = [*agenda.due, *agenda.new]
    if not entries:
        return [*lines, "", *wrapped(_nothing(agenda), width)]
    table = columns((_cells(entry) for entry in entries), right=frozenset({2}))
    rows = dict(zip(entries, table, strict=True))
    for title, some in (("Due", agenda.due), ("New", agenda.new)):
        if some:
            lines += ["", paint(title, "bold", colour)]
            lines += ["  " + _cut(rows[entry], width - 2) for entry in some]
    total = f"{_counts(e.item for e in entries)}: {minutes(agenda.minutes)}."
    first, *rest = (f"`{command}`" for command in commands(agenda))
    begin = [f"Begin: {first}.", *(f"Then: {command}." for command in rest)]
    return [*lines, "", *wrapped(total, width), *begin]


def commands(agenda: Agenda) -> list[str]:
    """What to type for each kind of thing on the agenda, in the order they come."""
    found: dict[str, str] = {}
    for entry in (*agenda.due, *agenda.new):
        words = {KATA: f"kata start {entry.name}", BUG: f"kata bug {entry.name}"}
        found.setdefault(entry.kind, words.get(entry.kind, "kata quiz"))
    return list(found.values())


def _nothing(agenda: Agenda) -> str:
    if agenda.plan is not None and agenda.done_minutes:
        return f"Today's {agenda.plan.minutes_per_day} minutes are done."
    if agenda.plan is not None:
        return "Nothing fits into today's minutes. `kata plan` says what would."
    if agenda.next_due is None:
        return "Nothing is due."
    return f"Nothing is due. Next: {short_day(agenda.next_due.astimezone().date())}."


def _until(plan: Plan, today: date, done: float) -> str:
    left = (plan.interview - today).days
    when = f"in {counted(left, 'day')}, {short_day(plan.interview)}" if left else "today"
    return f"Interview {when}. {_number(done)} of {plan.minutes_per_day} minutes done."


def _cells(entry: Entry) -> tuple[str, ...]:
    return (_THINGS[entry.kind], entry.name, minutes(entry.item.minutes), entry.about)


def planned(
    plan: Plan, outlook: Forecast, seen: tuple[int, int], today: date, width: int, colour: bool
) -> list[str]:
    """How the plan works out. `seen`: how many things have been seen already, and of how many."""
    left = max((plan.interview - today).days, 1)
    lines = [
        paint(f"Interview on {long_day(plan.interview)}", "bold", colour),
        *wrapped(
            f"{counted(left, 'day')} of {plan.minutes_per_day} minutes. "
            f"Seen so far: {seen[0]} of {seen[1]}. {_enough(outlook)}",
            width,
        ),
        *wrapped(
            f"What you will know on the day, about: {outlook.recall_now:.0%} if you stop now, "
            f"{outlook.recall_then:.0%} with the plan.",
            width,
        ),
        "",
    ]
    rows = [_day(day) for day in outlook.days[:_SHOWN_DAYS]]
    table = columns([_HEAD, *rows], right=frozenset(range(1, len(_HEAD))))
    lines += ["  " + paint(table[0], "dim", colour), *(f"  {line}" for line in table[1:])]
    if left > len(rows):
        lines.append(f"  … and {counted(left - len(rows), 'more day')}")
    if outlook.left_out:
        lines += ["", paint("Left out, least valuable first", "bold", colour)]
        table = columns(_missing(plan, outlook.left_out), right=frozenset({2}))
        lines += [f"  {_cut(line, width - 2)}" for line in table]
        if any(item.minutes > plan.minutes_per_day for item in outlook.left_out):
            lines.append("  * longer than a day's minutes")
    return [*lines, "", "Next: `kata today`."]


def _enough(outlook: Forecast) -> str:
    if not outlook.left_out:
        last = max((day.day for day in outlook.days if day.new), default=None)
        if last is None:
            return "All has been seen; the minutes go to what would be forgotten."
        return f"The minutes suffice: all has been seen by {short_day(last)}."
    more = outlook.enough_minutes
    what = _counts(outlook.left_out)
    cure = f"{more} minutes a day would hold all." if more else "Only more days would help."
    verb = "stays" if len(outlook.left_out) == 1 else "stay"
    return f"The minutes do not suffice: {what} {verb} out. {cure}"


def _missing(plan: Plan, left_out: Sequence[Item]) -> Iterable[tuple[str, ...]]:
    for item in left_out:
        name = item.key.partition(":")[2]
        mark = "*" if item.minutes > plan.minutes_per_day else ""
        yield (_THINGS[item.kind], name, minutes(item.minutes), mark)


def _day(day: Day) -> tuple[str, ...]:
    counts = [
        sum((item.kind == QUESTION) == asked for item in items)
        for asked in (True, False)
        for items in (day.new, day.again)
    ]
    return (short_day(day.day), _number(day.minutes), *(str(n) if n else "–" for n in counts))


def _counts(items: Iterable[Item]) -> str:
    kinds = [item.kind for item in items]
    return ", ".join(
        counted(kinds.count(kind), thing) for kind, thing in _THINGS.items() if kind in kinds
    )


def long_day(day: date) -> str:
    return f"{day:%A}, {day.day} {day:%B %Y}"


def short_day(day: date | datetime) -> str:
    return f"{day:%a} {day.day} {day:%b}"


def minutes(number: float) -> str:
    return f"{_number(number)} min"


def _number(number: float) -> str:
    return f"{number:.0f}"


def _cut(text: str, width: int) -> str:
    """What fits of a row, up to a word; what a thing is and its name always."""
    if len(text) <= width:
        return text
    head = text[: text.rfind(" ", 0, width)].rstrip()
    return (head if len(head.split()) > 1 else " ".join(text.split()[:2])) + "…"
