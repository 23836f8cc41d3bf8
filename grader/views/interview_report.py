"""The report of a mock interview in the terminal, the same in Markdown, and the list of mocks."""

import re
from collections.abc import Sequence
from datetime import datetime

from grader.exam.verdict import Level
from grader.interview.events import Answered, Break
from grader.interview.paper import Kind, Paper
from grader.interview.report import Past, Report, RoundReport, Said
from grader.recall.bank import CORE
from grader.views.maths import markdown
from grader.views.plain import clock, columns, counted, paint, painted, wrapped

LEVELS = {Level.NONE: "core open", Level.CORE: "core complete", Level.COMPLETE: "complete"}
_TITLE, _BARS_FROM = 34, 80  # columns
_EIGHTHS = " ▏▎▍▌▋▊▉"


def date(at: datetime) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M")


def percent(score: float | None) -> str:
    return "–" if score is None else f"{round(100 * score)}"


def facts(round: RoundReport) -> list[str]:
    """What is to be said of a round beside its score and times."""
    found: list[str] = []
    if not round.reached:
        return ["not reached"]
    if round.kind in (Kind.CODING, Kind.HUNT):
        found += _on_code(round)
    answers = [a for a in round.answers if not a.followup]
    if round.answers:
        said, points = round.said
        if points:
            found.append(f"{said} of {points} points said")
        digs = [a for a in round.answers if a.followup and a.share is not None]
        if digs:
            found.append(f"follow-ups {sum(a.share or 0.0 for a in digs):g} of {len(digs)}")
        numbers = [a.correct for a in answers if a.correct is not None]
        if numbers:
            found.append(f"{sum(numbers)} of {counted(len(numbers), 'number')} right")
        skipped = sum(a.skipped for a in round.answers)
        if skipped:
            found.append(f"{skipped} not answered")
        open_ = sum(a.share is None for a in round.answers)
        if open_:
            found.append(f"{open_} not judged")
    return found


def _on_code(round: RoundReport) -> list[str]:
    found = []
    if round.kind is Kind.HUNT:
        found.append("mended" if round.passed_s is not None else "not mended")
        if round.diagnosis is not None:
            words = {True: "right", False: "wrong", None: "not judged"}
            found.append(f"diagnosis {words[round.right]}")
    else:
        passed = sum(part.passed == part.ran for part in round.parts)
        found.append(LEVELS[round.level])
        found.append(f"{passed} of {counted(len(round.parts), 'part')} passed")
    if round.passed_s is not None:
        found.append(f"solved at {clock(round.passed_s)}, par {clock(round.par_s)}")
    else:
        found.append(f"{clock(round.used_s)}, par {clock(round.par_s)}")
    found.append(counted(len(round.tried), "grading"))
    found.append(counted(round.hints, "hint"))
    return found


def settings(paper: Paper) -> str:
    """What was asked for, but for the seed."""
    focus = f", focus {paper.focus}" if paper.focus else ""
    deck = f", deck {paper.deck}" if paper.deck != CORE else ""
    return f"{paper.minutes} minutes, {paper.level}{focus}{deck}"


def heading(report: Report) -> str:
    paper = report.paper
    return f"Mock {report.number} · {date(report.at)} · {settings(paper)}, seed {paper.seed}"


def spent(report: Report) -> str:
    over = f", {clock(report.over_s)} of it over time" if report.over_s else ""
    used = f"{clock(report.used_s)} of {clock(60 * report.paper.minutes)} used{over}."
    pauses = [f"{b.reason or 'no reason'} {_stood(b)}" for b in report.breaks if not b.killed]
    kills = [_stood(b) for b in report.breaks if b.killed]
    told = [f"Paused: {', '.join(pauses)}."] if pauses else []
    if kills:
        told.append(f"Interrupted, as the program was killed, and not counted: {', '.join(kills)}.")
    return " ".join([used, *told])


def _stood(break_: Break) -> str:
    """When the clock stood, and how long."""
    long = "" if break_.away_s is None else f" for {clock(break_.away_s)}"
    return f"at {clock(break_.at_s)}{long}"


def conclusion(report: Report) -> str:
    """The verdict in a few words."""
    place = f"in round {report.left_in} of {len(report.rounds)}"
    if report.abandoned:
        return f"abandoned {place}, no verdict"
    if not report.finished:
        return f"unfinished, {place}: `kata mock --resume` goes on"
    if report.verdict is None:
        return "no verdict: nothing in it was judged"
    return f"{report.verdict.hire} ({percent(report.verdict.score)} of 100)"


