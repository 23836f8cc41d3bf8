"""The report of a mock interview as one self-contained HTML page: no script, no network.

Charts are inline SVG, drawn for a width of 360 units, so that their text reads well in a column
of 360 to 560 pixels; colours are variables that follow the reader's light or dark preference.
"""

from collections.abc import Sequence
from html import escape

from grader.interview.paper import Kind
from grader.interview.report import Past, Report, RoundReport, Said
from grader.views import interview_report as words
from grader.views.maths import markdown
from grader.views.plain import clock

_WIDE = 360
_STYLE = """
:root { color-scheme: light dark; --paper: #fbfbf9; --card: #fff; --ink: #1c2128; --soft: #57606a;
  --line: #d8dee4; --good: #1a7f37; --fair: #9a6700; --bad: #cf222e; --bar: #3b6fb6;
  --track: #d9dfe6; }
@media (prefers-color-scheme: dark) { :root { --paper: #0f1318; --card: #171c23; --ink: #e6edf3;
  --soft: #9da7b3; --line: #303844; --good: #4ac26b; --fair: #d4a72c; --bad: #ff7b72;
  --bar: #6ea3ec; --track: #2a323d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
main { max-width: 1120px; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 1.6rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0; }
p, ul { margin: .3rem 0; }
ul { padding-left: 1.2rem; }
code { font: .92em ui-monospace, "DejaVu Sans Mono", monospace; }
.soft { color: var(--soft); }
.good { color: var(--good); } .fair { color: var(--fair); } .bad { color: var(--bad); }
.verdict { font-size: 1.3rem; font-weight: 700; }
.grid { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .9rem; }
.text { white-space: pre-wrap; }
.head { display: flex; justify-content: space-between; gap: 1rem; align-items: baseline; }
.score { font-weight: 700; font-variant-numeric: tabular-nums; }
.said { border-left: 3px solid var(--line); padding-left: .7rem; white-space: pre-wrap; }
.answer + .answer { margin-top: 1rem; border-top: 1px solid var(--line); padding-top: .8rem; }
.parts { list-style: none; padding: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .25rem 1.2rem .25rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: normal; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
svg { display: block; width: 100%; max-width: 560px; height: auto; }
svg text { fill: var(--ink); font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
svg text.soft { fill: var(--soft); }
svg .track { fill: var(--track); } svg .bar { fill: var(--bar); } svg .over { fill: var(--bad); }
svg .fill-good { fill: var(--good); } svg .fill-fair { fill: var(--fair); }
svg .fill-bad { fill: var(--bad); }
svg .axis { stroke: var(--line); } svg .mark { stroke: var(--soft); stroke-dasharray: 4 3; }
svg .curve { fill: none; stroke: var(--bar); stroke-width: 2; }
"""


def page(report: Report) -> str:
    """The whole page."""
    rounds = [r for r in report.rounds if r.reached]
    parts = [
        f"<h1>{escape(words.heading(report))}</h1>",
        _verdict(report),
        f"<p class=soft>{escape(words.spent(report))}</p>",
        '<div class="grid">',
        _card("Time by round", _times(report.rounds)),
        _card("Score by round", _scores(report.rounds)),
        *(_card(f"Gradings · {r.title}", _gradings(r)) for r in rounds if r.tried),
        _card("This mock and the earlier ones", _history(report)) if report.earlier else "",
        "</div>",
        "<h2>Rounds</h2>",
        '<div class="grid">',
        *(_round(r) for r in report.rounds),
        "</div>",
        _drills(report),
        _earlier(report),
        *(_answers(r) for r in rounds if r.answers),
        _rubric(),
    ]
    body = "\n".join(part for part in parts if part)
    title = f"Mock {report.number}: {words.conclusion(report)}"
    return (
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
        '<meta name=viewport content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n"
        f"<main>\n{body}\n</main>\n</html>\n"
    )


def _class(score: float | None) -> str:
    if score is None:
        return "soft"
    return "good" if score >= 0.75 else "fair" if score >= 0.5 else "bad"


def _verdict(report: Report) -> str:
    score = report.verdict.score if report.verdict else None
    text = f'<p class="verdict {_class(score)}">{escape(words.conclusion(report))}</p>'
    if report.verdict is None:
        return text
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in report.verdict.reasons)
    return f"{text}<ul>{reasons}</ul>"


