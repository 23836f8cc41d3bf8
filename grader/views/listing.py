"""The page of `kata list`. Plain text: it must cost next to nothing."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from grader import catalog
from grader.catalog import Card
from grader.exam.verdict import Level
from grader.store.attempts import Standing
from grader.store.memory import MemoryCard
from grader.views.plain import clock, columns, counted, paint

_HEAD = ("", "#", "kata", "status", "due", "best", "par", "after", "difficulty")
_SPARED = 5  # columns that a narrow screen can do without, from the right
_MARKS = {Level.COMPLETE: "✓", Level.CORE: "·", Level.NONE: " "}
_STYLES = {Level.COMPLETE: "green", Level.CORE: "yellow"}


class Row(NamedTuple):
    """A kata, how far it is, and when it is due again (None: not scheduled yet)."""

    card: Card
    standing: Standing
    due: datetime | None


def rows_of(
    standings: Mapping[str, Standing], cards: Mapping[str, MemoryCard], track: str | None = None
) -> list[Row]:
    """The katas, or those of a track, in teaching order."""
    due = {key: card.due for key, card in cards.items()}
    return [
        Row(card, standings.get(card.slug, Standing()), due.get(f"kata:{card.slug}"))
        for card in catalog.cards()
        if track in (None, card.track)
    ]


def page(rows: Sequence[Row], end: datetime, width: int, colour: bool) -> list[str]:
    """Katas by track, in the order they come; then how many are passed and what is next.

    Each has its number, and the numbers of those that it builds on.
    What is due before `end`, the end of the study day, is due now.
    """
    cells = [_HEAD, *(_cells(row, end) for row in rows)]
    for spared in range(_SPARED + 1):
        shown = len(_HEAD) - spared
        table = columns((row[:shown] for row in cells), right=frozenset({1, 5, 6}))
        if max(map(len, table)) + len("  ") <= width:
            break
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
        str(card.order),
        card.slug,
        words[standing.level],
        "–" if due is None else "now" if due < end else f"{(due - end).days + 1} d",
        best,
        f"{card.minutes} min",
        ", ".join(str(catalog.card(slug).order) for slug in card.needs),
        card.difficulty,
    )
