"""Planning a paper: what fits into the minutes, leaning on what is due or weak.

How the minutes are spent. The debrief takes a tenth (2 to 8 minutes), each warm-up question 2
(one for every 15 minutes, at most 6), the follow-ups on a kata 2 for a question (two questions
from an hour on) and 1 for each time the interviewer digs, a hunt (from 30 minutes on) two fifths
of the kata's par. The rest is for coding: one kata by its par time, rather a long one in a long
paper, and a second from an hour on or where much is left. What is left over then is added to
coding, so that the rounds fill the minutes exactly.

Pure: a seed and a record decide.
"""

from collections.abc import Callable, Iterable, Sequence

from grader.catalog import Card
from grader.interview import choice
from grader.interview.choice import Grade
from grader.interview.paper import Ask, Kind, Paper, Round
from grader.interview.record import Record
from grader.practice import hunt
from grader.recall import numbers
from grader.recall.bank import CORE, Question

_ANSWER, _DIG = 2, 1  # minutes
_DIGS = {Grade.JUNIOR: 1, Grade.SENIOR: 2, Grade.STAFF: 3}
_HUNT_FROM, _DIGS_FROM, _TWO_FROM = 30, 30, 60
_LONG = 4  # a kata of a quarter of the minutes is long enough
_MUCH_LEFT = 15
_SHORTEST_HUNT = 4


def paper(
    record: Record,
    cards: Sequence[Card],
    questions: Sequence[Question],
    *,
    seed: int,
    minutes: int,
    level: Grade = Grade.SENIOR,
    focus: str | None = None,
    deck: str = CORE,
) -> Paper:
    """The paper of `minutes` (15 to 120). Nothing fresh in the record is on it."""
    return _Setter(record, cards, questions, seed, minutes, level, focus, deck).paper()


