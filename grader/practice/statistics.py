"""What a learner's record adds up to: days of practice, recall by topic, katas against par.

Pure but for the store: times come in as arguments, and `now` is in the learner's own time zone,
because that decides which day it is.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from grader.practice import schedule
from grader.practice.plan import study_day
from grader.store import Store
from grader.store.attempts import Solve

_WEAKEST = 5
_SURE = 0.9  # what is recalled as surely as FSRS wants it is not weak


@dataclass(frozen=True)
class Recalled:
    """A card and the probability, 0 to 1, that it is recalled now."""

    key: str
    recall: float


@dataclass(frozen=True)
class Topic:
    """Questions of one topic, or deck. `recall` is the mean over those seen, None without any."""

    name: str
    questions: int
    seen: int
    recall: float | None


@dataclass(frozen=True)
class KataRecord:
    """One kata that was tried. `solves` are those against the clock, oldest first."""

    slug: str
    attempts: int
    hints: int
    solutions: int
    level: str
    solves: tuple[Solve, ...]


@dataclass(frozen=True)
class Statistics:
    """Everything. `days` counts answers, attempts and hunts of each study day; `streak` is the
    run of days that reaches today or yesterday, `weakest` what was seen and is recalled least.
    `topics` are those of the first deck, the core."""

    day: date
    days: Mapping[date, int]
    streak: int
    longest: int
    answers: int
    hunts: int
    topics: tuple[Topic, ...]
    decks: tuple[Topic, ...]
    weakest: tuple[Recalled, ...]
    katas: tuple[KataRecord, ...]

    @property
    def rows(self) -> tuple[Topic, ...]:
        """The core deck by topics, each other as a whole."""
        return (*self.topics, *self.decks[1:])

    @property
    def attempts(self) -> int:
        return sum(kata.attempts for kata in self.katas)

    @property
    def solves(self) -> list[Solve]:
        """All solves, oldest first."""
        return sorted((s for kata in self.katas for s in kata.solves), key=lambda s: s.at)

    @property
    def weakest_topic(self) -> Topic | None:
        """The topic recalled least, of those begun; None if none is weak."""
        begun = [(t.recall, t) for t in self.topics if t.recall is not None and t.recall < _SURE]
        return min(begun, key=lambda pair: pair[0])[1] if begun else None


def gather(
    store: Store,
    now: datetime,
    topics: Mapping[str, Sequence[str]],
    decks: Mapping[str, Sequence[str]],
    slugs: Iterable[str],
) -> Statistics:
    """`topics` holds the card keys of each topic's questions in the core deck, `decks` those of
    each deck, `slugs` the katas, in order."""
    known = list(slugs)
    there = {key for keys in decks.values() for key in keys}
    there |= {f"{kind}:{slug}" for kind in ("kata", "bug") for slug in known}
    cards = store.memory.cards()
    recalled = {k: schedule.recall(card.memory, now) for k, card in cards.items() if k in there}
    days = _days(store)
    today = study_day(now)
    weak = [Recalled(key, recall) for key, recall in recalled.items() if recall < _SURE]
    return Statistics(
        today,
        days,
        *streaks(days, today),
        store.tallies.answers(),
        store.tallies.hunts(),
        tuple(_topic(name, keys, recalled) for name, keys in topics.items()),
        tuple(_topic(name, keys, recalled) for name, keys in decks.items()),
        tuple(sorted(weak, key=lambda card: card.recall)[:_WEAKEST]),
        tuple(_katas(store, known)),
    )


def streaks(days: Iterable[date], today: date) -> tuple[int, int]:
    """The run of days that reaches `today` or the day before, and the longest up to today.
    Days after today, from a clock that was set back since, do not count."""
    current = longest = 0
    before: date | None = None
    for day in sorted(day for day in set(days) if day <= today):
        current = current + 1 if before == day - timedelta(days=1) else 1
        longest, before = max(longest, current), day
    alive = before is not None and before >= today - timedelta(days=1)
    return (current if alive else 0), longest


def _days(store: Store) -> dict[date, int]:
    # astimezone() and not that of some other time: the offset of each time's own season.
    times = (at.astimezone() for at in store.tallies.practised())
    return dict(sorted(Counter(map(study_day, times)).items()))


def _topic(name: str, keys: Sequence[str], recalled: Mapping[str, float]) -> Topic:
    seen = [recalled[key] for key in keys if key in recalled]
    return Topic(name, len(keys), len(seen), sum(seen) / len(seen) if seen else None)


def _katas(store: Store, slugs: Iterable[str]) -> Iterable[KataRecord]:
    standings = store.attempts.standings()
    hints, solutions = store.tallies.hints(), store.tallies.solutions()
    solves: dict[str, list[Solve]] = {}
    for solve in store.attempts.solves():
        solves.setdefault(solve.slug, []).append(solve)
    for slug in slugs:
        if slug in standings:
            yield KataRecord(
                slug,
                standings[slug].attempts,
                hints.get(slug, 0),
                solutions.get(slug, 0),
                standings[slug].level,
                tuple(solves.get(slug, ())),
            )
