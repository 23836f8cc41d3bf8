"""The pages of a quiz: a question, what it reveals, its rating, and the sum at the end."""

import textwrap
from collections.abc import Iterable, Mapping
from datetime import datetime

from grader.harmless import harmless
from grader.practice.schedule import day_end
from grader.recall import numbers
from grader.recall.bank import FollowUp, Question
from grader.recall.numbers import Judged
from grader.recall.quiz import Summary, Turn
from grader.store.memory import Rating
from grader.views.maths import markdown
from grader.views.plain import clock, counted, paint, painted, when, wrapped

_INK = {
    Rating.AGAIN: "red",
    Rating.HARD: "yellow",
    Rating.GOOD: "green",
    Rating.EASY: "green",
}


def question(question: Question, place: str, standing: str, width: int, colour: bool) -> list[str]:
    """A question. `place` is as in "3 of 10", `standing` says how it comes to be asked."""
    facts = [question.topic, question.kind, question.difficulty, question.id, standing]
    text = " · ".join([place, *(fact for fact in facts if fact)])
    head = textwrap.wrap(text, width, break_on_hyphens=False)  # an id stays whole
    return [
        "",
        paint("─" * width, "dim", colour),
        *(paint(line, "bold", colour) for line in head),
        "",
        *markdown(question.prompt, width, colour),
        "",
    ]


def so_far(text: str, width: int, colour: bool) -> list[str]:
    """What the learner has answered, as they typed it."""
    lines: list[str] = []
    for line in harmless(text).strip().splitlines():
        lines += painted(line, "dim", width, colour, "  > ", "    ")
    return lines


def reveal(turn: Turn, width: int, colour: bool) -> list[str]:
    """The model answer, the rubric, and where it is from; first the number if none was given."""
    shown, lines = turn.question, [""]
    if shown.numeric is not None and turn.judged is None:
        value = numbers.value(shown.numeric.answer, turn.names)
        right = numbers.quantity(value, shown.numeric.unit)
        lines += [*wrapped(f"The number is {right}.", width), ""]
    lines += [paint("Model answer", "bold", colour), *markdown(shown.answer, width, colour), ""]
    lines.append(paint("A good answer says", "bold", colour))
    for number, point in enumerate(shown.points, 1):
        lines += _indented(point, f"  {number}  ", width, colour)
    lines.append("")
    lines += _dim(f"From: {'; '.join(shown.sources)}", width, colour)
    if shown.katas:
        lines += _dim(f"Katas: {', '.join(shown.katas)}", width, colour)
    return [*lines, ""]


def verdict(judged: Judged, unit: str, width: int, colour: bool) -> list[str]:
    """Whether a number was right, and if not, which slip gives it."""
    right = numbers.quantity(judged.expected, unit)
    if judged.correct:
        return painted(f"✓ Right: {right}.", "bold green", width, colour)
    text = f"✗ Not right: you gave {numbers.quantity(judged.typed, unit)}; it is {right}."
    lines = painted(text, "bold red", width, colour, rest="  ")
    if judged.why is not None:
        lines += _indented(judged.why, "  why: ", width, colour)
    else:
        lines += wrapped("No usual slip gives it; the model answer has the steps.", width, "  ")
    return lines


def rest(turn: Turn, width: int) -> list[str]:
    """What is asked for when the number is given."""
    text = (
        "Now the rest: how you get there, and what else was asked. An empty line ends it; Enter "
        "alone: said aloud."
    )
    return ["", *wrapped(text if turn.judged else f"No number. {text}", width)]


def scored(turn: Turn, suggested: Rating | None) -> list[str]:
    """How many points were said, and the rating they speak for."""
    made, of = len(turn.points or ()), len(turn.question.points)
    text = f"{made} of {counted(of, 'point')}"
    if turn.judged is not None and not turn.judged.correct:
        text += ", but the number was not right"
    return [f"{text}, which suggests: {suggested.name.lower()}." if suggested else f"{text}."]


def offers(dues: Mapping[Rating, datetime], now: datetime, width: int, colour: bool) -> list[str]:
    """The ratings, with when each would bring the question back."""
    lines = []
    for rating, due in dues.items():
        name = paint(f"{int(rating)} {rating.name.lower():5}", _INK[rating], colour)
        lines.append(f"  {name}  {when(due, now)}")
    return lines


def rated(rating: Rating, due: datetime, now: datetime, colour: bool) -> list[str]:
    name = paint(rating.name.lower(), _INK[rating], colour)
    return [f"Rated {name}. Due again {when(due, now)}."]


def follow_up(asked: FollowUp, place: str, width: int, colour: bool) -> list[str]:
    """What the interviewer asks next."""
    head = paint(f"Follow-up {place}", "bold", colour)
    return ["", head, *markdown(asked.prompt, width, colour), ""]


def follow_up_answer(asked: FollowUp, width: int, colour: bool) -> list[str]:
    head = paint("Answer", "bold", colour)
    return ["", head, *markdown(asked.answer, width, colour), ""]


def summary(found: Summary, now: datetime, width: int, colour: bool) -> list[str]:
    """What a sitting came to, and what comes next."""
    lines = [""]
    if found.answered:
        ratings = [f"{n} {r.name.lower()}" for r, n in sorted(found.ratings.items())]
        text = f"{found.answered} answered in {clock(found.seconds)}"
        text += f": {', '.join(ratings)}." if ratings else "."
        lines += painted(text, "bold", width, colour)
        facts = []
        if found.points[1]:
            facts.append(f"{found.points[0]} of {counted(found.points[1], 'point')} said")
        if found.numeric[1]:
            facts.append(f"{found.numeric[0]} of {counted(found.numeric[1], 'number')} right")
        if found.weakest:
            facts.append(f"weakest {found.weakest[0]} ({found.weakest[1]:.0%} of its points)")
        lines += wrapped(f"{', '.join(facts)}.", width) if facts else []
    if found.unrated:
        one = found.unrated == 1
        text = f"{counted(found.unrated, 'answer')} {'is' if one else 'are'} stored without a "
        lines += wrapped(f"{text}rating: the next `kata quiz` goes on there.", width)
    for text in _next(found, now):
        lines += wrapped(text, width)
    return lines


def _next(found: Summary, now: datetime) -> list[str]:
    if found.unrated:
        return ["Next: `kata quiz`."]
    if found.left:
        return [f"Next: {found.left} more today, `kata quiz`."]
    if found.beyond:
        return [f"The plan has no more for today; {found.beyond} due beside it: `kata quiz`."]
    soon = found.next_due is not None and found.next_due < day_end(now.astimezone())
    text = "Nothing more for now" if soon else "Nothing more today"
    if found.new_used_up:
        text += ": the day's new questions are done"
    if found.next_due is not None:
        text += f". The next is due {when(found.next_due, now)}"
    return [f"{text}.", "`kata quiz --cram` asks without the schedule."]


def _indented(text: str, first: str, width: int, colour: bool) -> list[str]:
    lines: Iterable[str] = markdown(text, width - len(first), colour)
    return [(" " * len(first) if n else first) + line for n, line in enumerate(lines)]


def _dim(text: str, width: int, colour: bool) -> list[str]:
    return painted(text, "dim", width, colour, rest="  ")
