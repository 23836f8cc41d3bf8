"""What the terminal says of a known mistake, wherever it does."""

from grader.catalog import Bug
from grader.views.plain import painted


def lines(bug: Bug, width: int, colour: bool, *, mend: bool, drill: bool = True) -> list[str]:
    """How it shows, where it comes from and, where that is wanted, what to do, and the question
    that drills it."""
    told = [("shows as", bug.symptom), ("why", bug.cause)]
    if mend:
        told.append(("mend", bug.fix))
    if drill and bug.question:
        told.append(("drill", drilled(bug.question)))
    said: list[str] = []
    for word, text in told:
        said += painted(" ".join(text.split()), "cyan", width, colour, f"  {word + ':':9} ")
    return said


def drilled(question: str) -> str:
    """The command that asks the question."""
    return f"kata quiz --ask {question}"