class _Setter:
    def __init__(
        self,
        record: Record,
        cards: Sequence[Card],
        questions: Sequence[Question],
        seed: int,
        minutes: int,
        level: Grade,
        focus: str | None,
        deck: str,
    ) -> None:
        self.record, self.cards, self.seed = record, cards, seed
        self.minutes, self.level, self.focus, self.deck = minutes, level, focus, deck
        self.tracks = {card.slug: card.track for card in cards}
        asked = [question for question in questions if question.within(deck)]
        self.questions = choice.shuffled(asked, seed, lambda q: f"question:{q.id}", self._wish)
        self.digs = _DIGS[level] if minutes >= _DIGS_FROM else 0
        self.on_each = 2 if minutes >= _TWO_FROM else 1  # questions on each kata

    def _wish(self, question: Question) -> float:
        weight = choice.question_weight(question, self.record, self.level)
        if not self.focus or not question.katas:
            return weight
        near: int = sum(self.tracks.get(slug) == self.focus for slug in question.katas)
        return weight * (1.0 + 9.0 * near / len(question.katas))

    def paper(self) -> Paper:
        debrief = max(2, min(8, round(self.minutes / 10)))
        warm = max(1, min(6, self.minutes // 15))
        room = self.minutes - debrief - _ANSWER * warm
        coded = self._coded(room)
        room -= sum(card.minutes for card in coded)
        asked = [self._on(card) if room >= _ANSWER else () for card in coded]
        room -= sum(self._minutes(asks) for asks in asked)
        hunted = self._hunted(coded, room)
        warmup = self._warmup(warm, [ask.id for asks in asked for ask in asks])
        rounds = [Round(kind=Kind.WARMUP, minutes=_ANSWER * len(warmup), asks=warmup)]
        for card, asks in zip(coded, asked):
            rounds.append(
                Round(kind=Kind.CODING, minutes=card.minutes, par=card.minutes, slug=card.slug)
            )
            rounds.append(Round(kind=Kind.FOLLOWUPS, minutes=self._minutes(asks), asks=asks))
        if hunted is not None:
            bug, par = hunt.chosen_bug(hunted.slug, self.seed).id, hunt.minutes(hunted)
            rounds.append(Round(kind=Kind.HUNT, minutes=par, par=par, slug=hunted.slug, bug=bug))
        rounds.append(Round(kind=Kind.DEBRIEF, minutes=debrief))
        rounds = [r for r in rounds if r.asks or r.slug or r.kind is Kind.DEBRIEF]
        return Paper(
            seed=self.seed,
            minutes=self.minutes,
            level=self.level,
            focus=self.focus,
            deck=self.deck,
            rounds=_filled(rounds, self.minutes),
            notes=tuple(self._notes(coded, hunted)),
        )

    def _coded(self, room: int) -> list[Card]:
        """One kata or two that fit, with a question on each and a hunt after them."""
        hunt_room = _SHORTEST_HUNT if self.minutes >= _HUNT_FROM else 0
        order = choice.shuffled(
            self.cards,
            self.seed,
            lambda card: f"kata:{card.slug}",
            lambda card: (
                choice.kata_weight(card, self.record, self.level, self.focus)
                * min(1.0, _LONG * card.minutes / self.minutes) ** 2
            ),
        )
        after = self.on_each * (_ANSWER + _DIG * self.digs)
        for spare in (hunt_room + after, 0):  # rather a kata alone than none
            first = next((card for card in order if card.minutes + spare <= room), None)
            if first is not None:
                break
        else:
            return []
        left = room - first.minutes - after - hunt_room
        if self.minutes < _TWO_FROM and left < _MUCH_LEFT:
            return [first]
        rest = (card for card in order if card is not first and card.minutes + after <= left)
        return [first, *list(rest)[:1]]

    def _on(self, card: Card) -> tuple[Ask, ...]:
        """Questions that the kata drills, each with the interviewer digging: those on a good part
        of all katas only where no more specific one is left."""
        drilled = [q for q in self.questions if card.slug in q.katas]
        chosen = sorted(drilled, key=lambda q: len(q.katas) > len(self.cards) / 4)[: self.on_each]
        self.questions = [q for q in self.questions if q not in chosen]
        return tuple(
            ask
            for question in chosen
            for ask in (posed(question, self.seed), *digging(question, self.seed)[: self.digs])
        )

    def _minutes(self, asks: Iterable[Ask]) -> int:
        return sum(_ANSWER if ask.followup is None else _DIG for ask in asks)

    def _hunted(self, coded: Sequence[Card], room: int) -> Card | None:
        """A hunt in the time left; instead of coding where nothing else fits."""
        if self.minutes < _HUNT_FROM and coded:
            return None
        taken = {card.slug for card in coded}
        order = choice.shuffled(
            [card for card in self.cards if card.slug not in taken and hunt.minutes(card) <= room],
            self.seed,
            lambda card: f"bug:{card.slug}",
            lambda card: choice.hunt_weight(card, self.record, self.level, self.focus),
        )
        return order[0] if order else None

    def _warmup(self, count: int, used: Sequence[str]) -> tuple[Ask, ...]:
        """Questions of different topics, as far as there are."""
        free = [question for question in self.questions if question.id not in used]
        chosen: list[Question] = []
        for question in free:
            if question.topic not in {c.topic for c in chosen}:
                chosen.append(question)
        chosen += [question for question in free if question not in chosen]
        return tuple(posed(question, self.seed) for question in chosen[:count])

    def _notes(self, coded: Sequence[Card], hunted: Card | None) -> Iterable[str]:
        if not coded:
            yield (
                f"No kata to code: none that fits into {self.minutes} minutes is left that you "
                "have not just solved."
            )
        elif self.focus and coded[0].track != self.focus:
            why = f"fits into {self.minutes} minutes and is not just solved"
            if all(card.track != self.focus for card in self.cards):
                why = "is there yet"
            yield f"No kata of the track {self.focus} {why}; another track's is taken."
        if hunted is None and self.minutes >= _HUNT_FROM:
            yield "No hunt: you have just solved or seen every kata that would fit."


def posed(question: Question, seed: int) -> Ask:
    """The question with its numbers drawn by the paper's seed."""
    fill, draw = _filler(question, seed)
    return Ask(
        id=question.id,
        topic=question.topic,
        prompt=fill(question.prompt),
        answer=fill(question.answer),
        points=tuple(fill(point) for point in question.points),
        draw=draw,
        numeric=question.numeric is not None,
    )


def digging(question: Question, seed: int) -> list[Ask]:
    """The question's follow-ups, about the same numbers."""
    fill, draw = _filler(question, seed)
    return [
        Ask(
            id=question.id,
            topic=question.topic,
            prompt=fill(dig.prompt),
            answer=fill(dig.answer),
            draw=draw,
            followup=number,
        )
        for number, dig in enumerate(question.followups)
    ]


def _filler(question: Question, seed: int) -> tuple[Callable[[str], str], int]:
    if question.numeric is None:
        return str.strip, 0
    names = numbers.drawn(question.numeric, seed)
    return lambda text: numbers.filled(text, names).strip(), seed


def _filled(rounds: Sequence[Round], minutes: int) -> tuple[Round, ...]:
    """The rounds, with the minutes left over given to coding, or else to the first round."""
    extra = minutes - sum(round.minutes for round in rounds)
    takers = [n for n, round in enumerate(rounds) if round.kind is Kind.CODING] or [0]
    filled = list(rounds)
    for place, number in enumerate(takers):
        share = extra // len(takers) + (place < extra % len(takers))
        filled[number] = _longer(rounds[number], share)
    return tuple(filled)


def _longer(round: Round, minutes: int) -> Round:
    return Round(
        kind=round.kind,
        minutes=round.minutes + minutes,
        par=round.par,
        slug=round.slug,
        bug=round.bug,
        asks=round.asks,
    )
