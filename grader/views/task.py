"""The page of `kata show`."""

import re
from collections.abc import Sequence

from grader.catalog import Card
from grader.exam.verdict import CORE, Part
from grader.practice.contract import Task
from grader.views.plain import CUT, folded, paint, painted, wrapped

_FULL = 85  # columns of a line after which the next word may not have fitted
_CELL = re.compile(r" *\S+(?: \S+)* {2,}(?=\S)")  # the name in a table of names
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
        *_text(task.intro.splitlines(), width),
        "",
        paint("To write", "bold", colour),
        *_code([f"  {line}".rstrip() for line in task.contract.splitlines()], width),
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


def _code(lines: Sequence[str], width: int) -> list[str]:
    """Python: docstrings are set as text, other lines that are too wide go on behind a mark."""
    told: list[str] = []
    text: list[str] = []  # the docstring that is being read
    for line in lines:
        opens = not text and '"""' in line
        if not text and not opens:
            told += folded(line, width, CUT)
            continue
        text.append(line)
        if line.count('"""') == 1 + opens:
            told += _text(text, width)
            text = []
    return told


def _text(lines: Sequence[str], width: int) -> list[str]:
    """Text as it stands where it fits. Else it is set anew: lines that were full go on in the
    next, tables keep their columns."""
    if all(len(line) <= width for line in lines):
        return list(lines)
    rows: list[str] = []
    before = ""
    for line in lines:
        full = len(before) >= _FULL and not before.endswith((".", ":"))
        if full and _indent(before) == _indent(line) and "  " not in line.strip():
            rows[-1] += " " + line.strip()
        else:
            rows.append(line)
        before = line
    told: list[str] = []
    for row in rows:
        cell = _CELL.match(row)
        if cell is not None and len(cell[0]) < width // 2:
            told += wrapped(row[len(cell[0]) :], width, cell[0])
        else:
            told += folded(row, width, "")
    return told


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _rules(task: Task, parts: list[Part], width: int) -> list[str]:
    lines = []
    for part in parts:
        for number, rule in enumerate(task.rules[part]):
            name = "" if number else part
            lines += wrapped(rule, width, f"  {name:9} ")
    return lines
