"""The report of a mock interview as one self-contained HTML page: no script, no network.

Charts are drawn for a width of 360 units, so that their text reads well in a column of 360 to
560 pixels.
"""

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from grader.interview import rubric
from grader.interview.paper import Kind
from grader.interview.report import Report, RoundReport
from grader.views import html, mathml
from grader.views import interview_report as words
from grader.views.html import circle, line, rect, shape, text
from grader.views.plain import clock

_WIDE = 360
_LEFT, _TOP, _BOTTOM = 34.0, 14.0, 150.0  # where the axes of curves stand
_SHOWN_MOCKS = 12


def page(report: Report) -> str:
    """The whole page."""
    return html.render("interview.html", layout="page.html", **values(report))


def values(report: Report) -> dict[str, object]:
    """What the template `interview.html` is filled with, beside its layout."""
    return {
        "report": report,
        "words": words,
        "charts": _charts(report),
        "grade": _grade,
        "clock": clock,
        "prose": mathml.markdown,
        "line": mathml.line,
        "earlier": report.earlier[-_SHOWN_MOCKS:],
        "rubric": (rubric.__doc__ or "").strip(),
    }


def _grade(score: float | None) -> str:
    """The class of a score, which is its colour."""
    if score is None:
        return "soft"
    return "good" if score >= 0.75 else "fair" if score >= 0.5 else "bad"


def _charts(report: Report) -> Iterator[tuple[str, Markup]]:
    """The charts with their titles."""
    yield "Time by round", _times(report.rounds)
    yield "Score by round", _scores(report.rounds)
    for round in report.rounds:
        if round.reached and round.tried:
            yield f"Gradings · {round.title}", _gradings(round)
    if report.earlier:
        yield "This mock and the earlier ones", _history(report)


def _times(rounds: Sequence[RoundReport]) -> Markup:
    """Planned minutes as tracks, used ones as bars, over-time in its own colour."""
    scale = _WIDE / max(max(r.planned_s, r.used_s) for r in rounds)
    shapes = []
    for row, r in enumerate(rounds):
        within = min(r.used_s, r.planned_s) * scale
        shapes += _row(row, r.title, f"{clock(r.used_s)} of {clock(r.planned_s)}")
        shapes += [_bar(row, 0, r.planned_s * scale, "track"), _bar(row, 0, within, "bar")]
        if r.over_s:
            shapes.append(_bar(row, within, r.over_s * scale, "over"))
    return html.svg(_WIDE, 40 * len(rounds), shapes, "Time used and planned, by round")


def _scores(rounds: Sequence[RoundReport]) -> Markup:
    scored = [r for r in rounds if r.kind is not Kind.DEBRIEF]
    shapes = []
    for row, r in enumerate(scored):
        shapes += _row(row, r.title, words.percent(r.score))
        filled = _bar(row, 0, _WIDE * (r.score or 0.0), f"fill-{_grade(r.score)}")
        shapes += [_bar(row, 0, _WIDE, "track"), filled]
    return html.svg(_WIDE, 40 * len(scored), shapes, "Score, 0 to 100, by round")


def _row(row: int, left: str, right: str) -> list[Markup]:
    """What stands above a bar."""
    y = 40 * row + 14
    return [text(0, y, left), text(_WIDE, y, right, "soft", "end")]


def _bar(row: int, x: float, wide: float, kind: str) -> Markup:
    return rect(x, 40 * row + 20, wide, 11, kind)


def _gradings(round: RoundReport) -> Markup:
    """Checks passed at each grading, over the round's minutes; par is a dashed line."""
    right = _WIDE - 8.0
    most = max(t.ran for t in round.tried) or 1
    until = max(round.par_s, round.used_s, 60.0)

    def x(seconds: float) -> float:
        return _LEFT + (right - _LEFT) * min(seconds, until) / until

    def y(passed: int) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * passed / most

    par = x(round.par_s)
    shapes = [
        *_axes(right, str(most)),
        text(_LEFT, _BOTTOM + 18, "0:00", "soft"),
        text(right, _BOTTOM + 18, clock(until), "soft", "end"),
        line(par, _TOP, par, _BOTTOM, "mark"),
        text(par - 4, _BOTTOM - 6, "par", "soft", "end"),
    ]
    path = " ".join(f"H{x(t.at_s):.1f} V{y(t.passed):.1f}" for t in round.tried)
    steps = f"M{_LEFT} {_BOTTOM} {path} H{x(round.used_s):.1f}"
    shapes.append(shape("path", d=steps, class_="curve"))
    for t in round.tried:
        kind = "fill-good" if t.passed == t.ran else "fill-fair" if t.core else "fill-bad"
        about = f"{clock(t.at_s)}: {t.passed} of {t.ran}"
        shapes.append(circle(x(t.at_s), y(t.passed), kind, about))
    return html.svg(_WIDE, _BOTTOM + 24, shapes, f"Checks passed over time in {round.title}")


def _history(report: Report) -> Markup:
    """Scores of the mocks so far, oldest left."""
    scores = [(p.number, p.score) for p in report.earlier]
    if report.verdict is not None:
        scores.append((report.number, report.verdict.score))
    scores = scores[-_SHOWN_MOCKS:]
    right = _WIDE - 16.0
    step = (right - _LEFT - 20) / max(1, len(scores) - 1)
    spots = [
        (_LEFT + 16 + step * place, _BOTTOM - (_BOTTOM - _TOP) * score)
        for place, (_, score) in enumerate(scores)
    ]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    shapes = [*_axes(right + 8, "100"), shape("polyline", points=points, class_="curve")]
    for (x, y), (number, score) in zip(spots, scores):
        shapes.append(circle(x, y, f"fill-{_grade(score)}"))
        shapes.append(text(x, max(y - 9, 11), words.percent(score), "", "middle"))
        shapes.append(text(x, _BOTTOM + 18, f"{number}", "soft", "middle"))
    return html.svg(_WIDE, _BOTTOM + 24, shapes, "Scores of the mocks so far")


def _axes(right: float, highest: str) -> list[Markup]:
    return [
        line(_LEFT, _BOTTOM, right, _BOTTOM, "axis"),
        line(_LEFT, _TOP, _LEFT, _BOTTOM, "axis"),
        text(_LEFT - 6, _TOP + 5, highest, "soft", "end"),
        text(_LEFT - 6, _BOTTOM + 4, "0", "soft", "end"),
    ]
