"""The pages of `kata bug`, also used in mock interviews."""

from collections.abc import Sequence

from grader.catalog import Bug, Card
from grader.exam.verdict import Outcome, Verdict
from grader.views import result
from grader.views.plain import clock, paint, wrapped

_SHOWN = 4


def begun(card: Card, file: str, minutes: int, width: int, colour: bool) -> list[str]:
    """What is to be done, where, and in what time."""
    head = f"Bug hunt: {card.slug} · {card.title}"
    task = (
        "One mistake has been put into a working solution. Read it against its docstrings, find "
        f"the mistake, mend it in the file. Par is {minutes} minutes."
    )
    lines = [paint(line, "bold", colour) for line in wrapped(head, width)]
    return [*lines, *wrapped(task, width), f"  {file}"]


def graded(verdict: Verdict, width: int, colour: bool) -> list[str]:
    """Parts and the names of failed checks. No message: it would name the mistake."""
    lines = []
    if verdict.error is not None:
        text = f"{verdict.error.kind.upper()}: {verdict.error.message}"
        for line in text.splitlines():
            own = line[: len(line) - len(line.lstrip())]
            lines += wrapped(line.strip(), width, own)
    if verdict.error is None or any(c.outcome is not Outcome.ERROR for c in verdict.checks):
        lines += result.parts(verdict, width, colour)
    names = [
        f"{c.part}: {c.name.replace('_', ' ')}"
        for c in verdict.checks
        if c.outcome is Outcome.FAILED
    ]
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        lines += wrapped(f"Still failing: {', '.join(names[:_SHOWN])}{more}.", width)
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
    lines += [paint(f"  - {line}", "red", colour) for line in planted]
    lines += [paint(f"  + {line}", "green", colour) for line in right]
    lines.append("")
    for word, text in (("shows as", bug.symptom), ("why", bug.cause), ("mend", bug.fix)):
        lines += wrapped(" ".join(text.split()), width, f"  {word + ':':9} ")
    if diagnosis:
        lines += ["", *wrapped(diagnosis, width, "Your diagnosis: ")]
    return lines


def closed(rating: str, seconds: float, due: str) -> str:
    return f"{clock(seconds)}, rated {rating}; the next hunt on it is due {due}."
