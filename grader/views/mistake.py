"""What the terminal says of a known mistake, wherever it does."""

from grader.catalog import Bug
from grader.views.plain import painted


def lines(bug: Bug, width: int, colour: bool, *, mend: bool) -> list[str]:
    """How it shows, where it comes from and, where that is wanted, what to do."""
    said: list[str] = []
    told = [("shows as", bug.symptom), ("why", bug.cause)]
    for word, text in [*told, ("mend", bug.fix)] if mend else told:
        said += painted(" ".join(text.split()), "cyan", width, colour, f"  {word + ':':9} ")
    return said
