"""What a learner's record adds up to: days of practice, recall by topic, katas against par.

Pure but for the database: times come in as arguments, and `now` is in the learner's own time zone,
because that decides which day it is.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from grader.practice import schedule
from grader.practice.database import Database, read_time
from grader.practice.deck import Deck
from grader.practice.plan import study_day
from grader.practice.progress import Progress

_WEAKEST = 5
_SURE = 0.9  # what is recalled as surely as FSRS wants it is not weak


@dataclass(frozen=True)
class Recalled:
    """A card and the probability, 0 to 1, that it is recalled now."""

    key: str
    recall: float


@dataclass(frozen=True)
class Topic:
    """Questions of one topic. `recall` is the mean over those seen, None without any."""

    name: str
    questions: int
    seen: int
    recall: float | None


@dataclass(frozen=True)
class Solve:
    """A kata solved from the blank stub against the clock."""

    slug: str
    at: datetime
    seconds: float
    hints: int
    saw_solution: bool


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
    run of days that reaches today or yesterday, `weakest` what was seen and is recalled least."""

    day: date
    days: Mapping[date, int]
    streak: int
    longest: int
    answers: int
    hunts: int
    topics: tuple[Topic, ...]
    weakest: tuple[Recalled, ...]
    katas: tuple[KataRecord, ...]

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
    database: Database, now: datetime, topics: Mapping[str, Sequence[str]], slugs: Iterable[str]
) -> Statistics:
    """`topics` holds the card keys of each topic's questions, `slugs` the katas, in order."""
    known = list(slugs)
    there = {key for keys in topics.values() for key in keys}
    there |= {f"{kind}:{slug}" for kind in ("kata", "bug") for slug in known}
    cards = Deck(database).cards()
    recalled = {k: schedule.recall(card.memory, now) for k, card in cards.items() if k in there}
    days = _days(database, now)
    today = study_day(now)
    weak = [Recalled(key, recall) for key, recall in recalled.items() if recall < _SURE]
    return Statistics(
        today,
        days,
        *streaks(days, today),
        _number(database, "answers WHERE key NOT LIKE 'bug:%'"),
        _number(database, "reviews WHERE key LIKE 'bug:%' AND NOT undone"),
        tuple(_topic(name, keys, recalled) for name, keys in topics.items()),
        tuple(sorted(weak, key=lambda card: card.recall)[:_WEAKEST]),
        tuple(_katas(database, known)),
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


def _days(database: Database, now: datetime) -> dict[date, int]:
    rows = database.rows(
        "SELECT at FROM answers WHERE key NOT LIKE 'bug:%' UNION ALL SELECT at FROM attempts"
        " UNION ALL SELECT at FROM reviews WHERE key LIKE 'bug:%' AND NOT undone"
    )
    # astimezone() and not now.tzinfo: the offset of each time's own season.
    times = (read_time(row["at"]).astimezone() for row in rows)
    return dict(sorted(Counter(map(study_day, times)).items()))


def _topic(name: str, keys: Sequence[str], recalled: Mapping[str, float]) -> Topic:
    seen = [recalled[key] for key in keys if key in recalled]
    return Topic(name, len(keys), len(seen), sum(seen) / len(seen) if seen else None)


def _katas(database: Database, slugs: Iterable[str]) -> Iterable[KataRecord]:
    standings = Progress(database).standings()
    hints = _counts(database, "hints_seen")
    solutions = _counts(database, "solutions_seen")
    solves: dict[str, list[Solve]] = {}
    for row in database.rows(
        "SELECT attempts.slug, rounds.at AS began, min(attempts.at) AS ended,"
        " (SELECT count(*) FROM hints_seen"
        " WHERE round = rounds.id AND at <= attempts.at) AS hints,"
        " EXISTS (SELECT 1 FROM solutions_seen"
        " WHERE round = rounds.id AND at <= attempts.at) AS saw"
        " FROM attempts JOIN rounds ON rounds.id = attempts.round"
        " WHERE rounds.timed AND attempts.passed AND attempts.part IS NULL"
        " GROUP BY rounds.id ORDER BY ended"
    ):
        began, ended = map(read_time, (row["began"], row["ended"]))
        seconds = (ended - began).total_seconds()
        if seconds >= 0:  # else the system's clock was set back meanwhile
            solve = Solve(row["slug"], ended, seconds, row["hints"], bool(row["saw"]))
            solves.setdefault(solve.slug, []).append(solve)
    for slug in slugs:
        if slug in standings:
            standing, mine = standings[slug], tuple(solves.get(slug, ()))
            yield KataRecord(
                slug,
                standing.attempts,
                hints.get(slug, 0),
                solutions.get(slug, 0),
                standing.level,
                mine,
            )


def _number(database: Database, what: str) -> int:
    row = database.row(f"SELECT count(*) AS number FROM {what}")
    return row["number"] if row else 0


def _counts(database: Database, table: str) -> dict[str, int]:
    rows = database.rows(f"SELECT slug, count(*) AS number FROM {table} GROUP BY slug")
    return {row["slug"]: row["number"] for row in rows}