def page(report: Report, width: int, colour: bool) -> list[str]:
    """The report for a terminal. What it comes to stands last, where one looks."""
    lines = painted(heading(report), "bold", width, colour)
    for round in report.rounds:
        lines += _not_covered(round, width, colour)
    for round in report.rounds:
        lines += _code(round, width, colour)
    lines.append("")
    for round in report.rounds:
        lines += _round(round, width, colour)
    lines += _compared(report, width, colour)
    style = "bold green" if report.verdict and "no" not in report.verdict.hire else "bold yellow"
    lines += ["", paint(f"Verdict: {conclusion(report)}", style, colour)]
    for reason in report.verdict.reasons if report.verdict else ():
        lines += wrapped(reason, width, "  ")
    lines += ["", *wrapped(spent(report), width)]
    if report.drills:
        lines += ["", paint("Drill next", "bold", colour)]
        for drill in report.drills:
            lines += [f"  {drill.command}", *wrapped(drill.why, width, "      ")]
    return lines


def _not_covered(round: RoundReport, width: int, colour: bool) -> list[str]:
    """What answers left out, with a good answer."""
    lines: list[str] = []
    for answer in round.answers:
        if not answer.answer:
            continue
        lines += ["", *_indented(answer.prompt, "  ", width, colour), ""]
        lines += wrapped(f"{judgement(answer)}{', without' if answer.missed else ''}", width, "  ")
        for point in answer.missed:
            lines += _indented(point, "  – ", width, colour)
        lines += ["", *painted("A good answer", "dim", width, colour, "  ")]
        lines += _indented(answer.answer, "  ", width, colour)
    head = painted(f"Not covered · {round.title}", "bold", width, colour)
    return ["", *head, *lines] if lines else []


def _indented(text: str, first: str, width: int, colour: bool) -> list[str]:
    lines = markdown(text, width - len(first), colour)
    blank = " " * len(first)
    return [f"{blank if number else first}{line}".rstrip() for number, line in enumerate(lines)]


def _code(round: RoundReport, width: int, colour: bool) -> list[str]:
    """What was coded, as it stood at the end."""
    if not round.code:
        return []
    head = painted(f"Your code at the end · {round.title}", "bold", width, colour)
    lines = ["", *head, ""]
    lines += [f"  {line}" for line in round.code.splitlines()]
    if round.reference:
        text = f"The reference: `kata solution {round.slug}`, or beside it in report.html."
        lines += ["", *wrapped(text, width, "  ", "  ")]
    return lines


def _round(round: RoundReport, width: int, colour: bool) -> list[str]:
    over = f" (+{clock(round.over_s)})" if round.over_s else ""
    time = f"{clock(round.used_s)}/{clock(round.planned_s)}{over}"
    score = "" if round.kind is Kind.DEBRIEF else f"{percent(round.score):>3}"
    bar = "" if round.score is None else bars(round.score, 10)
    row = f" {score:>3} " + (f"{bar:<10} {time}" if width >= _BARS_FROM else time)
    title = f"{round.title:<{_TITLE}}"
    lines = [f"  {paint(title, 'bold', colour)}{row}".rstrip()]
    if 2 + len(title + row.rstrip()) > width:
        lines = [*painted(round.title, "bold", width, colour, "  "), f"   {row}".rstrip()]
    about = ", ".join(facts(round))
    if about:
        lines += wrapped(about, width, "    ")
    failed = [p for p in round.parts if p.passed < p.ran]
    if failed:
        text = ", ".join(f"{part.name} {part.passed}/{part.ran}" for part in failed)
        lines += wrapped(f"open: {text}", width, "    ")
    for bug in round.bugs:
        lines += wrapped(mistake(round, bug), width, "    ", "      ")
    if round.diagnosis:
        lines += wrapped(round.diagnosis, width, "    diagnosis: ")
    return lines


def mistake(round: RoundReport, bug: str) -> str:
    """A mistake named in the round, and whether it was mended before its end."""
    return f"✓ mended: {bug}" if bug in round.mended else f"✗ {bug}"


def bars(share: float, cells: int) -> str:
    """A bar of so many character cells, filled to a share."""
    eighths = round(8 * cells * max(0.0, min(1.0, share)))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _compared(report: Report, width: int, colour: bool) -> list[str]:
    if not report.earlier:
        return []
    lines = ["", paint("Earlier mocks", "bold", colour)]
    rows = [
        (f"{p.number}", date(p.at), f"{p.minutes} min", p.level, percent(p.score), p.hire)
        for p in report.earlier[-5:]
    ]
    table = columns(rows, right=frozenset({0, 2, 4}))
    if max(map(len, table)) + 2 > width:
        slim = [(number, at[:10], score, hire) for number, at, _, _, score, hire in rows]
        table = columns(slim, right=frozenset({0, 2}))
    lines += [f"  {row}" for row in table]
    changes = change(report)
    return [*lines, *wrapped(changes, width, "  ")] if changes else lines


def change(report: Report) -> str:
    """This mock against the one before, by kind of round."""
    if not report.earlier or report.verdict is None:
        return ""
    before: Past = report.earlier[-1]
    moves = [f"whole {100 * (report.verdict.score - before.score):+.0f}"]
    for kind, score in report.kinds.items():
        if kind in before.kinds:
            moves.append(f"{kind} {100 * (score - before.kinds[kind]):+.0f}")
    return f"Against mock {before.number}: {', '.join(moves)}."


