"""The page of `kata stats`: charts in plain characters, readable without colour."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

from grader.catalog import Card
from grader.practice.statistics import KataRecord, Recalled, Statistics, Topic
from grader.store.attempts import Solve
from grader.views.plain import clock, columns, counted, paint, wrapped

HEAT = ((0, "·"), (1, "░"), (5, "▒"), (10, "▓"), (20, "█"))  # from so many on, this sign
WEEKS = 26
_DAYS = ("Mon", "", "Wed", "", "Fri", "", "Sun")
_BAR = 16
_PAR = 7  # where par stands in the bar of a time, which ends at twice par
_SOLVES = 10


def page(stats: Statistics, cards: Mapping[str, Card], width: int, colour: bool) -> list[str]:
    """Streak and heat map, recall by topic, what is weakest, katas against par.

    cards: the catalogue's cards by slug.
    """
    if not stats.days:
        return [
            "Nothing is recorded yet: your charts grow as you practise.",
            "Begin: `kata today` shows what there is to do.",
        ]
    lines = [paint(streak(stats), "bold", colour), *wrapped(totals(stats), width)]
    lines += ["", *heat_map(stats, width)]
    lines += ["", paint("Recall of the questions seen, predicted for now", "bold", colour)]
    lines += _topics(stats.rows, stats.weakest_topic, colour)
    if stats.weakest:
        lines += ["", paint("Weakest", "bold", colour), *_weakest(stats.weakest)]
    if stats.katas:
        lines += ["", *_katas(stats.katas, cards, colour)]
    if stats.solves:
        lines += ["", paint("Time against par (│)", "bold", colour)]
        lines += _times(stats.solves[-_SOLVES:], cards, colour)
    return [*lines, "", "Next: `kata today`."]


def streak(stats: Statistics) -> str:
    longest = f", the longest {stats.longest}" if stats.longest > stats.streak else ""
    return f"Streak: {counted(stats.streak, 'day')}{longest}"


def totals(stats: Statistics) -> str:
    """What was done, in one sentence."""
    done = [
        counted(stats.answers, "answer"),
        f"{counted(stats.attempts, 'attempt')} at {counted(len(stats.katas), 'kata')}",
        f"{passed(stats)} passed",
    ]
    if stats.hunts:
        done.append(counted(stats.hunts, "bug hunt"))
    return f"{', '.join(done)}, on {counted(len(stats.days), 'day')}."


def passed(stats: Statistics) -> int:
    return sum(kata.level == "complete" for kata in stats.katas)


def weeks(stats: Statistics, number: int) -> list[list[date | None]]:
    """The last weeks up to today, Monday to Sunday each; days to come are None."""
    monday = stats.day - timedelta(days=stats.day.weekday())
    first = monday - timedelta(weeks=number - 1)
    days = [[first + timedelta(days=7 * week + day) for day in range(7)] for week in range(number)]
    return [[day if day <= stats.day else None for day in week] for week in days]


def heat_map(stats: Statistics, width: int) -> list[str]:
    """Days as signs, a week per column, with the months above and the key below."""
    shown = weeks(stats, min(WEEKS, (width - 4) // 2))
    months = [" "] * (2 * len(shown) + 2)
    for number, week in enumerate(shown):
        first = next((day for day in week if day and (day.day == 1 or number == 0)), None)
        at = 2 * number
        if first and (at == 0 or set(months[max(at - 1, 0) : at]) <= {" "}):
            months[at : at + 3] = f"{first:%b}"
    lines = ["    " + "".join(months).rstrip()]
    for weekday, name in enumerate(_DAYS):
        signs = [_sign(stats, week[weekday]) for week in shown]
        lines.append(f"{name:4}{' '.join(signs)}".rstrip())
    key = [f"{sign} {least}" for least, sign in HEAT]
    return [*lines, f"    {'   '.join(key)}+ a day"]


def _sign(stats: Statistics, day: date | None) -> str:
    return " " if day is None else HEAT[heat(stats.days.get(day, 0))][1]


def heat(number: int) -> int:
    """Which of the steps of HEAT a day with so much practice is."""
    return max(step for step, (least, _) in enumerate(HEAT) if number >= least)


def _topics(topics: Sequence[Topic], weakest: Topic | None, colour: bool) -> list[str]:
    rows = []
    for topic in topics:
        bar = "" if topic.recall is None else "█" * max(round(topic.recall * _BAR), 1)
        share = "–" if topic.recall is None else f"{topic.recall:.0%}"
        mark = "◂ weakest" if topic is weakest else ""
        rows.append((topic.name, bar, share, f"{topic.seen} of {topic.questions} seen", mark))
    lines = columns(rows, right=frozenset({2}))
    return [
        paint(line, "yellow" if topic is weakest else "", colour)
        for line, topic in zip(lines, topics, strict=True)
    ]


def _weakest(weakest: Sequence[Recalled]) -> list[str]:
    rows = ((f"{card.recall:.0%}", f"`{command(card.key)}`") for card in weakest)
    return columns(rows, right=frozenset({0}))


def command(key: str) -> str:
    """What practises the thing of this key."""
    kind, _, name = key.partition(":")
    return {"question": "kata quiz --ask ", "kata": "kata start "}.get(kind, "kata bug ") + name


def _katas(katas: Sequence[KataRecord], cards: Mapping[str, Card], colour: bool) -> list[str]:
    rows = [("kata", "tries", "hints", "first → best", "par")]
    for kata in katas:
        rows.append(
            (
                kata.slug,
                str(kata.attempts),
                f"{kata.hints}{'+' if kata.solutions else ''}",
                times(kata),
                str(cards[kata.slug].minutes),
            )
        )
    head, *lines = columns(rows, right=frozenset({1, 2, 4}))
    seen = ["+ the solution was looked at"] if any(kata.solutions for kata in katas) else []
    return [paint(head, "bold", colour), *lines, *seen]


def times(kata: KataRecord) -> str:
    """The first time against the clock, and the best if it is another."""
    if not kata.solves:
        return "passed, no time" if kata.level == "complete" else "–"
    first, best = kata.solves[0].seconds, min(solve.seconds for solve in kata.solves)
    return clock(first) if best == first else f"{clock(first)} → {clock(best)}"


def _times(solves: Sequence[Solve], cards: Mapping[str, Card], colour: bool) -> list[str]:
    rows = []
    for solve in solves:
        share = against_par(solve, cards)
        length = min(max(round(share * _PAR), 1), 2 * _PAR)
        bar = f"{'█' * min(length, _PAR):{_PAR}}│{'█' * (length - _PAR)}"
        more = "…" if share > 2 else ""
        day = f"{solve.at.astimezone():%d %b}"
        rows.append((day, solve.slug, bar + more, clock(solve.seconds)))
    return [
        paint(line, "green" if against_par(solve, cards) <= 1 else "yellow", colour)
        for line, solve in zip(columns(rows, right=frozenset({3})), solves, strict=True)
    ]


def against_par(solve: Solve, cards: Mapping[str, Card]) -> float:
    """The time as a multiple of par."""
    return solve.seconds / (60 * cards[solve.slug].minutes)
