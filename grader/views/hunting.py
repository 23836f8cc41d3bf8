"""The pages of `kata bug`, also used in mock interviews."""

from collections.abc import Sequence

from grader.catalog import Bug, Card
from grader.exam.verdict import Outcome, Verdict
from grader.views import mistake, result
from grader.views.plain import CUT, clock, folded, paint, painted, wrapped


def begun(card: Card, file: str, minutes: int, width: int, colour: bool) -> list[str]:
    """What is to be done, where, and in what time."""
    head = f"Bug hunt: {card.slug} · {card.title}"
    task = (
        "One mistake has been put into a working solution. Read it against its docstrings, find "
        f"the mistake, mend it in the file. Par is {minutes} minutes."
    )
    return [*painted(head, "bold", width, colour), *wrapped(task, width), f"  {file}"]


def graded(verdict: Verdict, width: int, colour: bool) -> list[str]:
    """Parts and the names of failed checks. No message: it would name the mistake."""
    lines = result.standing(verdict, width, colour)
    failed = [check for check in verdict.checks if check.outcome is Outcome.FAILED]
    if failed:
        lines += wrapped(f"Still failing: {result.names(failed)}.", width)
    return lines


def revealed(
    bug: Bug,
    change: tuple[Sequence[str], Sequence[str]],
    diagnosis: str,
    width: int,
    colour: bool,
) -> list[str]:
    """What the mistake was. `change` is the lines of the reference and what stood there."""
    right, planted = change
    lines = [paint(bug.title, "bold", colour), ""]
    for sign, style, code in (("-", "red", planted), ("+", "green", right)):
        pieces = (piece for line in code for piece in folded(line, width - 4, CUT))
        lines += [paint(f"  {sign} {piece}", style, colour) for piece in pieces]
    lines += ["", *mistake.lines(bug, width, colour, mend=True)]
    if diagnosis:
        lines += ["", *wrapped(diagnosis, width, "Your diagnosis: ")]
    return lines


def closed(rating: str, seconds: float, due: str) -> str:
    return f"{clock(seconds)}, rated {rating}; the next hunt on it is due {due}."
