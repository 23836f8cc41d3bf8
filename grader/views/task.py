"""The page of `kata show`."""

from collections.abc import Sequence

from grader.catalog import Card
from grader.exam.verdict import CORE, Part
from grader.practice.contract import Task
from grader.views.plain import paint, painted, wrapped

_TOLERANCE = (
    "Tolerance, relative and absolute: float32 1e-4 and 1e-5, float64 1e-9, bfloat16 4e-2, "
    "unless a rule says otherwise. Inputs are drawn anew for each run; `--seed` replays one."
)


def page(
    card: Card, asked: str, task: Task, questions: Sequence[str], width: int, colour: bool
) -> list[str]:
    """What to write, why it is asked, what is checked, how exactly and in what time.

    `questions` are the ids of the bank's questions that belong to the kata.
    """
    after = f", after {' and '.join(card.needs)}" if card.needs else ""
    about = f"{card.track}, {card.difficulty}, par {card.minutes} minutes{after}"
    lines = [
        paint(f"{card.slug} · {card.title}", "bold", colour),
        *painted(about, "dim", width, colour),
        "",
        *wrapped(asked, width, "Why it is asked: ", ""),
        "",
        *task.intro.splitlines(),
        "",
        paint("To write", "bold", colour),
        *(f"  {line}".rstrip() for line in task.contract.splitlines()),
    ]
    for title, parts in (
        ("Checked: the core", [p for p in task.rules if p in CORE]),
        ("Checked: the follow-ups", [p for p in task.rules if p not in CORE]),
    ):
        if parts:
            lines += ["", paint(title, "bold", colour), *_rules(task, parts, width)]
    lines += ["", *wrapped(_TOLERANCE, width)]
    if questions:
        about = f"{', '.join(questions)} (`kata quiz --ask ID`)."
        lines += ["", *wrapped(about, width, "Its questions: ", "")]
    return [*lines, "", f"Next: `kata start {card.slug}`."]


def _rules(task: Task, parts: list[Part], width: int) -> list[str]:
    lines = []
    for part in parts:
        for number, rule in enumerate(task.rules[part]):
            name = "" if number else part
            lines += wrapped(rule, width, f"  {name:9} ")
    return lines