def _card(title: str, inside: str) -> str:
    return f"<section class=card><h3>{escape(title)}</h3>{inside}</section>"


def _svg(height: float, inside: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDE} {height:g}" role=img aria-label="{escape(label)}">'
        f"{''.join(inside)}</svg>"
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _rect(x: float, y: float, wide: float, high: float, kind: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:g}" width="{max(0.0, wide):.1f}" height="{high:g}" rx="2" '
        f'class="{kind}"/>'
    )


def _times(rounds: Sequence[RoundReport]) -> str:
    """Planned minutes as tracks, used ones as bars, over-time in its own colour."""
    longest = max(max(r.planned_s, r.used_s) for r in rounds)
    shapes: list[str] = []
    for row, r in enumerate(rounds):
        y, scale = 40 * row, _WIDE / longest
        shapes.append(_text(0, y + 14, r.title))
        time = f"{clock(r.used_s)} of {clock(r.planned_s)}"
        shapes.append(_text(_WIDE, y + 14, time, "soft", "end"))
        shapes.append(_rect(0, y + 20, r.planned_s * scale, 11, "track"))
        within = min(r.used_s, r.planned_s)
        shapes.append(_rect(0, y + 20, within * scale, 11, "bar"))
        if r.over_s:
            shapes.append(_rect(within * scale, y + 20, r.over_s * scale, 11, "over"))
    return _svg(40 * len(rounds), shapes, "Time used and planned, by round")


def _scores(rounds: Sequence[RoundReport]) -> str:
    scored = [r for r in rounds if r.kind is not Kind.DEBRIEF]
    shapes: list[str] = []
    for row, r in enumerate(scored):
        y = 40 * row
        shapes.append(_text(0, y + 14, r.title))
        shapes.append(_text(_WIDE, y + 14, words.percent(r.score), "soft", "end"))
        shapes.append(_rect(0, y + 20, _WIDE, 11, "track"))
        shapes.append(_rect(0, y + 20, _WIDE * (r.score or 0.0), 11, f"fill-{_class(r.score)}"))
    return _svg(40 * len(scored), shapes, "Score, 0 to 100, by round")


def _gradings(round: RoundReport) -> str:
    """Checks passed at each grading, over the round's minutes; par is a dashed line."""
    left, right, top, bottom = 34.0, _WIDE - 8.0, 14.0, 150.0
    most = max(t.ran for t in round.tried) or 1
    until = max(round.par_s, round.used_s, 60.0)

    def x(seconds: float) -> float:
        return left + (right - left) * min(seconds, until) / until

    def y(passed: int) -> float:
        return bottom - (bottom - top) * passed / most

    shapes = [
        f'<line class=axis x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}"/>',
        f'<line class=axis x1="{left}" y1="{top}" x2="{left}" y2="{bottom}"/>',
        _text(left - 6, top + 5, str(most), "soft", "end"),
        _text(left - 6, bottom + 4, "0", "soft", "end"),
        _text(left, bottom + 18, "0:00", "soft"),
        _text(right, bottom + 18, clock(until), "soft", "end"),
        f'<line class=mark x1="{x(round.par_s):.1f}" y1="{top}" x2="{x(round.par_s):.1f}" '
        f'y2="{bottom}"/>',
        _text(x(round.par_s) - 4, bottom - 6, "par", "soft", "end"),
    ]
    path = " ".join(f"H{x(t.at_s):.1f} V{y(t.passed):.1f}" for t in round.tried)
    shapes.append(f'<path class=curve d="M{left} {bottom} {path} H{x(round.used_s):.1f}"/>')
    for t in round.tried:
        kind = "fill-good" if t.passed == t.ran else "fill-fair" if t.core else "fill-bad"
        shapes.append(
            f'<circle cx="{x(t.at_s):.1f}" cy="{y(t.passed):.1f}" r="4" class="{kind}">'
            f"<title>{clock(t.at_s)}: {t.passed} of {t.ran}</title></circle>"
        )
    return _svg(bottom + 24, shapes, f"Checks passed over time in {round.title}")


