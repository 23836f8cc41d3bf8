"""One sitting of `kata quiz`: which question comes next, what is stored of each, and its sum.

Nothing here knows a terminal. Times (aware, in the learner's own time zone) and seeds come in as
arguments. What was given is stored before anything is revealed, so that a sitting may end at any
moment: the next one takes over what was answered and not yet rated (`Memory.take_over`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

import msgspec

from grader.practice import queue, repetition, schedule
from grader.practice.plan import Plan
from grader.recall import numbers
from grader.recall.bank import ALL_DECKS, CORE, FollowUp, Question
from grader.recall.numbers import BadNumber, Drawn, Judged
from grader.store.memory import Answer, Memory, MemoryCard, Rating

_TRIES = 20  # seeds looked at for numbers other than the last time's


@dataclass(frozen=True)
class Options:
    """What a sitting asks. `ask` is the id of the only question; `cram` leaves the schedule
    alone: it neither follows nor changes it. Without a deck new questions are of the plan's, or
    else of the core deck; what was begun of the other comes back all the same."""

    topic: str | None = None
    limit: int | None = None
    cram: bool = False
    ask: str | None = None
    deck: str | None = None


@dataclass
class Turn:
    """One asking of a question. Its texts have their numbers filled in; `draw` is their seed.

    card: None for a question never rated; answer: what is stored, None before it is given;
    text: what it says, of a numeric question in its first line the number (empty: none given);
    resumed: it was answered in an earlier sitting; points: indices of the rubric points ticked;
    followup, followup_text: what is stored of the answer to the follow-up shown last.
    """

    question: Question
    draw: int
    names: Drawn
    card: MemoryCard | None = None
    answer: int | None = None
    text: str = ""
    finished: bool = False
    resumed: bool = False
    judged: Judged | None = None
    points: tuple[int, ...] | None = None
    shown_followups: int = 0
    followup: int | None = None
    followup_text: str = ""

    @property
    def key(self) -> str:
        return key(self.question.id)

    @property
    def wants_number(self) -> bool:
        """Whether a number is what comes next: `Sitting.number` takes it."""
        return self.question.numeric is not None and self.answer is None

    @property
    def share(self) -> float:
        """The share of the rubric's points that were ticked."""
        return len(self.points or ()) / len(self.question.points)


@dataclass(frozen=True)
class Summary:
    """What a sitting came to, and what comes next.

    points, numeric: reached and possible; weakest: the topic with the smallest share of points
    and that share, if more than one was asked; unrated: answered, and left before the rating;
    left: what today still holds; beyond: what is due now beside what the plan chose for today;
    next_due: when the next of the rest is due; new_used_up: new questions wait for tomorrow.
    """

    answered: int
    ratings: Mapping[Rating, int]
    points: tuple[int, int]
    numeric: tuple[int, int]
    seconds: float
    weakest: tuple[str, float] | None
    unrated: int
    left: int
    beyond: int
    next_due: datetime | None
    new_used_up: bool


def key(id: str) -> str:
    """The card of a question."""
    return f"question:{id}"


def _followup_key(turn: Turn) -> str:
    return f"followup:{turn.question.id}/{turn.shown_followups}"


def _day_start(now: datetime) -> datetime:
    return schedule.day_end(now) - timedelta(days=1)


