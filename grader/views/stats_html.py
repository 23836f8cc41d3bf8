"""`kata stats --html`: the charts as one page that needs nothing else, light and dark."""

from collections.abc import Mapping, Sequence
from datetime import date

from markupsafe import Markup

from grader.catalog import Card
from grader.practice.statistics import Statistics
from grader.store.attempts import Solve
from grader.views import html
from grader.views import stats as words
from grader.views.html import circle, line, rect, shape, text

_CELL = 14
_CHART = (400, 200)
_MARGIN = (34, 12, 24, 12)  # left, right, bottom, top
_HIGHEST = 3.0  # times par; what took longer stands at the edge


def page(stats: Statistics, cards: Mapping[str, Card]) -> str:
    """The whole page as HTML. cards: the catalogue's cards by slug."""
    return html.render("stats.html", layout="page.html", **values(stats, cards))


def values(stats: Statistics, cards: Mapping[str, Card]) -> dict[str, object]:
    """What the template `stats.html` is filled with, beside its layout."""
    numbers = (
        (stats.streak, "days in a row"),
        (stats.longest, "the longest run"),
        (stats.answers, "answers"),
        (stats.attempts, "attempts"),
        (words.passed(stats), "katas passed"),
    )
    return {
        "stats": stats,
        "cards": cards,
        "words": words,
        "long": _long,
        "share": _share,
        "numbers": numbers,
        "days": _days(stats),
        "solves": _solves(stats.solves, cards) if stats.solves else None,
    }


def _share(recall: float) -> Markup:
    """A bar as long as this share of its column, 0 to 1."""
    box = {"viewBox": "0 0 100 8", "preserveAspectRatio": "none", "aria_hidden": "true"}
    return shape("svg", rect(0, 0, 100 * recall, 8, "bar"), **box)


def _days(stats: Statistics) -> Markup:
    """The heat map: a column per week, with the months above and the key below."""
    left, top = 30, 16
    shapes = []
    shown_month = None
    for column, week in enumerate(words.weeks(stats, words.WEEKS)):
        x = left + column * _CELL
        for row, day in enumerate(week):
            if day is None:
                continue
            if day.day <= 7 and day.month != shown_month:
                shown_month = day.month
                shapes.append(text(x, 10, f"{day:%b}", "soft"))
            number = stats.days.get(day, 0)
            about = f"{_long(day)}: {number}"
            shapes.append(_day(x, top + row * _CELL, words.heat(number), about))
    for row, name in ((0, "Mon"), (2, "Wed"), (4, "Fri"), (6, "Sun")):
        shapes.append(text(0, top + row * _CELL + 10, name, "soft"))
    y = top + 7 * _CELL + 8
    for step, (least, _) in enumerate(words.HEAT):
        x = left + step * 50
        shapes += [
            _day(x, y, step),
            text(x + 17, y + 10, f"{least}{'+' if least else ''}", "soft"),
        ]
    width = left + words.WEEKS * _CELL
    return html.svg(width, y + 14, shapes, "Answers and attempts per day")


def _day(x: float, y: float, step: int, title: str = "") -> Markup:
    return rect(x, y, 12, 12, f"heat-{step}", title)


def _solves(solves: Sequence[Solve], cards: Mapping[str, Card]) -> Markup:
    """A point per solve, those of one kata joined; the line at 1 is par."""
    (width, height), (left, right, bottom, top) = _CHART, _MARGIN
    begin, end = solves[0].at, solves[-1].at
    span = (end - begin).total_seconds() or 1.0

    def place(solve: Solve) -> tuple[float, float]:
        share = (solve.at - begin).total_seconds() / span
        ratio = min(words.against_par(solve, cards), _HIGHEST)
        return left + 8 + share * (width - left - right - 16), level(ratio)

    def level(ratio: float) -> float:
        return height - bottom - ratio / _HIGHEST * (height - bottom - top)

    shapes = []
    for times, name in enumerate(("0", "par", "2×", "3×")):
        y = level(times)
        shapes.append(line(left, y, width - right, y, "par" if name == "par" else "faint"))
        shapes.append(text(left - 6, y + 3, name, "soft", "end"))
    for slug in dict.fromkeys(solve.slug for solve in solves):
        places = [place(solve) for solve in solves if solve.slug == slug]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        shapes.append(shape("polyline", points=points, class_="joined"))
    for solve in solves:
        about = f"{solve.slug}, {_long(solve.at.astimezone().date())}"
        ratio = words.against_par(solve, cards)
        shapes.append(circle(*place(solve), "bar", f"{about}: {ratio:.1f} times par"))
    shapes.append(text(left + 8, height - 8, _short(begin.astimezone().date()), "soft"))
    if begin.date() != end.date():
        last = _short(end.astimezone().date())
        shapes.append(text(width - right, height - 8, last, "soft", "end"))
    return html.svg(width, height, shapes, "Time of each solved kata as a multiple of its par time")


def _long(day: date) -> str:
    return f"{day.day} {day:%B %Y}"


def _short(day: date) -> str:
    return f"{day.day} {day:%b}"