def document(report: Report) -> str:
    """The report as Markdown."""
    lines = [f"# {heading(report)}", "", f"**Verdict: {conclusion(report)}**", ""]
    if report.verdict:
        lines += [*(f"- {reason}" for reason in report.verdict.reasons), ""]
    lines += [spent(report), "", "| round | score | time | planned | over | what |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | --- |")
    for r in report.rounds:
        over = clock(r.over_s) if r.over_s else ""
        lines.append(
            f"| {r.title} | {'' if r.kind is Kind.DEBRIEF else percent(r.score)} "
            f"| {clock(r.used_s)} | {clock(r.planned_s)} | {over} | {', '.join(facts(r))} |"
        )
    for r in report.rounds:
        lines += _details(r)
    lines += ["", "## Drill next", ""]
    lines += [f"- `{drill.command}`: {drill.why}" for drill in report.drills]
    if report.earlier:
        lines += ["", "## Earlier mocks", "", "| mock | date | minutes | level | score | verdict |"]
        lines.append("| ---: | --- | ---: | --- | ---: | --- |")
        for p in report.earlier:
            lines.append(
                f"| {p.number} | {date(p.at)} | {p.minutes} | {p.level} | {percent(p.score)} "
                f"| {p.hire} |"
            )
        lines += ["", change(report)]
    return "\n".join(lines).rstrip() + "\n"


def _details(round: RoundReport) -> list[str]:
    lines: list[str] = []
    if round.parts:
        lines += ["", "| part | checks |", "| --- | ---: |"]
        lines += [f"| {part.name} | {part.passed}/{part.ran} |" for part in round.parts]
    lines += ["", *(f"- {mistake(round, bug)}" for bug in round.bugs)] if round.bugs else []
    if round.diagnosis:
        lines += ["", f"Diagnosis: {round.diagnosis}"]
    for answer in round.answers:
        lines += ["", f"**{' '.join(answer.prompt.split())}**", ""]
        told = said(answer, answer.no_number)
        lines += [f"> {text}" for text in (told if answer.text else f"({told})").split("\n")]
        lines += ["", judgement(answer)]
        lines += ["", *(f"- not said: {point}" for point in answer.missed)] if answer.missed else []
        lines += ["", "A good answer:", "", answer.answer] if answer.answer else []
    for title, code in (("Your code at the end", round.code), ("The reference", round.reference)):
        lines += ["", f"### {title}", "", *_fenced(code)] if code else []
    return ["", f"## {round.title}", *lines] if lines else []


def _fenced(code: str) -> list[str]:
    """Code in Markdown, whatever it holds."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
    return [f"{fence}python", code.rstrip("\n"), fence]


def said(answer: Said | Answered, no_number: bool) -> str:
    """What was answered, or how it was not."""
    told = answer.text.strip("\n") or ("not answered" if answer.skipped else "said aloud")
    return f"no number; {told}" if no_number and not answer.skipped else told


def judgement(answer: Said) -> str:
    """How an answer was judged."""
    found = []
    if answer.no_number:
        found.append("no number was given")
    elif answer.correct is not None:
        found.append("the number was right" if answer.correct else "the number was wrong")
    if answer.share is None:
        found.append("not compared with the rubric")
    elif answer.followup:
        found.append({1.0: "said", 0.5: "partly said"}.get(answer.share, "not said"))
    else:
        found.append(f"{answer.said} of {answer.points} points said")
    return f"{'; '.join(found)} ({answer.id})"


def _standing(report: Report) -> str:
    """The verdict, or how far it got."""
    if report.finished:
        return conclusion(report).partition(":")[0]
    word = "abandoned" if report.abandoned else "unfinished"
    return f"{word} (round {report.left_in}/{len(report.rounds)})"


def listing(reports: Sequence[Report], width: int, colour: bool) -> list[str]:
    """The page of `kata mock --list`."""
    if not reports:
        none = "No mock interview yet. `kata mock` begins one, `kata mock --plan` shows a paper."
        return wrapped(none, width)
    head = ("mock", "date", "minutes", "level", "seed", "verdict")
    rows = [
        (
            f"{r.number}",
            date(r.at),
            f"{r.paper.minutes}",
            r.paper.level,
            f"{r.paper.seed}",
            _standing(r),
        )
        for r in reports
    ]
    table = columns([head, *rows], right=frozenset({0, 2, 4}))
    slim = [(*row[:2], row[3], row[5]) for row in (head, *rows)]
    slimmest = [(row[0], row[1][:10], row[5]) for row in (head, *rows)]
    for fewer in (slim, slimmest):  # on narrow terminals without minutes and seeds
        if max(map(len, table)) > width:
            table = columns(fewer, right=frozenset({0}))
    open_ = any(not r.finished and not r.abandoned for r in reports)
    after = "`kata mock --report N` shows one" + (
        "; `kata mock` goes on with the last unfinished one, `kata mock --abandon N` ends one."
        if open_
        else "."
    )
    return [paint(table[0], "dim", colour), *table[1:], "", *wrapped(after, width)]
