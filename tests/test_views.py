"""Pages that show the same thing show it alike."""

from grader import catalog
from grader.exam.verdict import Check, Level, Outcome, Part, Verdict
from grader.interview.events import Graded
from grader.views import hunting, interview, result

WIDTH = 60


def test_a_mistake_looks_the_same_on_every_page() -> None:
    """After a grading, after a hunt and in a debrief: how it shows, why, how to mend it."""
    bug = catalog.entry("lora_linear").bugs[0]
    check = Check(
        name="a_rule", part=Part.FORWARD, outcome=Outcome.FAILED, message="It is wrong.", bug=bug.id
    )
    verdict = Verdict(slug="lora_linear", seed=1, seconds=0.1, checks=(check,))
    around = result.Around(catalog.card("lora_linear"), {bug.id: bug}, "lora_linear.py", more=True)
    best = Graded(round=1, by="save", passed=False, level=Level.NONE, parts={"forward": (0, 1)})
    pages = [
        result.page(verdict, around, WIDTH, colour=False),
        hunting.revealed(bug, (["right"], ["wrong"]), "", WIDTH, colour=False),
        interview.mistakes("lora_linear", best, [bug], WIDTH, colour=False),
    ]
    said = []
    for page in pages:
        at = next(n for n, line in enumerate(page) if line.startswith("  shows as: "))
        text = "\n".join(page[at:])
        said.append(text.partition("\n\n")[0])
    assert said[0] == said[1] == said[2]
    assert max(map(len, said[0].splitlines())) <= WIDTH
    words = " ".join(said[0].split())
    assert words == f"shows as: {bug.symptom} why: {bug.cause} mend: {bug.fix}"
