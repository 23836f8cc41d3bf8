"""`kata stats --html`: the charts as one page that needs nothing else, light and dark."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from html import escape

from grader.catalog import Card
from grader.practice.statistics import KataRecord, Statistics
from grader.render.stats import HEAT, WEEKS, against_par, command, heat, times, totals, weeks
from grader.store.attempts import Solve

_CELL = 14
_CHART = (400, 200)
_MARGIN = (34, 12, 24, 12)  # left, right, bottom, top
_EMPTY = "Nothing is recorded yet: the charts grow as you practise."
_HIGHEST = 3.0  # times par; what took longer stands at the edge

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5b626a; --line: #d8dce1; --paper: #fff;
  --box: #f5f7f9; --bar: #2563a8; --weak: #b45309; --h0: #e6e9ed; --h1: #b9d4f0; --h2: #7fb0e2;
  --h3: #3f83c6; --h4: #174a82; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #a0a8b1; --line: #363c44;
  --paper: #14171a; --box: #1d2126; --bar: #6aa9e9; --weak: #f0a94a; --h0: #262b31; --h1: #1e4468;
  --h2: #2f6da6; --h3: #5c9fdc; --h4: #aed4f7; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 60rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 0 0 .75rem; }
p, footer { color: var(--soft); margin: .25rem 0 0; }
section { background: var(--box); border: 1px solid var(--line); border-radius: .6rem;
  padding: 1rem; margin-top: 1rem; min-width: 0; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(7rem, 1fr)); gap: .75rem; }
.numbers b { display: block; font-size: 1.6rem; line-height: 1.2; }
.numbers span { color: var(--soft); font-size: .9rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr));
  column-gap: 1rem; }
.wide { overflow-x: auto; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 11px; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
.bar { width: 45%; }
.bar div { height: .7rem; border-radius: .2rem; background: var(--bar); min-width: 2px; }
.weak .bar div { background: var(--weak); }
.weak td:first-child::after { content: " weakest"; color: var(--weak); font-size: .8rem; }
code { font-size: .9em; overflow-wrap: anywhere; white-space: normal; }
@media (max-width: 36rem) {
  .katas tr { display: flex; flex-wrap: wrap; column-gap: 1rem; padding: .3rem 0;
    border-bottom: 1px solid var(--line); }
  .katas tr:first-child { display: none; }
  .katas td { border: 0; padding: 0; }
  .katas td:first-child { flex-basis: 100%; font-weight: 600; }
  .katas td[data-name]::before { content: attr(data-name) " "; color: var(--soft); }
}
"""


