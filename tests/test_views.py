"""Pages that show the same thing show it alike."""

from datetime import date

from msgspec.structs import replace

from grader import catalog
from grader.exam.verdict import Check, Level, Outcome, Part, Verdict
from grader.interview.events import Graded
from grader.practice.plan import Item
from grader.recall.agenda import KATA, Agenda, Entry
from grader.views import hunting, interview, result, today

WIDTH = 60


def test_a_mistake_looks_the_same_on_every_page() -> None:
    """After a grading, after a hunt and in a debrief: how it shows, why, how to mend it, and what
    drills it."""
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
    drill = f"drill: kata quiz --ask {bug.question}"
    assert words == f"shows as: {bug.symptom} why: {bug.cause} mend: {bug.fix} {drill}"


def test_a_page_names_one_question() -> None:
    """The first mistake named that has a question has its line; the second adds none."""
    bugs = {bug.id: bug for bug in catalog.entry("lora_linear").bugs if bug.question}
    checks = tuple(
        Check(name=id, part=Part.FORWARD, outcome=Outcome.FAILED, message="It is wrong.", bug=id)
        for id in ("scale-missing", "a-zero")
    )
    verdict = Verdict(slug="lora_linear", seed=1, seconds=0.1, checks=checks)
    around = result.Around(catalog.card("lora_linear"), bugs, "lora_linear.py")
    page = result.page(verdict, around, 80, colour=False)
    drills = [line for line in page if "--ask" in line]
    assert drills == [f"  drill:    kata quiz --ask {bugs['scale-missing'].question}"]
    assert sum("shows as:" in line for line in page) == 2


def test_a_low_screen_gets_one_failure() -> None:
    """Where two failures with their diagnoses would push the parts off the screen, the first is
    shown alone and the other named; with --more, or with room, both are."""
    known = {bug.id: bug for bug in catalog.entry("lora_linear").bugs}
    ids = ("scale-is-alpha", "b-random")
    parts = (Part.SHAPE, Part.INIT, Part.FREEZE, Part.FORWARD, Part.GRADIENT, Part.MERGE)
    checks = [
        Check(name=f"a_rule_{n}", part=part, outcome=Outcome.FAILED, message="It is wrong. " * 14)
        for n, part in enumerate(parts)
    ]
    checks[:2] = [replace(check, bug=id) for check, id in zip(checks, ids, strict=False)]
    verdict = Verdict(slug="lora_linear", seed=1, seconds=0.1, checks=tuple(checks))

    def page(rows: int | None, more: bool = False) -> list[str]:
        around = result.Around(
            catalog.card("lora_linear"), known, "lora_linear.py", more=more, rows=rows
        )
        return result.page(verdict, around, 80, colour=False)

    low = page(23)
    assert len(low) < 23
    assert low.count("shape: a rule 0") == 1
    assert "init: a rule 1" not in low
    assert "reason: init: a rule 1, freeze" in " ".join(line.strip() for line in low)
    assert "Also failed, perhaps for the same reason: 5 checks." in page(len(low))
    for whole in (page(None), page(60), page(23, more=True)):
        assert len(whole) > 23
        assert {"shape: a rule 0", "init: a rule 1"} <= set(whole)


def test_a_line_of_facts_ends_without_a_dot() -> None:
    """Where they take two lines, as at 80 columns they do."""
    verdict = Verdict(slug="lora_linear", seed=123456, seconds=1.5, checks=())
    around = result.Around(catalog.card("lora_linear"), {}, "f.py", attempt=12, elapsed_s=754)
    page = result.page(verdict, around, 80, colour=False)
    assert "attempt 12 · graded in 1.50 s · 12:34 on task (par 15 min)" in page
    assert "--seed 123456 replays it" in page


def test_a_narrow_today_leaves_out_what_things_are_about() -> None:
    """Rather than cut it after a word."""
    item = Item("kata:lora_linear", 15, 1.0)
    title = catalog.card("lora_linear").title
    entry = Entry(item, KATA, "lora_linear", title, None)
    agenda = Agenda(date(2026, 3, 2), (), (entry,), 0, None, None)
    assert f"  kata  lora_linear  15 min  {title}" in today.page(agenda, 80, colour=False)
    assert "  kata  lora_linear  15 min" in today.page(agenda, 60, colour=False)
