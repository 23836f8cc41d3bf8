"""What a mock interview shows while it goes on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from grader.catalog import Bug, Card
from grader.exam.verdict import Verdict
from grader.interview import timing
from grader.interview.events import Answered, Graded, State
from grader.interview.paper import Ask, Kind, Paper, Round
from grader.practice import hunt
from grader.views import hunting as hunts
from grader.views import interview_report as reports
from grader.views import mistake, result
from grader.views.maths import markdown
from grader.views.plain import clock, columns, counted, paint, painted, wrapped
from grader.views.result import Around

_ABOUT = {
    Kind.WARMUP: "Answer as you would aloud.",
    Kind.CODING: "",
    Kind.FOLLOWUPS: "On what you have just written.",
    Kind.HUNT: "",
    Kind.DEBRIEF: "",
}


@dataclass(frozen=True)
class Status:
    """What the clock line says. Times in seconds; less than none left is over-time."""

    title: str
    number: int
    of: int
    left_s: float
    whole_left_s: float
    last: str = ""
    paused: bool = False


def status(now: Status, width: int) -> str:
    """The clock line: round, time left, last grading; as much as fits, in this order. What is
    worked on goes before the last grading does."""
    pieces = [
        f"{now.number}/{now.of} {now.title}",
        "PAUSED" if now.paused else remaining(now.left_s),
        now.last,
        f"whole {remaining(now.whole_left_s)}",
    ]
    if len(" · ".join(filter(None, pieces[:3]))) > width:
        pieces[0] = pieces[0].partition(" · ")[0]
    text = ""
    for piece in filter(None, pieces):
        longer = f"{text} · {piece}" if text else piece
        if len(longer) > width:
            break
        text = longer
    return text or pieces[1][:width]


def remaining(left_s: float) -> str:
    """Time left, or time over."""
    return f"{clock(left_s)} left" if left_s >= 0 else f"{clock(-left_s)} OVER"


def warning(left_s: float) -> str:
    """What is said of the time when little is left, or none."""
    if left_s <= 0:
        return "Time is up. Go on as long as you need: over-time is noted, nothing is cut."
    return f"{remaining(left_s)} in this round."


def standing(last: Graded | None) -> str:
    """The last grading in a few words."""
    if last is None:
        return "not graded"
    if last.error:
        return f"last: {last.error}"
    return f"last: {'all pass' if last.passed else counts(last)}"


def counts(grading: Graded) -> str:
    core, beyond = grading.core, grading.beyond
    more = f", more {beyond[0]}/{beyond[1]}" if beyond[1] else ""
    return f"core {core[0]}/{core[1]}{more}"


# The paper


def outline(paper: Paper, width: int, colour: bool) -> list[str]:
    """The rounds with their minutes: what will be asked of one, not the questions themselves."""
    head = f"{reports.settings(paper)}, --seed {paper.seed}"
    hunted = any(r.kind is Kind.HUNT for r in paper.rounds)
    rows = [(f"{n}", r.kind, f"{r.minutes} min") for n, r in enumerate(paper.rounds, 1)]
    lines = [*painted(f"Mock interview · {head}", "bold", width, colour), ""]
    for round, line in zip(paper.rounds, columns(rows, right=frozenset({0, 2}))):
        lines += wrapped(about(round, hunted), width, f"  {line}  ")
    for text in paper.notes:
        lines += ["", *wrapped(text, width)]
    return lines


def about(round: Round, hunted: bool) -> str:
    """What a round asks of one; `hunted`: there is a hunt in the interview."""
    if round.on_code:
        return f"{round.slug}, par {round.par}"
    if round.kind is Kind.DEBRIEF:
        return "answers, rubric" + (", what the bug was" if hunted else "")
    topics = list(dict.fromkeys(ask.topic for ask in round.asks))
    return f"{counted(len(round.asks), 'question')}: {', '.join(topics)}"


def unfinished(number: int, at: datetime, paper: Paper, state: State, width: int) -> list[str]:
    """An interview that can be gone on with, and where it stands."""
    place = state.current or 0
    left = remaining(timing.left_s(paper.minutes, state.clock_s))
    text = (
        f"Mock {number} of {reports.date(at)} ({reports.settings(paper)}) is unfinished: round "
        f"{place + 1} of {len(paper.rounds)}, {paper.rounds[place].title}; {left} in all."
    )
    return wrapped(text, width)


# Rounds


def heading(
    round: Round, number: int, of: int, left_s: float, again: bool, width: int, colour: bool
) -> list[str]:
    """What begins a round, or goes on with it."""
    word = "goes on, " + remaining(left_s) if again else counted(round.minutes, "minute")
    text = f" Round {number} of {of} · {round.title} · {word} "
    rule = "─" * max(0, width - len(text) - 2)
    lines = painted(f"──{text}{rule}", "bold cyan", width, colour, rest="   ")
    about = _ABOUT[round.kind]
    return ["", *lines, *([about] if about else [])]


def ended(round: Round, used_s: float, over_s: float, width: int) -> list[str]:
    over = f", {clock(over_s)} over" if over_s > 0 else ""
    text = f"{round.title}: {clock(used_s)} of {counted(round.minutes, 'minute')}{over}."
    return wrapped(text, width)


def question(
    ask: Ask, number: int, of: int, typed: Sequence[str], width: int, colour: bool
) -> list[str]:
    """A question; `typed` are lines of the answer given before."""
    head = (
        f"Follow-up {number} of {of}" if ask.followup is not None else f"Question {number} of {of}"
    )
    ways = "First the number alone, with its unit; Enter alone: none."
    if not ask.asks_number:
        ways = "Type the answer, an empty line ends it; Enter alone: said aloud."
    lines = ["", paint(head, "bold", colour), *markdown(ask.prompt, width, colour), ""]
    if not typed:
        return [*lines, *wrapped(ways, width)]
    given = [piece for text in typed for piece in text.split("\n") if piece]
    so_far = [line for text in given for line in wrapped(text, width, "  ")]
    return [*lines, "So far:", *so_far] if so_far else lines


def heard(right: bool | None, width: int, colour: bool) -> list[str]:
    """What is said of a number before the rest of its answer; the debrief says why."""
    verdict = "No number."
    if right is not None:
        verdict = "✓ That is right." if right else "✗ That is not right."
    style = "" if right is None else "green" if right else "red"
    rest = (
        "Now the rest: how you get there, and what else was asked. An empty line ends it; Enter "
        "alone: said aloud."
    )
    return [paint(verdict, style, colour), *wrapped(rest, width)]


def kind(ask: Ask) -> str:
    """What an ask is called."""
    return "Question" if ask.followup is None else "Follow-up"


def coding(card: Card, file: str, width: int, colour: bool) -> list[str]:
    """What to code and where."""
    lines = [paint(card.title, "bold", colour), *wrapped(card.summary, width)]
    how = f"Par {card.minutes} minutes. Write it in your editor (e opens it); every save is graded:"
    return [*lines, "", *wrapped(how, width), f"  {file}", ""]


def hunting(card: Card, file: str, width: int, colour: bool) -> list[str]:
    page = hunts.begun(card, file, hunt.minutes(card), width, colour)
    return [*page, *wrapped("Every save is graded; you are asked first what is wrong.", width), ""]


def graded(
    verdict: Verdict, around: Around | None, used_s: float, width: int, colour: bool
) -> list[str]:
    """A grading during a round: of what was coded all that `kata run` shows; of a hunt, which has
    nothing `around` it, no message, since that would name the mistake."""
    lines = ["", paint(f"Graded at {clock(used_s)}", "bold", colour)]
    if not verdict.started:
        return [*lines, "  Nothing is written yet."]
    if around is None:
        lines += hunts.graded(verdict, width, colour)
    else:
        lines += result.findings(verdict, around, width, colour)
    if verdict.passed:
        lines.append(paint("✓ Everything passes. n moves on.", "bold green", colour))
    return lines


def hint(rung: int, of: int, text: str, width: int) -> list[str]:
    return wrapped(f"Hint {rung} of {of} (noted): {text}", width)


# Debrief


def debrief(width: int) -> list[str]:
    return wrapped(
        "Compare what you said with a good answer, point by point. Be strict: the report and the "
        "schedule rest on it. /n leaves the rest.",
        width,
    )


def mistakes(slug: str, best: Graded, bugs: Sequence[Bug], width: int, colour: bool) -> list[str]:
    """What the best grading of a coding round found wrong, and how to mend it."""
    lines = ["", paint(f"{slug}, at its best: {counts(best)}", "bold", colour)]
    for bug in bugs:
        lines += [*wrapped(bug.title, width, "✗ "), *mistake.lines(bug, width, colour, mend=True)]
    if not bugs:
        lines.append("  No known mistake was recognised.")
    return lines


def revealed(
    slug: str,
    bug: Bug,
    change: tuple[Sequence[str], Sequence[str]],
    diagnosis: str,
    width: int,
    colour: bool,
) -> list[str]:
    page = hunts.revealed(bug, change, diagnosis, width, colour)
    return ["", paint(f"The hunt in {slug}", "bold", colour), *page, ""]


def answer(ask: Ask, given: Answered, width: int, colour: bool) -> list[str]:
    """A question again, what was answered, a good answer, and the points of the rubric."""
    lines = ["", paint(kind(ask), "bold", colour), *markdown(ask.prompt, width, colour), ""]
    said = reports.said(given, ask.without_number(given.text)).split("\n")
    for number, text in enumerate(said):
        lines += wrapped(text, width, "     " if number else "You: ", "     ")
    if given.correct is not None:
        word, style = ("✓ right", "green") if given.correct else ("✗ wrong", "red")
        lines.append(paint(word, style, colour) + (f": {given.why}" if given.why else ""))
    lines += ["", paint("A good answer", "bold", colour), *markdown(ask.answer, width, colour), ""]
    for number, point in enumerate(ask.points, 1):
        lines += markdown(f"{number}. {point}", width, colour)
    return lines
