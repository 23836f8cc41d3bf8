"""What the terminal says of a known mistake, wherever it does."""

from grader.catalog import Bug
from grader.views.plain import painted


def lines(bug: Bug, width: int, colour: bool) -> list[str]:
    """Where it comes from, how it shows, what to do."""
    said: list[str] = []
    for word, text in (("why", bug.cause), ("shows as", bug.symptom), ("mend", bug.fix)):
        said += painted(" ".join(text.split()), "cyan", width, colour, f"  {word + ':':9} ")
    return said
