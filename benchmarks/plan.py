"""Whether `kata plan` is worth it: what simulated learners know on the day of the interview.

    python benchmarks/plan.py [LEARNERS]

Every learner practises the same minutes a day in three ways: in FSRS's own order (`kata today`
without a plan: what is due, most overdue first, then new things), in FSRS's order with new things
first, and by the plan. All three get new things in the same order (the plan's), without a daily
limit, and go on until nothing fits into the day's minutes any more.

A learner's memory is FSRS's model with parameters of their own, drawn around the defaults, so
that the scheduler, which knows the defaults alone, is wrong about everybody. Whether something is
recalled is drawn with the probability that this memory gives. The n-th look of one learner at
one thing draws the same number under all three.
"""

import math
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from fsrs import Card as Memory
from fsrs import Rating as Grade
from fsrs import Scheduler
from fsrs.scheduler import DEFAULT_PARAMETERS

from grader.practice import plan as plans
from grader.practice import queue, schedule
from grader.practice.plan import Item, Plan
from grader.recall import agenda
from grader.store.memory import MemoryCard, Rating

BEGIN = datetime(2026, 3, 1, 18, tzinfo=UTC)
SETTINGS = ((4, 30), (7, 30), (7, 60), (14, 20), (14, 40), (14, 60), (28, 20), (28, 40), (28, 60))
_RELEARN = timedelta(minutes=10)


class Learner:
    """Someone whose memory follows FSRS with other parameters than the scheduler supposes."""

    def __init__(self, number: int) -> None:
        draw = random.Random(number)
        parameters = list(DEFAULT_PARAMETERS)
        keeps = math.exp(draw.gauss(0, 0.4))  # how long a first look lasts
        parameters[:4] = [min(value * keeps, 100.0) for value in parameters[:4]]
        parameters[8] = min(parameters[8] + draw.gauss(0, 0.25), 4.5)  # growth when recalled
        parameters[11] *= math.exp(draw.gauss(0, 0.25))  # what is left when forgotten
        parameters[20] = min(max(parameters[20] * math.exp(draw.gauss(0, 0.25)), 0.1), 0.8)
        self._model = Scheduler(
            tuple(parameters),
            learning_steps=[_RELEARN],
            relearning_steps=[_RELEARN],
            enable_fuzzing=False,
        )
        self._number = number
        self._knows = 0.2 + 0.6 * draw.betavariate(2, 2)  # how often a first look goes well
        self._memories: dict[str, Memory] = {}
        self._looks: dict[str, int] = {}

    def practise(self, key: str, now: datetime) -> Rating:
        """One look: how it went, and what it leaves behind."""
        look = self._looks[key] = self._looks.get(key, 0) + 1
        draw = random.Random(f"{self._number} {key} {look}")
        memory = self._memories.get(key)
        chance = self._knows if memory is None else self.recall(key, now)
        grades = (Rating.HARD, Rating.GOOD, Rating.EASY)
        luck = draw.random()
        rating = draw.choices(grades, (20, 65, 15))[0] if luck < chance else Rating.AGAIN
        self._memories[key], _ = self._model.review_card(
            memory or Memory(card_id=1, due=now), Grade(int(rating)), now
        )
        return rating

    def recall(self, key: str, when: datetime) -> float:
        """The true probability of recall."""
        if key not in self._memories:
            return 0.0
        return float(self._model.get_card_retrievability(self._memories[key], when))

    def unseen(self, items: Sequence[Item]) -> int:
        return sum(item.key not in self._memories for item in items)


@dataclass
class Day:
    """One day's practice: what is known at `now`, the minutes left, what was done."""

    items: Sequence[Item]
    cards: dict[str, MemoryCard]
    plan: Plan
    now: datetime
    minutes: float
    learner: Learner
    by_key: dict[str, Item] = field(init=False)

    def __post_init__(self) -> None:
        self.by_key = {item.key: item for item in self.items}

    def practise(self, key: str) -> None:
        rating = self.learner.practise(key, self.now)
        old = self.cards.get(key)
        new = schedule.review(old.memory if old else None, rating, self.now)
        self.cards[key] = MemoryCard(key, new.memory, new.due)
        self.minutes -= self.by_key[key].minutes
        self.now += timedelta(minutes=self.by_key[key].minutes)


