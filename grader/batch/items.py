"""What the checks of a run say as test items, what most got wrong, and what to teach.

Counted are submissions that were judged: the file could be loaded and a check was made. A check
that was not run counts neither way.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

from grader.batch.judged import Judged, bug_of, is_not_run, is_wrong
from grader.exam.verdict import Check, Outcome, Part

_NONE = 2  # of a check that was not made; 1 is passed, 0 is not
LEAST = 5  # submissions: below that a correlation says nothing


@dataclass(frozen=True)
class Item:
    """One check over all submissions of a kata.

    discrimination: the corrected item-total correlation, that of passing this check with the
    share of the others that pass; None where all or nearly all agree, or too few were judged.
    Near zero or negative, the check tells nothing of who can do the kata, or is misunderstood.
    """

    name: str
    part: Part
    failing: int
    of: int
    discrimination: float | None

    @property
    def share(self) -> float:
        return self.failing / self.of if self.of else 0.0


@dataclass(frozen=True)
class Mistake:
    """A named mistake, and in how many submissions it was found."""

    slug: str
    bug: str
    title: str
    question: str | None
    count: int


@dataclass(frozen=True)
class Lesson:
    """A question worth teaching: how many people made a mistake that it drills, and which."""

    question: str
    people: int
    titles: tuple[str, ...]


class Statistics:
    """Adds up one submission after another, of which it keeps a byte a check."""

    def __init__(self) -> None:
        self._checks: dict[str, dict[str, Part]] = {}
        self._made: dict[str, list[bytes]] = defaultdict(list)  # in the order of _checks
        self._found: Counter[tuple[str, str]] = Counter()
        self._people: dict[str, set[str]] = defaultdict(set)
        self._titles: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, one: Judged) -> None:
        made = {check.name: not is_wrong(check) for check in one.checks if _counts(check)}
        if not made:
            return
        known = self._checks.setdefault(one.slug, {})
        for check in one.checks:
            known.setdefault(check.name, check.part)
        self._made[one.slug].append(bytes(made.get(name, _NONE) for name in known))
        for id in one.bugs:
            self._found[one.slug, id] += 1
            bug = bug_of(one.slug, id)
            if bug is not None and bug.question is not None:
                self._people[bug.question].add(one.who)
                self._titles[bug.question][bug.title] += 1

    @property
    def slugs(self) -> list[str]:
        return list(self._checks)

    def judged(self, slug: str) -> int:
        """How many submissions the items of a kata are about."""
        return len(self._made[slug])

    def items(self, slug: str) -> list[Item]:
        """The checks of a kata, in the suite's order; `of` is 0 where one was never made."""
        totals = [(line.count(1), len(line) - line.count(_NONE)) for line in self._made[slug]]
        return [
            self._item(slug, at, name, part, totals)
            for at, (name, part) in enumerate(self._checks[slug].items())
        ]

    def _item(
        self, slug: str, at: int, name: str, part: Part, totals: Sequence[tuple[int, int]]
    ) -> Item:
        pairs = [
            (float(line[at]), (passed - line[at]) / (of - 1) if of > 1 else 0.0)
            for line, (passed, of) in zip(self._made[slug], totals)
            if at < len(line) and line[at] != _NONE
        ]
        failing = sum(right == 0.0 for right, _ in pairs)
        found = _correlation(pairs) if len(pairs) >= LEAST else None
        return Item(name, part, failing, len(pairs), found)

    def mistakes(self) -> list[Mistake]:
        """The named mistakes, the commonest first."""
        return list(self._mistakes())

    def _mistakes(self) -> Iterator[Mistake]:
        for (slug, id), count in self._found.most_common():
            bug = bug_of(slug, id)
            if bug is not None:
                yield Mistake(slug, id, bug.title, bug.question, count)

    def lessons(self) -> list[Lesson]:
        """The questions whose mistakes most people made, first."""
        order = sorted(self._people.items(), key=lambda pair: (-len(pair[1]), pair[0]))
        return [
            Lesson(question, len(people), tuple(t for t, _ in self._titles[question].most_common()))
            for question, people in order
        ]


def _counts(check: Check) -> bool:
    return check.outcome is not Outcome.SKIPPED and not is_not_run(check)


def _correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Pearson's, or None where one of the two does not vary."""
    n = len(pairs)
    mean_x, mean_y = (sum(values) / n for values in zip(*pairs))
    xx = sum((x - mean_x) ** 2 for x, _ in pairs)
    yy = sum((y - mean_y) ** 2 for _, y in pairs)
    xy = sum((x - mean_x) * (y - mean_y) for x, y in pairs)
    return None if xx < 1e-12 or yy < 1e-12 else max(-1.0, min(1.0, xy / sqrt(xx * yy)))
