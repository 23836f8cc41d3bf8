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
NO_SLIP = "No usual slip gives it; the model answer has the steps."


def question(question: Question, place: str, standing: str, width: int, colour: bool) -> list[str]:
    """A question. `place` is as in "3 of 10", `standing` says how it comes to be asked."""
    text = " · ".join([place, *facts(question, standing)])
    head = textwrap.wrap(text, width, break_on_hyphens=False)  # an id stays whole
    return [
        "",
        paint("─" * width, "dim", colour),
        *(paint(line, "bold", colour) for line in head),
        "",
        *markdown(question.prompt, width, colour),
        "",
    ]


def facts(question: Question, standing: str) -> list[str]:
    """What kind of question it is."""
    found = (question.topic, question.kind, question.difficulty, question.id, standing)
    return [fact for fact in found if fact]


def begun(counts: tuple[int, int, int], cram: bool, beyond_plan: bool) -> str:
    """What a sitting is going to ask: so many to go on with, seen before, and new."""
    if cram:
        return f"Cramming {sum(counts)}, weakest first; the schedule stays as it is."
    words = ("to go on with from last time", "due", "new")
    text = f"{', '.join(f'{n} {w}' for n, w in zip(counts, words) if n)}."
    return f"The plan has no more for today. Beside it: {text}" if beyond_plan else text


def resumed(turn: Turn) -> str:
    """How far an answer came that another sitting began."""
    if not turn.text.strip():
        if turn.finished:
            return "You answered this aloud, and it is not rated yet."
        return "You were answering this when the last quiz broke off."
    if turn.finished:
        return "You answered this, and it is not rated yet. You said:"
    return "You were answering this when the last quiz broke off. So far:"


def so_far(text: str, width: int, colour: bool) -> list[str]:
    """What the learner has answered, as they typed it."""
    lines: list[str] = []
    for line in harmless(text).strip().splitlines():
        lines += painted(line, "dim", width, colour, "  > ", "    ")
    return lines


def reveal(turn: Turn, width: int, colour: bool) -> list[str]:
    """The model answer, the rubric, and where it is from; first the number if none was given."""
    shown, lines = turn.question, [""]
    if right := right_number(turn):
        lines += [*wrapped(right, width), ""]
    lines += [paint("Model answer", "bold", colour), *markdown(shown.answer, width, colour), ""]
    lines.append(paint("A good answer says", "bold", colour))
    for number, point in enumerate(shown.points, 1):
        lines += _indented(point, f"  {number}  ", width, colour)
    lines.append("")
    lines += _dim(f"From: {'; '.join(shown.sources)}", width, colour)
    if shown.katas:
        lines += _dim(f"Katas: {', '.join(shown.katas)}", width, colour)
    return [*lines, ""]


def right_number(turn: Turn) -> str:
    """The number that was asked for and not given; nothing where there is none to tell."""
    numeric = turn.question.numeric
    if numeric is None or turn.judged is not None:
        return ""
    value = numbers.value(numeric.answer, turn.names)
    return f"The number is {numbers.quantity(value, numeric.unit)}."


def conclusion(judged: Judged, unit: str) -> str:
    """Whether a number was right."""
    right = numbers.quantity(judged.expected, unit)
    if judged.correct:
        return f"✓ Right: {right}."
    return f"✗ Not right: you gave {numbers.quantity(judged.typed, unit)}; it is {right}."


def verdict(judged: Judged, unit: str, width: int, colour: bool) -> list[str]:
    """Whether a number was right, and if not, which slip gives it."""
    text = conclusion(judged, unit)
    if judged.correct:
        return painted(text, "bold green", width, colour)
    lines = painted(text, "bold red", width, colour, rest="  ")
    if judged.why is not None:
        lines += _indented(judged.why, "  why: ", width, colour)
    else:
        lines += wrapped(NO_SLIP, width, "  ")
    return lines


def rest(turn: Turn, width: int) -> list[str]:
    """What is asked for when the number is given."""
    return [
        "",
        *wrapped(f"{the_rest(turn)} An empty line ends it; Enter alone: said aloud.", width),
    ]


def the_rest(turn: Turn) -> str:
    """What an answer to a numeric question says after its number."""
    text = "Now the rest: how you get there, and what else was asked."
    return text if turn.judged else f"No number. {text}"


def scored(turn: Turn, suggested: Rating | None) -> str:
    """How many points were said, and the rating they speak for."""
    made, of = len(turn.points or ()), len(turn.question.points)
    text = f"{made} of {counted(of, 'point')}"
    if turn.judged is not None and not turn.judged.correct:
        text += ", but the number was not right"
    return f"{text}, which suggests: {suggested.name.lower()}." if suggested else f"{text}."


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
    if head := answered(found):
        lines += painted(head, "bold", width, colour)
    for text in [*results(found), *following(found, now)]:
        lines += wrapped(text, width)
    return lines


def answered(found: Summary) -> str:
    """How many answers a sitting came to, and how they were rated; nothing if there are none."""
    if not found.answered:
        return ""
    ratings = [f"{n} {r.name.lower()}" for r, n in sorted(found.ratings.items())]
    text = f"{found.answered} answered in {clock(found.seconds)}"
    return f"{text}: {', '.join(ratings)}." if ratings else f"{text}."


def results(found: Summary) -> list[str]:
    """What the answers were like, and what is still to be rated."""
    told, facts = [], []
    if found.answered and found.points[1]:
        facts.append(f"{found.points[0]} of {counted(found.points[1], 'point')} said")
    if found.answered and found.numeric[1]:
        facts.append(f"{found.numeric[0]} of {counted(found.numeric[1], 'number')} right")
    if found.answered and found.weakest:
        facts.append(f"weakest {found.weakest[0]} ({found.weakest[1]:.0%} of its points)")
    if facts:
        told.append(f"{', '.join(facts)}.")
    if found.unrated:
        one = found.unrated == 1
        text = f"{counted(found.unrated, 'answer')} {'is' if one else 'are'} stored without a "
        told.append(f"{text}rating: the next `kata quiz` goes on there.")
    return told


def following(found: Summary, now: datetime) -> list[str]:
    """What comes next."""
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