def by_fsrs(day: Day, new_first: bool = False) -> None:
    """FSRS's own order; what failed is due again ten minutes later, the same day."""
    keys = [item.key for item in plans.in_turn(day.items)]
    while True:
        order = queue.ordered(keys, day.cards, day.now)
        if new_first:
            order.sort(key=lambda key: key in day.cards)
        fitting = (key for key in order if day.by_key[key].minutes <= day.minutes)
        key = next(fitting, None)
        if key is None:
            return
        day.practise(key)


def new_first(day: Day) -> None:
    by_fsrs(day, new_first=True)


def by_plan(day: Day) -> None:
    known = queue.memories(day.cards)
    for item in plans.chosen(day.items, known, day.now, day.plan, day.minutes):
        day.practise(item.key)


WAYS: tuple[Callable[[Day], None], ...] = (by_fsrs, new_first, by_plan)


@dataclass(frozen=True)
class Outcome:
    """The share, by worth, that one learner recalls on the day, and how much was never seen."""

    recall: float
    unseen: int


def live(job: tuple[int, int, int]) -> tuple[Outcome, ...]:
    """One learner's weeks, in each of the ways."""
    number, days, minutes = job
    known = agenda.items()
    items = agenda.planned(known, {})
    plan = Plan(BEGIN.date() + timedelta(days=days), minutes)
    return tuple(_live(Learner(number), items, plan, way) for way in WAYS)


def _live(
    learner: Learner, items: Sequence[Item], plan: Plan, way: Callable[[Day], None]
) -> Outcome:
    cards: dict[str, MemoryCard] = {}
    for number in range(plan.days_left(BEGIN)):
        now = BEGIN + timedelta(days=number)
        way(Day(items, cards, plan, now, plan.minutes_per_day, learner))
    day = plan.moment(BEGIN)
    recalled = [learner.recall(item.key, day) for item in items]
    worth = sum(item.worth for item in items)
    weighted = sum(r * item.worth for r, item in zip(recalled, items, strict=True)) / worth
    return Outcome(weighted, learner.unseen(items))


def main() -> None:
    learners = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    items = agenda.planned(agenda.items(), {})
    total = sum(item.minutes for item in items)
    print(f"{len(items)} questions and katas, {total:.0f} minutes to see each once;")
    print(f"{learners} learners. Recall on the day, weighted by worth; ± is the standard deviation")
    print("over learners, `gain` that of each learner's own difference, `wins` how many gain.")
    print()
    print(f"{'days':>4} {'min':>4} | {'FSRS':>13} {'new first':>13} {'plan':>13} |", end="")
    print(f" {'gain on FSRS':>14} {'wins':>5} | {'gain on new first':>17} {'wins':>5} | never seen")
    with ProcessPoolExecutor() as pool:
        for days, minutes in SETTINGS:
            jobs = [(number, days, minutes) for number in range(learners)]
            print(row(days, minutes, list(pool.map(live, jobs, chunksize=4))), flush=True)


def row(days: int, minutes: int, lives: list[tuple[Outcome, ...]]) -> str:
    ways = [[life[way].recall for life in lives] for way in range(len(WAYS))]
    cells = " ".join(f"{_spread(way):>13}" for way in ways)
    gains = []
    for way in ways[:2]:
        gain = [mine - other for mine, other in zip(ways[2], way, strict=True)]
        wins = sum(g > 0 for g in gain) / len(gain)
        gains.append(f"{_spread(gain, '+'):>14} {wins:5.0%}")
    unseen = " ".join(
        f"{statistics.mean(life[way].unseen for life in lives):.1f}" for way in range(3)
    )
    return f"{days:4} {minutes:4} | {cells} | {gains[0]} | {gains[1]:>23} | {unseen}"


def _spread(numbers: Sequence[float], sign: str = "") -> str:
    return f"{statistics.mean(numbers):{sign}.1%} ± {100 * statistics.stdev(numbers):.1f}"


if __name__ == "__main__":
    main()