def page(stats: Statistics, cards: Mapping[str, Card]) -> str:
    """The whole page as HTML. cards: the catalogue's cards by slug."""
    body = _body(stats, cards) if stats.days else f"<p>{_EMPTY}</p>"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>kata stats, {stats.day}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Practice up to {_long(stats.day)}</h1>
{body}
</body>
</html>
"""


def _body(stats: Statistics, cards: Mapping[str, Card]) -> str:
    parts = [
        f"<p>{escape(totals(stats))}</p>",
        _numbers(stats),
        _section("Days", _heat_map(stats)),
        '<div class="pair">',
        _section("Recall of the questions seen, predicted for now", _topics(stats)),
        _section("Weakest", _weakest(stats)),
        "</div>",
    ]
    if stats.solves:
        parts.append(_section("Time against par, over time", _chart(stats.solves, cards)))
    if stats.katas:
        parts.append(_section("Katas", _katas(stats.katas, cards)))
    return "\n".join(parts)


def _section(title: str, inner: str) -> str:
    return f"<section><h2>{title}</h2>{inner}</section>"


def _numbers(stats: Statistics) -> str:
    passed = sum(kata.level == "complete" for kata in stats.katas)
    numbers = (
        (stats.streak, "days in a row"),
        (stats.longest, "the longest run"),
        (stats.answers, "answers"),
        (stats.attempts, "attempts"),
        (passed, "katas passed"),
    )
    cells = (f"<div><b>{number}</b><span>{what}</span></div>" for number, what in numbers)
    return f'<section class="numbers">{"".join(cells)}</section>'


def _heat_map(stats: Statistics) -> str:
    left, top = 30, 16
    shapes = []
    shown_month = None
    for column, week in enumerate(weeks(stats, WEEKS)):
        x = left + column * _CELL
        for row, day in enumerate(week):
            if day is None:
                continue
            if day.day <= 7 and day.month != shown_month:
                shown_month = day.month
                shapes.append(f'<text x="{x}" y="10">{day:%b}</text>')
            number = stats.days.get(day, 0)
            shapes.append(
                f'<rect x="{x}" y="{top + row * _CELL}" width="12" height="12" rx="2"'
                f' fill="var(--h{heat(number)})"><title>{_long(day)}: {number}</title></rect>'
            )
    for row, name in ((0, "Mon"), (2, "Wed"), (4, "Fri"), (6, "Sun")):
        shapes.append(f'<text x="0" y="{top + row * _CELL + 10}">{name}</text>')
    y = top + 7 * _CELL + 8
    for step, (least, _) in enumerate(HEAT):
        x = left + step * 50
        shapes.append(
            f'<rect x="{x}" y="{y}" width="12" height="12" rx="2" fill="var(--h{step})"/>'
        )
        shapes.append(f'<text x="{x + 17}" y="{y + 10}">{least}{"+" if least else ""}</text>')
    return _svg(left + WEEKS * _CELL, y + 14, shapes, "Answers and attempts per day")


def _svg(width: int, height: int, shapes: Iterable[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}"'
        f' style="max-width:{round(1.6 * width)}px">{"".join(shapes)}</svg>'
    )


def _topics(stats: Statistics) -> str:
    rows = []
    for topic in stats.topics:
        weak = ' class="weak"' if topic is stats.weakest_topic else ""
        share, bar = "–", ""
        if topic.recall is not None:
            share = f"{topic.recall:.0%}"
            bar = f'<div style="width:{100 * topic.recall:.0f}%"></div>'
        rows.append(
            f'<tr{weak}><td>{topic.name}</td><td class="bar">{bar}</td><td class="n">{share}</td>'
            f'<td class="n">{topic.seen} of {topic.questions}</td></tr>'
        )
    head = '<tr><th>topic</th><th></th><th class="n">recall</th><th class="n">seen</th></tr>'
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def _weakest(stats: Statistics) -> str:
    if not stats.weakest:
        return "<p>Nothing that was seen is about to be forgotten.</p>"
    rows = (
        f'<tr><td class="n">{card.recall:.0%}</td>'
        f"<td><code>{escape(command(card.key))}</code></td></tr>"
        for card in stats.weakest
    )
    return f"<table>{''.join(rows)}</table>"


def _chart(solves: Sequence[Solve], cards: Mapping[str, Card]) -> str:
    """A point per solve, those of one kata joined; the line at 1 is par."""
    (width, height), (left, right, bottom, top) = _CHART, _MARGIN
    begin, end = solves[0].at, solves[-1].at
    span = (end - begin).total_seconds() or 1.0

    def place(solve: Solve) -> tuple[float, float]:
        share = (solve.at - begin).total_seconds() / span
        ratio = min(against_par(solve, cards), _HIGHEST)
        return left + 8 + share * (width - left - right - 16), level(ratio)

    def level(ratio: float) -> float:
        return height - bottom - ratio / _HIGHEST * (height - bottom - top)

    shapes = []
    for ratio in (0, 1, 2, 3):
        y, dash = level(ratio), "" if ratio == 1 else ' stroke-dasharray="2 4"'
        colour = "var(--weak)" if ratio == 1 else "var(--line)"
        shapes.append(
            f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"'
            f' stroke="{colour}"{dash}/>'
        )
        name = "par" if ratio == 1 else f"{ratio}×" if ratio else "0"
        shapes.append(f'<text x="{left - 6}" y="{y + 3:.1f}" text-anchor="end">{name}</text>')
    for slug in dict.fromkeys(solve.slug for solve in solves):
        places = [place(solve) for solve in solves if solve.slug == slug]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        shapes.append(
            f'<polyline points="{line}" fill="none" stroke="var(--bar)" stroke-opacity=".5"/>'
        )
    for solve in solves:
        x, y = place(solve)
        name = f"{solve.slug}, {_long(solve.at.astimezone().date())}"
        title = f"{name}: {against_par(solve, cards):.1f} times par"
        shapes.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="var(--bar)">'
            f"<title>{escape(title)}</title></circle>"
        )
    for x, anchor, at in ((left + 8, "start", begin), (width - right, "end", end)):
        text = _short(at.astimezone().date())
        shapes.append(f'<text x="{x}" y="{height - 8}" text-anchor="{anchor}">{text}</text>')
        if begin.date() == end.date():
            break
    return _svg(width, height, shapes, "Time of each solved kata as a multiple of its par time")


def _katas(katas: Sequence[KataRecord], cards: Mapping[str, Card]) -> str:
    """A table; where there is no room, a paragraph for each kata, its numbers with their names."""
    words = {"complete": "passed", "core": "core", "none": "tried"}
    names = ("attempts", "hints", "first → best", "par")
    rows = []
    for kata in katas:
        help_ = str(kata.hints) + (" and the solution" if kata.solutions else "")
        facts = (str(kata.attempts), help_, times(kata), f"{cards[kata.slug].minutes}:00")
        cells = "".join(
            f'<td class="n" data-name="{name}">{fact}</td>' for name, fact in zip(names, facts)
        )
        rows.append(f"<tr><td>{escape(kata.slug)}</td><td>{words[kata.level]}</td>{cells}</tr>")
    head = "<th>kata</th><th>status</th>" + "".join(f'<th class="n">{name}</th>' for name in names)
    return f'<div class="wide"><table class="katas"><tr>{head}</tr>{"".join(rows)}</table></div>'


def _long(day: date) -> str:
    return f"{day.day} {day:%B %Y}"


def _short(day: date) -> str:
    return f"{day.day} {day:%b}"
