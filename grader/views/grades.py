"""The page of `kata grade`: who has passed what, and what most got wrong."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from grader import catalog
from grader.store.results import Result, Row
from grader.views.plain import columns, counted, paint, wrapped

_MARKS = {
    Result.PASSED: ("✓", "passed", "green"),
    Result.FAILED: ("✗", "failed", "red"),
    Result.UNSTABLE: ("≈", "unstable", "yellow"),
    Result.REFUSED: ("!", "refused", "yellow"),
    Result.OPEN: ("·", "open", "dim"),
}
_PEOPLE, _MISTAKES, _SENTENCES = 60, 8, 12
_NAME, _NO_KATA = 24, "(no kata)"


@dataclass(frozen=True)
class Cell:
    """What one person's answer to one kata came to. checks: passed, and made."""

    outcome: Result
    checks: tuple[int, int]
    missing: bool


class Grades:
    """The rows of a run, counted: no verdict is kept."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.people: dict[str, dict[str, Cell]] = {}
        self.outcomes: Counter[Result] = Counter()  # of what was handed in
        self.mistakes: Counter[tuple[str, str]] = Counter()  # submissions, by kata and id
        self.troubles: list[str] = []
        self.suspects: list[str] = []
        self.missing = self.unboxed = 0
        for row in rows:
            one = row.submission
            missing = not one.file
            cell = Cell(row.outcome, row.checks, missing)
            self.people.setdefault(one.who, {})[one.slug] = cell
            self.outcomes[row.outcome] += not missing
            self.missing += missing
            self.unboxed += row.boxed is False
            self.mistakes.update((one.slug, bug) for bug in row.bugs)
            about = f"{one.who}, {one.slug}" if one.slug else one.who
            if row.trouble and not missing:
                self.troubles.append(f"{about}: {row.trouble}")
            if row.tampered:
                self.suspects.append(f"{about} replaces {', '.join(row.tampered)}")
            elif row.marks:
                self.suspects.append(f"{about} uses {', '.join(row.marks)}")


def page(grades: Grades, notes: Sequence[str], width: int, colour: bool) -> list[str]:
    """A table by person and kata, the commonest named mistakes, what could not be judged."""
    there = {slug for cells in grades.people.values() for slug in cells}
    slugs = [slug for slug in (*(card.slug for card in catalog.cards()), "") if slug in there]
    lines = _table(grades, slugs, width, colour) or _list(grades, slugs, width, colour)
    if (more := len(grades.people) - _PEOPLE) > 0:
        lines.append(f"… and {counted(more, 'more person')}".replace("persons", "people"))
    if grades.mistakes:
        lines += ["", paint("Commonest named mistakes", "bold", colour)]
        most = grades.mistakes.most_common(_MISTAKES)
        wide = max(len(str(count)) for _, count in most)
        for (slug, bug), count in most:
            lines += wrapped(
                f"{catalog.entry(slug).bug(bug).title} ({slug})", width, f"  {count:>{wide}}  "
            )
    said = (
        ("Not judged", grades.troubles),
        ("For a person to look at", grades.suspects),
        ("Beside that", notes),
    )
    for title, texts in said:
        if texts:
            lines += ["", paint(title, "bold", colour)]
            for text in texts[:_SENTENCES]:
                lines += wrapped(text, width, "  ", "    ")
            if (more := len(texts) - _SENTENCES) > 0:
                lines.append(f"  … and {more} more")
    return [*lines, "", *_total(grades, width, colour)]


def _total(grades: Grades, width: int, colour: bool) -> list[str]:
    of = counted(sum(grades.outcomes.values()) + grades.missing, "submission")
    passed = grades.outcomes[Result.PASSED]
    words = [
        f"{count} {_MARKS[outcome][1]}"
        for outcome in Result
        if outcome is not Result.PASSED and (count := grades.outcomes[outcome])
    ]
    if grades.missing:
        words.append(f"{grades.missing} not handed in")
    lines = wrapped(f"{passed} of {of} passed{''.join(f', {word}' for word in words)}.", width)
    if grades.outcomes[Result.UNSTABLE]:
        lines += wrapped("Unstable: passes for some draws of the inputs only.", width)
    if grades.unboxed:
        many = counted(grades.unboxed, "submission")
        said = f"{many} ran WITHOUT the sandbox, with this account's rights."
        lines += [paint(line, "yellow", colour) for line in wrapped(said, width)]
    return lines


def _table(grades: Grades, slugs: Sequence[str], width: int, colour: bool) -> list[str]:
    """A row a person, a column a kata; nothing if it is too wide."""
    people = list(grades.people.items())[:_PEOPLE]
    head = ("", *(slug or _NO_KATA for slug in slugs))
    rows = [head, *((_short(who), *(_said(cells.get(s)) for s in slugs)) for who, cells in people)]
    lines = columns(rows)
    if not slugs or max(map(len, lines)) > width:
        return []
    wide = [max(len(row[i]) for row in rows) for i in range(len(head))]
    shown = [paint(lines[0], "dim", colour)]
    for row, (_, cells) in zip(rows[1:], people, strict=True):
        painted = [row[0].ljust(wide[0])]
        for at, slug in enumerate(slugs, 1):
            cell = cells.get(slug)
            style = _MARKS[cell.outcome][2] if cell else ""
            text = row[at]
            painted.append(paint(text, style, colour) + " " * (wide[at] - len(text)))
        shown.append("  ".join(painted).rstrip())
    return shown


def _list(grades: Grades, slugs: Sequence[str], width: int, colour: bool) -> list[str]:
    """A person a paragraph: the katas by what they came to."""
    lines = []
    for who, cells in list(grades.people.items())[:_PEOPLE]:
        passed = sum(cell.outcome is Result.PASSED for cell in cells.values())
        lines.append(f"{paint(_short(who), 'bold', colour)}  {passed} of {len(cells)} passed")
        for outcome in Result:
            here = [s for s in slugs if s in cells and cells[s].outcome is outcome]
            some = [slug or _NO_KATA for slug in here]
            if some and outcome is not Result.PASSED:
                mark, word, _ = _MARKS[outcome]
                lines += wrapped(f"{word}: {', '.join(some)}", width, f"  {mark} ")
    return lines


def _said(cell: Cell | None) -> str:
    if cell is None:
        return ""
    if cell.missing:
        return "– missing"
    mark, word, _ = _MARKS[cell.outcome]
    passed, made = cell.checks
    if cell.outcome is Result.FAILED:
        return f"{mark} {passed}/{made}"
    return mark if cell.outcome is Result.PASSED else f"{mark} {word}"


def _short(who: str) -> str:
    return who if len(who) <= _NAME else f"{who[: _NAME - 1]}…"
