"""The page of `kata list`. Plain text: it must cost next to nothing."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from grader.catalog import Card
from grader.exam.verdict import Level
from grader.store.attempts import Standing
from grader.views.plain import clock, columns, counted, paint

_HEAD = ("", "kata", "status", "due", "best", "par", "difficulty")
_NARROW = 72
_MARKS = {Level.COMPLETE: "✓", Level.CORE: "·", Level.NONE: " "}
_STYLES = {Level.COMPLETE: "green", Level.CORE: "yellow"}


class Row(NamedTuple):
    """A kata, how far it is, and when it is due again (None: not scheduled yet)."""

    card: Card
    standing: Standing
    due: datetime | None


def page(rows: Sequence[Row], end: datetime, width: int, colour: bool) -> list[str]:
    """Katas by track, in the order they come; then how many are passed and what is next.

    What is due before `end`, the end of the study day, is due now.
    """
    shown = len(_HEAD) - (width < _NARROW)  # the difficulty is what a narrow screen can spare
    cells = [_HEAD, *(_cells(row, end) for row in rows)]
    table = columns((row[:shown] for row in cells), right=frozenset({4, 5}))
    lines: list[str] = []
    track = None
    for line, (card, standing, _) in zip(table[1:], rows, strict=True):
        if card.track != track:
            if track is not None:
                lines.append("")
            lines.append(paint(card.track, "bold", colour))
            if track is None:
                lines.append("  " + paint(table[0], "dim", colour))
            track = card.track
        lines.append("  " + paint(line, _STYLES.get(standing.level, ""), colour))
    passed = sum(row.standing.level is Level.COMPLETE for row in rows)
    todo = next((row.card.slug for row in rows if row.standing.level is not Level.COMPLETE), None)
    due = [row.card.slug for row in rows if row.due is not None and row.due < end]
    hint = f"Next: `kata start {due[0] if due else todo}`." if due or todo else "Well done."
    again = f" {len(due)} due." if due else ""
    total = f"{passed} of {counted(len(rows), 'kata')} passed.{again}"
    end_lines = [f"{total} {hint}"] if len(total) + len(hint) < width else [total, hint]
    return [*lines, "", *end_lines]


def _cells(row: Row, end: datetime) -> tuple[str, ...]:
    card, standing, due = row
    tried = f"{standing.attempts} tried" if standing.attempts else "new"
    words = {Level.COMPLETE: "passed", Level.CORE: "core", Level.NONE: tried}
    best = "–" if standing.best_s is None else clock(standing.best_s)
    return (
        _MARKS[standing.level],
        card.slug,
        words[standing.level],
        "–" if due is None else "now" if due < end else f"{(due - end).days + 1} d",
        best,
        f"{card.minutes} min",
        card.difficulty,
    )