class Sitting:
    """A sitting over a deck. It counts as begun, and is stored, when it is made. From one step to
    the next `deck` may be opened anew: a front need not hold it open while it waits."""

    def __init__(
        self,
        deck: Memory,
        questions: Sequence[Question],
        options: Options,
        now: datetime,
        plan: Plan | None = None,
    ) -> None:
        self.deck, self.options, self._plan = deck, options, plan
        self._all = {key(q.id): q for q in questions}
        self._chosen = self._keys(options, deck.cards())
        self._asked: list[str] = []
        self._rated: dict[str, None] = {}  # and not asked again since, in order
        self._resumed: list[Answer] = []
        # What the plan chose for today is chosen once: a sitting asks what it announced.
        self._today = self._of_today(now) if plan and self._follows_plan(options) else None
        self.beyond_plan = False
        with deck.transaction():
            self.id = deck.begin_quiz(asdict(options), now)
            if not options.cram:
                taken = deck.take_over(self.id, _day_start(now))
                meant = self._meant(options)
                self._resumed = [answer for answer in taken if answer.key in meant]
        if self._today is not None and not self.waiting(now):
            self._today = self._beyond(now)
            self.beyond_plan = bool(self._today)

    # What comes next

    def next(self, now: datetime, seed: int) -> Turn | None:
        """The next question, or None when the sitting is over. `seed` draws its numbers."""
        if self._resumed:
            turn = self._turn_of(self._resumed.pop(0))
        elif waiting := self.waiting(now):
            question = self._all[waiting[0]]
            turn = self._asking(question, seed)
        else:
            return None
        self._asked.append(turn.key)
        self._rated.pop(turn.key, None)
        return turn

    def waiting(self, now: datetime) -> list[str]:
        """The keys still to come, in order, those taken over first."""
        resumed = [answer.key for answer in self._resumed]
        cards = self.deck.cards()
        # Failed a while ago in this sitting, and due once more.
        again = [k for k in self._rated if k in cards and cards[k].due <= now]
        chosen = self._queue(self.options, cards, now) if self._today is None else self._today
        fresh = [k for k in chosen if k not in self._asked and k not in resumed]
        if self.options.ask or self.options.cram:
            again = []
        order = [*resumed, *again, *self._soon_last(fresh, cards, now)]
        if self.options.limit is None:
            return order
        return order[: max(self.options.limit - len(self._asked), 0)]

    def _soon_last(
        self, keys: list[str], cards: Mapping[str, MemoryCard], now: datetime
    ) -> list[str]:
        """What was rated today and is due in a few minutes comes after all else."""
        since = _day_start(now)

        def soon(k: str) -> bool:
            card = cards.get(k)
            return (
                card is not None and card.due > now and schedule.reviewed_at(card.memory) >= since
            )

        return sorted(keys, key=soon)

    def counts(self, now: datetime) -> tuple[int, int, int]:
        """How many of those to come are to be gone on with, were seen before, and are new."""
        cards, waiting = self.deck.cards(), self.waiting(now)
        resumed = len(self._resumed)
        new = sum(k not in cards for k in waiting[resumed:])
        return resumed, len(waiting) - resumed - new, new

    def _meant(self, options: Options) -> list[str]:
        """The keys of all that the options name."""
        return [
            k
            for k, q in self._all.items()
            if options.ask in (None, q.id)
            and options.topic in (None, q.topic)
            and q.within(options.deck or ALL_DECKS)
        ]

    def _keys(self, options: Options, cards: Mapping[str, MemoryCard]) -> list[str]:
        """The same, without the new ones of a deck that nobody asked for."""
        meant = self._meant(options)
        if options.ask or options.deck:
            return meant
        deck = self._plan.deck if self._plan else CORE
        return [k for k in meant if k in cards or self._all[k].within(deck)]

    def _queue(self, options: Options, cards: Mapping[str, MemoryCard], now: datetime) -> list[str]:
        keys = self._keys(options, cards)
        if options.ask:
            return keys
        if options.cram:
            return self._weakest(keys, cards, now)
        if self._plan is None:
            order = queue.ordered(keys, cards, now)
            new = [k for k in order if k not in cards]
            return [k for k in order if k in cards] + new[: self.new_left(now)]
        if self._follows_plan(options):
            return self._of_today(now)
        from grader.recall import agenda

        planned = queue.ordered(keys, cards, now, self._plan, agenda.items())
        return [k for k in planned if k in self._all]

    @staticmethod
    def _follows_plan(options: Options) -> bool:
        """Whether a plan, if there is one, chooses; else it only says in which order."""
        return not (options.ask or options.cram or options.topic or options.deck)

    def _of_today(self, now: datetime) -> list[str]:
        """The questions that the plan has chosen for today."""
        from grader.recall import agenda

        today = agenda.today(self.deck, self._plan, now)
        return [e.item.key for e in (*today.due, *today.new) if e.item.key in self._all]

    def _beyond(self, now: datetime) -> list[str]:
        """The questions that are due by now and that the plan has not chosen for today."""
        from grader.recall import agenda

        return [
            entry.item.key
            for entry in agenda.today(self.deck, self._plan, now).beyond
            if entry.item.key in self._all and entry.due is not None and entry.due <= now
        ]

    def _weakest(
        self, keys: list[str], cards: Mapping[str, MemoryCard], now: datetime
    ) -> list[str]:
        """Least known first; what was answered today comes last."""
        since = _day_start(now)
        today = {answer.key for answer in self.deck.answers() if answer.at >= since}

        def known(k: str) -> tuple[bool, float]:
            recalled = schedule.recall(cards[k].memory, now) if k in cards else 0.0
            return k in today, recalled

        return sorted(keys, key=known)

    def new_left(self, now: datetime) -> int:
        """How many new questions the study day of `now` still holds."""
        since = _day_start(now)
        first: dict[str, datetime] = {}
        for review in self.deck.reviews():
            first.setdefault(review.key, review.at)
        begun = sum(k.startswith("question:") and at >= since for k, at in first.items())
        return max(queue.NEW_A_DAY - begun, 0)

    def _asking(self, question: Question, seed: int) -> Turn:
        """A question with numbers other than the last time's, where it has any."""
        card = self.deck.cards().get(key(question.id))
        if question.numeric is None:
            return Turn(question, 0, {}, card)
        before = self.deck.answers(key(question.id))
        last = numbers.drawn(question.numeric, before[-1].draw) if before else None
        for draw in range(seed, seed + _TRIES):
            names = numbers.drawn(question.numeric, draw)
            if names != last:
                break
        return Turn(filled(question, names), draw, names, card)

    def _turn_of(self, answer: Answer) -> Turn:
        """An answer of before, to go on with."""
        question = self._all[answer.key]
        numeric = question.numeric
        names = numbers.drawn(numeric, answer.draw) if numeric else {}
        turn = Turn(
            filled(question, names) if numeric else question,
            answer.draw,
            names,
            self.deck.cards().get(answer.key),
            answer.id,
            answer.text,
            answer.finished,
            resumed=True,
        )
        # The question may have been edited since: what no longer fits is asked for again.
        if answer.points is not None and set(answer.points) <= set(range(len(question.points))):
            turn.points = answer.points
        if numeric and answer.correct is not None:
            with suppress(BadNumber):
                turn.judged = numbers.judge(numeric, names, numbers.first(answer.text))
        return turn

    # What is stored of a turn

    def number(self, turn: Turn, typed: str, now: datetime) -> Judged | None:
        """Judge and store the number that is asked for before the rest of an answer; nothing typed
        is none given. Raises BadNumber, and stores nothing, if it is none."""
        numeric = turn.question.numeric
        assert numeric is not None
        judged = numbers.judge(numeric, turn.names, typed) if typed else None
        turn.answer = self.deck.answer(
            turn.key,
            typed,
            now,
            seconds=None,
            draw=turn.draw,
            correct=None if judged is None else judged.correct,
            quiz=self.id,
        )
        turn.text, turn.judged = typed, judged
        return judged

    def draft(self, turn: Turn, text: str, now: datetime) -> None:
        """Store what an answer says so far, its number included."""
        if turn.answer is None:
            turn.answer = self.deck.begin_answer(turn.key, text, now, draw=turn.draw, quiz=self.id)
        else:
            self.deck.continue_answer(turn.answer, text)
        turn.text = text

    def give(self, turn: Turn, text: str, now: datetime, seconds: float) -> None:
        """Store a complete answer; `seconds` is what it took. An empty one was said aloud, and so
        was the rest of one that is a number alone."""
        if turn.answer is None:
            turn.answer = self.deck.answer(
                turn.key, text, now, seconds=seconds, draw=turn.draw, quiz=self.id
            )
        else:
            with self.deck.transaction():
                self.deck.continue_answer(turn.answer, text)
                self.deck.finish_answer(turn.answer, now, seconds)
        turn.text, turn.finished = text, True

    def follow_up(self, turn: Turn, now: datetime) -> FollowUp | None:
        """The interviewer's next question about it; None after the last. An answer to it that was
        begun today and broken off is gone on with."""
        if turn.shown_followups == len(turn.question.followups):
            return None
        turn.shown_followups += 1
        turn.followup, turn.followup_text = None, ""
        for answer in self.deck.answers(_followup_key(turn))[-1:]:
            if not answer.finished and answer.at >= _day_start(now):
                turn.followup, turn.followup_text = answer.id, answer.text
        return turn.question.followups[turn.shown_followups - 1]

    def draft_follow_up(self, turn: Turn, text: str, now: datetime) -> None:
        """Store what was typed so far to the follow-up shown last."""
        if turn.followup is None:
            turn.followup = self.deck.begin_answer(
                _followup_key(turn), text, now, draw=0, quiz=self.id
            )
        else:
            self.deck.continue_answer(turn.followup, text)
        turn.followup_text = text

    def give_follow_up(self, turn: Turn, text: str, now: datetime, seconds: float) -> None:
        """Store what was typed to the follow-up shown last."""
        if turn.followup is None:
            self.deck.answer(_followup_key(turn), text, now, seconds=seconds, quiz=self.id)
        else:
            with self.deck.transaction():
                self.deck.continue_answer(turn.followup, text)
                self.deck.finish_answer(turn.followup, now, seconds)

    def tick(self, turn: Turn, points: tuple[int, ...]) -> None:
        """Store the rubric points that the answer said."""
        assert turn.answer is not None
        self.deck.tick(turn.answer, points)
        turn.points = points

    def stands(self, turn: Turn) -> bool:
        """Whether nobody else has gone on with it since it was asked: rated its question, or taken
        its answer over."""
        for answer in self.deck.answers(turn.key):
            if answer.id == turn.answer:
                mine = answer.quiz == self.id and answer.rating is None
                break
        else:
            mine = turn.answer is None
        return mine and (self.options.cram or self.deck.card(turn.key) == turn.card)

    def suggested(self, turn: Turn) -> Rating:
        return schedule.suggested(turn.share, turn.judged.correct if turn.judged else None)

    def offers(self, turn: Turn, now: datetime) -> dict[Rating, datetime]:
        """When each rating would bring the question back."""
        memory = turn.card.memory if turn.card else None
        return {rating: schedule.review(memory, rating, now).due for rating in Rating}

    def rate(self, turn: Turn, rating: Rating, now: datetime) -> MemoryCard:
        """Store the rating; returns the card with its new due date."""
        card = repetition.rate(self.deck, turn.key, rating, now, turn.answer)
        self._rated[turn.key] = None
        return card

    def undo(self) -> Turn | None:
        """Take the last rating of this sitting back: the turn, ready to be rated again."""
        answer = repetition.undo(self.deck, self.id)
        return None if answer is None else self._turn_of(answer)

    # The end

    def end(self, now: datetime) -> Summary:
        """Close the sitting and sum it up."""
        self.deck.end_quiz(self.id, now)
        return self.summary(now)

    def summary(self, now: datetime) -> Summary:
        mine = [a for a in self.deck.answers() if a.quiz == self.id and a.key in self._all]
        ticked = [a for a in mine if a.points is not None]
        shares: dict[str, list[float]] = {}
        for answer in ticked:
            question = self._all[answer.key]
            share = len(answer.points or ()) / len(question.points)
            shares.setdefault(question.topic, []).append(share)
        means = {topic: sum(some) / len(some) for topic, some in shares.items()}
        weakest = min(means.items(), key=lambda pair: pair[1]) if len(means) > 1 else None
        cards = self.deck.cards()
        dues = [c.due for k, c in cards.items() if k in self._all and c.due > now]
        rest = self._queue(Options(), cards, now)
        beyond = self._beyond(now) if self._plan else []
        return Summary(
            answered=sum(a.finished for a in mine),
            ratings=Counter(a.rating for a in mine if a.rating is not None),
            points=(
                sum(len(a.points or ()) for a in ticked),
                sum(len(self._all[a.key].points) for a in ticked),
            ),
            numeric=(
                sum(a.correct is True for a in mine),
                sum(a.correct is not None for a in mine),
            ),
            seconds=sum(a.seconds for a in mine),
            weakest=weakest if weakest and weakest[1] < 1 else None,
            unrated=0 if self.options.cram else sum(a.rating is None for a in mine),
            left=sum(k not in cards or cards[k].due <= now for k in rest),
            beyond=len(beyond),
            next_due=min(dues, default=None),
            new_used_up=self._plan is None
            and any(k not in cards for k in self._chosen)
            and self.new_left(now) == 0,
        )


def filled(question: Question, names: Drawn) -> Question:
    """The question with every `[[expression]]` replaced by its value."""

    def text(raw: str) -> str:
        return numbers.filled(raw, names)

    return msgspec.structs.replace(
        question,
        prompt=text(question.prompt),
        answer=text(question.answer),
        points=tuple(map(text, question.points)),
        followups=tuple(FollowUp(text(f.prompt), text(f.answer)) for f in question.followups),
    )


def rating(text: str, default: Rating) -> Rating:
    """The rating meant by "3", "good", "g" or nothing. Raises ValueError."""
    low = text.strip().lower()
    if not low:
        return default
    for one in Rating:
        if low == str(int(one)) or one.name.lower().startswith(low):
            return one
    raise ValueError(f"`{text}` is none of {_listed(Rating)}.")


def _listed(ratings: Iterable[Rating]) -> str:
    return ", ".join(f"{int(one)} {one.name.lower()}" for one in ratings)