def _history(report: Report) -> str:
    """Scores of the mocks so far, oldest left."""
    points = [(p.number, p.score) for p in report.earlier]
    if report.verdict is not None:
        points.append((report.number, report.verdict.score))
    points = points[-12:]
    left, right, top, bottom = 34.0, _WIDE - 16.0, 14.0, 150.0
    step = (right - left - 20) / max(1, len(points) - 1)
    spots = [
        (left + 16 + step * place, bottom - (bottom - top) * score, number, score)
        for place, (number, score) in enumerate(points)
    ]
    shapes = [
        f'<line class=axis x1="{left}" y1="{bottom}" x2="{right + 8}" y2="{bottom}"/>',
        f'<line class=axis x1="{left}" y1="{top}" x2="{left}" y2="{bottom}"/>',
        _text(left - 6, top + 5, "100", "soft", "end"),
        _text(left - 6, bottom + 4, "0", "soft", "end"),
        f'<polyline class=curve points="{" ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in spots)}"/>',
    ]
    for x, y, number, score in spots:
        shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="fill-{_class(score)}"/>')
        shapes.append(_text(x, max(y - 9, 11), words.percent(score), "", "middle"))
        shapes.append(_text(x, bottom + 18, f"{number}", "soft", "middle"))
    return _svg(bottom + 24, shapes, "Scores of the mocks so far")


def _round(round: RoundReport) -> str:
    score = ""
    if round.kind is not Kind.DEBRIEF:
        score = f'<span class="score {_class(round.score)}">{words.percent(round.score)}</span>'
    over = f", <span class=bad>{clock(round.over_s)} over</span>" if round.over_s else ""
    lines = [
        f"<div class=head><h3>{escape(round.title)}</h3>{score}</div>",
        f"<p class=soft>{clock(round.used_s)} of {clock(round.planned_s)}{over}</p>",
    ]
    about = words.facts(round)
    if about:
        lines.append(f"<p>{escape(', '.join(about))}</p>")
    if round.parts:
        cells = "".join(
            f'<li class="{"good" if p.passed == p.ran else "bad"}">'
            f"{'✓' if p.passed == p.ran else '✗'} {escape(p.name)} {p.passed}/{p.ran}</li>"
            for p in round.parts
        )
        lines.append(f"<ul class=parts>{cells}</ul>")
    lines += [f"<p class=bad>✗ {escape(bug)}</p>" for bug in round.bugs]
    if round.diagnosis:
        lines.append(f"<p>Diagnosis: {escape(round.diagnosis)}</p>")
    return f"<section class=card>{''.join(lines)}</section>"


def _drills(report: Report) -> str:
    items = "".join(
        f"<li><code>{escape(d.command)}</code> <span class=soft>{escape(d.why)}</span></li>"
        for d in report.drills
    )
    return f"<h2>Drill next</h2><ul>{items}</ul>" if items else ""


def _earlier(report: Report) -> str:
    if not report.earlier:
        return ""
    head = "<tr><th class=number>mock<th>date<th>level<th class=number>score<th>verdict</tr>"
    rows = "".join(_past(p) for p in report.earlier[-12:])
    return (
        f"<h2>Earlier mocks</h2><div class=scroll><table>{head}{rows}</table></div>"
        f"<p>{escape(words.change(report))}</p>"
    )


def _past(past: Past) -> str:
    date = words.date(past.at).partition(" ")[0]
    return (
        f"<tr><td class=number>{past.number}<td>{date}<td>{escape(past.level)}"
        f"<td class=number>{words.percent(past.score)}<td>{escape(past.hire)}</tr>"
    )


def _answers(round: RoundReport) -> str:
    inside = "".join(_answer(answer) for answer in round.answers)
    return f"<h2>Answers · {escape(round.title)}</h2><section class=card>{inside}</section>"


def _answer(answer: Said) -> str:
    prompt = escape("\n".join(markdown(answer.prompt, 100_000, False)))
    text = answer.text or ("not answered" if answer.skipped else "said aloud")
    return (
        f"<div class=answer><p class=text><b>{prompt}</b></p>"
        f"<p class=said>{escape(text)}</p>"
        f"<p class=soft>{escape(words.judgement(answer))}</p></div>"
    )


def _rubric() -> str:
    from grader.interview import rubric

    return (
        "<h2>How this is scored</h2><details class=card><summary>The rubric</summary>"
        f"<pre class=text>{escape((rubric.__doc__ or '').strip())}</pre></details>"
    )
