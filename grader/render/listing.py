"""The page of `kata list`. Plain text: it must cost next to nothing."""

from collections.abc import Sequence

from grader.catalog import Card
from grader.exam.verdict import Level
from grader.practice.progress import Standing
from grader.render.plain import clock, columns, counted, paint

_HEAD = ("", "kata", "status", "best", "par", "difficulty")
_MARKS = {Level.COMPLETE: "✓", Level.CORE: "·", Level.NONE: " "}
_STYLES = {Level.COMPLETE: "green", Level.CORE: "yellow"}


def page(rows: Sequence[tuple[Card, Standing]], colour: bool) -> list[str]:
    """Katas by track, in the order they come; then how many are passed and what is next."""
    if not rows:
        return ["No kata is in this track yet. `kata list` shows all there are."]
    table = columns([_HEAD, *(_cells(*row) for row in rows)], right=frozenset({3, 4}))
    lines: list[str] = []
    track = None
    for line, (card, standing) in zip(table[1:], rows, strict=True):
        if card.track != track:
            if track is not None:
                lines.append("")
            lines.append(paint(card.track, "bold", colour))
            if track is None:
                lines.append("  " + paint(table[0], "dim", colour))
            track = card.track
        style = _STYLES.get(standing.level)
        lines.append("  " + (paint(line, style, colour) if style else line))
    passed = sum(standing.level is Level.COMPLETE for _, standing in rows)
    todo = next((c.slug for c, s in rows if s.level is not Level.COMPLETE), None)
    hint = f"Next: `kata start {todo}`." if todo else "Every one of them: well done."
    return [*lines, "", f"{passed} of {counted(len(rows), 'kata')} passed. {hint}"]


def _cells(card: Card, standing: Standing) -> tuple[str, ...]:
    tried = f"{standing.attempts} tried" if standing.attempts else "new"
    words = {Level.COMPLETE: "passed", Level.CORE: "core", Level.NONE: tried}
    best = "–" if standing.best_s is None else clock(standing.best_s)
    return (
        _MARKS[standing.level],
        card.slug,
        words[standing.level],
        best,
        f"{card.minutes} min",
        card.difficulty,
    )
