"""The pages of `kata today` and `kata plan`."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime

from grader.practice.plan import HUNT, MOCK, Day, Forecast, Item, Plan, Stop
from grader.recall.agenda import BUG, KATA, QUESTION, Agenda, Entry
from grader.recall.bank import CORE
from grader.recall.planning import Outlook
from grader.views.plain import columns, counted, paint, wrapped

WEEK = 7  # days of a plan that are shown unless all are wanted
_NARROW = 60  # what a day holds stands beside it from here on
_TITLES = 72  # what a kata or question is about has its column from here on
_SHOWN, SHOWN_NAMES = 12, 5
_SHOWN_BEYOND = 5
THINGS = {QUESTION: "question", KATA: "kata", BUG: "bug hunt"}
STOPS = {MOCK: "mock interview", HUNT: "bug hunt"}
_COMMANDS = {MOCK: "kata mock --minutes {}", HUNT: "kata bug"}


def page(agenda: Agenda, width: int, colour: bool) -> list[str]:
    """What is due, what is new, the minutes, and the command to begin with."""
    lines = [paint(long_day(agenda.day), "bold", colour)]
    if agenda.plan is not None:
        lines += wrapped(until(agenda.plan, agenda.day, agenda.done_minutes), width)
    lists = (agenda.due[:_SHOWN], agenda.new[:_SHOWN], agenda.beyond[:_SHOWN_BEYOND])
    entries = [entry for some in lists for entry in some]
    rows = {}
    if entries:
        shown = len(_cells(entries[0])) - (width < _TITLES)
        table = columns((_cells(entry)[:shown] for entry in entries), right=frozenset({2}))
        rows = dict(zip(entries, table, strict=True))
    for stop, takes in agenda.stops:
        lines += ["", paint("On this day", "bold", colour), f"  {_stop(stop, takes)}"]
    before = "Due" if agenda.plan is None else "Again"
    for title, some in ((before, agenda.due), ("New", agenda.new)):
        if some:
            lines += ["", paint(title, "bold", colour)]
            lines += _rows(some, rows, _SHOWN, width)
    if agenda.stops or agenda.due or agenda.new:
        items = [e.item for e in (*agenda.due, *agenda.new)]
        things = [counts(items)] * bool(items) + [STOPS[stop.kind] for stop, _ in agenda.stops]
        lines += ["", *wrapped(f"{', '.join(things)}: {minutes(agenda.minutes)}.", width)]
        first, *rest = (f"`{command}`" for command in commands(agenda))
        lines += [f"Begin: {first}.", *(f"Then: {command}." for command in rest)]
    else:
        lines += ["", *wrapped(nothing(agenda), width)]
    if not agenda.beyond:
        return lines
    lines += ["", paint("Due as well, beyond the plan's minutes", "bold", colour)]
    lines += _rows(agenda.beyond, rows, _SHOWN_BEYOND, width)
    planned = any(entry.kind == QUESTION for entry in (*agenda.due, *agenda.new))
    ask = "kata quiz --ask ID" if planned else "kata quiz"  # which turns to these once it can
    return [*lines, *wrapped(f"If there is time: `{ask}`, `kata start SLUG`.", width)]


def _rows(entries: Sequence[Entry], rows: Mapping[Entry, str], shown: int, width: int) -> list[str]:
    """The rows of the first of them, and how many more there are."""
    lines = ["  " + _cut(rows[entry], width - 2) for entry in entries[:shown]]
    more = len(entries) - shown
    return [*lines, f"  … and {more} more"] if more > 0 else lines


def commands(agenda: Agenda) -> list[str]:
    """What to type for each kind of thing on the agenda, in the order they come."""
    found = {stop.kind: _COMMANDS[stop.kind].format(f"{takes:.0f}") for stop, takes in agenda.stops}
    for entry in (*agenda.due, *agenda.new):
        words = {KATA: f"kata start {entry.name}", BUG: f"kata bug {entry.name}"}
        found.setdefault(entry.kind, words.get(entry.kind, "kata quiz"))
    return list(found.values())


def nothing(agenda: Agenda) -> str:
    if agenda.plan is not None and agenda.done_minutes:
        return f"Today's {agenda.plan.minutes_per_day} minutes are done."
    if agenda.plan is not None:
        return "Nothing fits into today's minutes. `kata plan` says what would."
    if agenda.next_due is None:
        return "Nothing is due."
    return f"Nothing is due. Next: {short_day(agenda.next_due.astimezone().date())}."


def until(plan: Plan, today: date, done: float) -> str:
    left = (plan.interview - today).days
    when = f"in {counted(left, 'day')}, {short_day(plan.interview)}" if left else "today"
    return f"Interview {when}. {_number(done)} of {plan.minutes_per_day} minutes done."


def _cells(entry: Entry) -> tuple[str, ...]:
    return (THINGS[entry.kind], entry.name, minutes(entry.item.minutes), entry.about)


def heading(plan: Plan) -> str:
    return f"Interview on {long_day(plan.interview)}"


def in_short(shown: Outlook) -> list[str]:
    """What a plan comes to: minutes, what was seen, what will be known, what was missed."""
    plan, forecast = shown.plan, shown.forecast
    told = [
        f"{counted(_days(shown), 'day')} of {plan.minutes_per_day} minutes{_deck(plan)}. "
        f"Seen so far: {shown.seen[0]} of {shown.seen[1]}. {_enough(forecast)}",
        f"What you will know on the day, about: {forecast.recall_now:.0%} if you stop now, "
        f"{forecast.recall_then:.0%} with the plan.",
    ]
    return [*told, missed(shown)] if shown.missed else told


def planned(shown: Outlook, all_: bool, width: int, colour: bool) -> list[str]:
    """How the plan works out: the week by day, and in a line what is left out; with `all_` every
    day, and what is left out by name."""
    plan, outlook = shown.plan, shown.forecast
    lines = [paint(heading(plan), "bold", colour)]
    for text in in_short(shown):
        lines += wrapped(text, width)
    if outlook.left_out and not all_:
        lines += wrapped(f"Left out: {counts(outlook.left_out)} (--all names them).", width)
    days = outlook.days if all_ else outlook.days[:WEEK]
    lines.append("")
    before = None
    for day in days:
        if before is not None and (day.day - before).days > 1:
            lines.append("  …")
        head = f"  {short_day(day.day):10}  {_number(day.minutes):>3} min  "
        text = of_day(day, None if all_ else SHOWN_NAMES, "\u00a0")
        told = wrapped(text, width, head)
        if width < _NARROW:
            told = [head.rstrip(), *wrapped(text, width, "    ")]
        lines += [line.replace("\u00a0", " ") for line in told]
        before = day.day
    if text := later(shown, len(days)):
        lines += wrapped(text, width, "  ", "    ")
    if outlook.left_out and all_:
        lines += ["", paint("Left out, least valuable first", "bold", colour)]
        table = columns(missing(plan, outlook.left_out), right=frozenset({2}))
        lines += [f"  {_cut(line, width - 2)}" for line in table]
        if any(item.minutes > plan.minutes_per_day for item in outlook.left_out):
            lines.append("  * longer than a day's minutes")
    return [*lines, "", "Next: `kata today`."]


def of_day(day: Day, names: int | None = None, gap: str = " ") -> str:
    """What a day of a plan holds: stops, katas by name (so many at most), questions by topic.
    gap: stands between a number and its topic."""
    parts = [_stop(stop, takes) for stop, takes in day.stops]
    for word, items in (("", day.new), ("again ", day.again)):
        found = [_name(item) for item in items if item.kind != QUESTION]
        if found:
            rest = len(found) - len(found[:names])
            more = f" and {rest} more" if rest else ""
            parts.append(f"{word}{', '.join(found[:names])}{more}")
    topics = Counter(i.topic for i in (*day.new, *day.again) if i.kind == QUESTION)
    if topics:
        listed = ", ".join(f"{number}{gap}{topic}".strip() for topic, number in topics.items())
        parts.append(f"questions: {listed}")
    return "; ".join(parts) or "nothing that fits"


def missed(shown: Outlook) -> str:
    """That days went by without practice, and what became of what they held."""
    if len(shown.missed) == 1:
        return f"{short_day(shown.missed[0])} was missed: the plan has moved on."
    first, last = shown.missed[0], shown.missed[-1]
    return f"Missed: {short_day(first)} to {short_day(last)}. The plan has moved on."


def later(shown: Outlook, number: int) -> str:
    """The days after the first so many, with what has its date on them; nothing if there are
    none."""
    more = _days(shown) - number
    if more <= 0:
        return ""
    days = shown.forecast.days[number:]
    dated = [f"{STOPS[stop.kind]} {short_day(day.day)}" for day in days for stop, _ in day.stops]
    text = f"… and {counted(more, 'more day')}"
    if dated:
        text += f": {', '.join(dated[:SHOWN_NAMES])}{', …' if dated[SHOWN_NAMES:] else ''}"
    return text


def _days(shown: Outlook) -> int:
    return max((shown.plan.interview - shown.today).days, 1)


def _stop(stop: Stop, takes: float) -> str:
    return f"{STOPS[stop.kind]} ({minutes(takes)})"


def _name(item: Item) -> str:
    kind, _, name = item.key.partition(":")
    return f"hunt on {name}" if kind == BUG else name


def _deck(plan: Plan) -> str:
    return f", deck {plan.deck}" if plan.deck != CORE else ""


def _enough(outlook: Forecast) -> str:
    if not outlook.left_out:
        last = max((day.day for day in outlook.days if day.new), default=None)
        if last is None:
            return "All has been seen; the minutes go to what would be forgotten."
        return f"The minutes suffice: all has been seen by {short_day(last)}."
    more = outlook.enough_minutes
    return f"The minutes do not suffice; {f'{more} a day' if more else 'only more days'} would."


def missing(plan: Plan, left_out: Sequence[Item]) -> Iterable[tuple[str, ...]]:
    """What a thing is, its name, its minutes, and a mark if no day has so many."""
    for item in left_out:
        name = item.key.partition(":")[2]
        mark = "*" if item.minutes > plan.minutes_per_day else ""
        yield (THINGS[item.kind], name, minutes(item.minutes), mark)


def counts(items: Iterable[Item]) -> str:
    """1 question, 2 katas."""
    kinds = [item.kind for item in items]
    return ", ".join(
        counted(kinds.count(kind), thing) for kind, thing in THINGS.items() if kind in kinds
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
