"""A sitting: the rounds of a paper one after another, as steps that know no terminal.

`step` says what is asked now, the methods are what an answer does. A sitting holds nothing that
counts beside the events: broken off anywhere (Ctrl-C, the end of input, kill -9), it goes on from
them. An event and what follows from it (an answer, an attempt, a rating) are one transaction.
"""

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from grader import catalog
from grader.errors import UsageFault
from grader.exam import submission
from grader.exam.verdict import Trouble, Verdict
from grader.interview import events, timing
from grader.interview import paper as papers
from grader.interview.events import Answered, Event, RoundState, State
from grader.interview.paper import Ask, Kind, Paper, Round
from grader.interview.steps import (
    Begin,
    Compare,
    End,
    Hint,
    Mistakes,
    Question,
    Reveal,
    Step,
    Work,
)
from grader.practice import clock, files, grading, hunt, repetition, schedule, stubs
from grader.practice.grading import Judge, Write
from grader.recall import bank, numbers
from grader.store import Store, StoreError
from grader.store.attempts import Reason, Snapshot
from grader.store.database import file
from grader.store.interviews import Given, Interview
from grader.store.memory import Rating

_BEAT_S = 5.0

S = TypeVar("S", bound=Step)


class _Draft(msgspec.Struct, frozen=True):
    """What stands in a page as the answer to a question."""

    round: int
    ask: int
    text: str

    @property
    def at(self) -> tuple[int, int]:
        return self.round, self.ask


class Sitting:
    """One interview, from where its events stand to its end. `start` lets its clock run."""

    def __init__(self, interview: Interview) -> None:
        self.interview, self.paper = interview, papers.decode(interview.plan)
        self.state, self._heard = _stored(interview, self.paper)  # and when the last event was
        self._keeper = timing.Keeper(self.state.clock_s, clock.seconds)
        self._stored_s = self.state.clock_s
        self._entered: int | None = None
        self._asked: tuple[int, int, float] | None = None  # round, place, since when
        self._seen: set[int] = set()  # coding rounds whose mistakes were shown
        self._draft = _drafted(interview)

    @property
    def number(self) -> int:
        """The round that goes on, or the last."""
        current = self.state.current
        return len(self.state.rounds) - 1 if current is None else current

    @property
    def round(self) -> RoundState:
        return self.state.rounds[self.number]

    @property
    def halted(self) -> bool:
        """Whether the clock stands."""
        return not self._keeper.runs

    @property
    def used_s(self) -> float:
        """Seconds spent in the round."""
        return self.round.used_s(self._keeper.elapsed())

    @property
    def left_s(self) -> float:
        """Seconds left of the round; negative is over-time."""
        return timing.left_s(self.round.round.minutes, self.used_s)

    @property
    def whole_left_s(self) -> float:
        """Seconds left of the interview."""
        return timing.left_s(self.paper.minutes, self._keeper.elapsed())

    # Time

    def start(self) -> None:
        """Let the clock run, at first, after a pause, or after a kill, which counts as one."""
        self._keeper.start()
        if self.state.finished:
            self._note(events.Resumed(), self._close)  # an older kata may not have closed it
        elif self._heard is not None:
            away_s = max(0.0, (clock.now() - self._heard).total_seconds())
            self._note(events.Resumed(away_s=round(away_s, 1)))

    def beat(self) -> int | None:
        """Note that time passes; the warning that is due, if one is."""
        if self.state.over or self.halted:
            return None
        mark = timing.due_warning(self.round.round.minutes, self.used_s, self.round.warned)
        with contextlib.suppress(StoreError):  # what is said next is stored, or tells why not
            if mark is not None:
                self._note(events.Warned(round=self.number, minutes=mark))
            elif self._keeper.elapsed() - self._stored_s >= _BEAT_S:
                self._note(events.Beat())
        if mark is not None:
            self.round.warned.add(mark)
        return mark

    def halt(self) -> None:
        """Stop the clock, as while the learner is asked why."""
        self._keeper.stop()

    def pause(self, reason: str) -> None:
        self._keeper.stop()
        self._note(events.Paused(reason=reason))

    def leave(self, reason: str) -> None:
        """Pause because the sitting breaks off, whatever state it is in."""
        self._keeper.stop()
        with contextlib.suppress(StoreError):
            if not self.state.paused and not self.state.over:
                self._note(events.Paused(reason=reason))

    def abandon(self) -> None:
        """End it here: nothing more is asked, and what was given stays as it is stored."""
        assert not self.state.over
        self._note(events.Abandoned(), *self._solved(), *self._closing(), *self._undrafted())

    # What is asked now

    def step(self) -> Step | None:
        """None after the last round. The time of a question counts from when it is first asked."""
        if self.state.over:
            return None
        if self._entered != self.number:
            return Begin(again=self.round.began is not None)
        if self.round.round.on_code:
            unsaid = self.round.round.kind is Kind.HUNT and self.round.diagnosis is None
            return Work(_slug(self.round.round), self._path(), unsaid)
        if self.round.round.kind is Kind.DEBRIEF:
            return self._compared()
        return self._question()

    def enter(self) -> None:
        """Begin the round, or go on with it; the file to be worked on is laid out."""
        round = self.round.round
        if self.round.began is None:
            # The file of a hunt is all but a line of the solution.
            seen = [_saw(_slug(round))] if round.kind is Kind.HUNT else []
            self._note(events.Began(round=self.number), *seen)
        if round.kind is Kind.CODING:
            files.create(self._path(), stubs.stub(_slug(round)).encode())
        elif round.kind is Kind.HUNT:
            files.create(self._path(), hunt.planted(_slug(round), _bug(round)).encode())
        self._entered = self.number

    def end(self) -> None:
        """Go on to the next round; what was coded is rated if it passed."""
        writes = self._solved()
        if all(other is self.round or other.ended is not None for other in self.state.rounds):
            writes += self._closing()
        self._note(events.Ended(round=self.number), *writes)

    def _solved(self) -> list[Write]:
        """The rating of what was coded in this round, if it passed."""
        round = self.round
        if round.round.kind is not Kind.CODING or round.best is None or not round.best.passed:
            return []
        seconds = next(seconds for seconds, graded in round.gradings if graded.passed)
        rating = schedule.solved(seconds, 60.0 * round.round.par, round.hints, False)
        return [_rate(f"kata:{_slug(round.round)}", rating)]

    def _closing(self) -> list[Write]:
        """The interview is over, and its report holds the reference beside what was coded."""
        written = [
            _slug(state.round)
            for state in self.state.rounds
            if state.round.kind is Kind.CODING and state.last is not None and state.last.started
        ]
        return [self._close, *map(_saw, written)]

    # Questions

    def _question(self) -> Question | End:
        asks = self.round.round.asks
        place = next((n for n in range(len(asks)) if n not in self.round.answers), None)
        if place is None:
            return End()
        if self._asked is None or self._asked[:2] != (self.number, place):
            self._asked = (self.number, place, self._keeper.elapsed())
        typed, ask = self.round.typed.get(place, []), asks[place]
        judged = _judged_before(ask, typed)
        number = not typed and _numeric(ask) is not None
        draft = self._draft.text if self._draft and self._draft.at == (self.number, place) else ""
        return Question(ask, place, typed, number, judged.correct if judged else None, draft)

    def write(self, text: str) -> None:
        """A line of the answer. Raises BadNumber if a number is wanted and this is none."""
        step = self._at(Question)
        if step.number and text:
            _judged(step.ask, text)
        self._note(events.Typed(round=self.number, ask=step.place, text=text))

    def draft(self, text: str) -> None:
        """What stands in a page as the answer, or the rest of it, and may still change."""
        step = self._at(Question)
        if text != step.draft:
            draft = _Draft(round=self.number, ask=step.place, text=text)
            with Store.open(create=True) as store:
                store.settings.set(_draft_key(self.interview), msgspec.json.encode(draft).decode())
            self._draft = draft

    def adopt(self) -> None:
        """A draft is part of the answer: where lines are given one by one, it cannot change."""
        step = self._at(Question)
        self._note(
            events.Typed(round=self.number, ask=step.place, text=step.draft), *self._undrafted()
        )
        self._draft = None

    def _undrafted(self) -> list[Write]:
        if self._draft is None:
            return []
        return [lambda store: store.settings.set(_draft_key(self.interview), "")]

    def answer(self, rest: str = "") -> None:
        """What was typed, and the `rest`, is the answer; nothing is one that was said aloud."""
        step = self._at(Question)
        judged = _judged_before(step.ask, step.typed)
        text = "\n".join([*step.typed, *([rest] if rest else [])])
        self._answered(step, text=text.rstrip(), judged=judged)

    def skip(self) -> None:
        """Go on to the next question; what was typed so far is its answer all the same."""
        step = self._at(Question)
        if any(step.typed):
            self.answer()
        else:
            self._answered(step, skipped=True)

    def _answered(
        self,
        step: Question,
        *,
        text: str = "",
        skipped: bool = False,
        judged: numbers.Judged | None = None,
    ) -> None:
        assert self._asked is not None
        event = Answered(
            round=self.number,
            ask=step.place,
            seconds=round(self._keeper.elapsed() - self._asked[2], 1),
            text=text,
            skipped=skipped,
            correct=judged.correct if judged else None,
            why=judged.why if judged else None,
        )
        given = None
        if not skipped and step.ask.followup is None:
            given = Given(step.ask.key, text, event.seconds, step.ask.draw, event.correct)
        self._note(event, *self._undrafted(), given=given)
        self._draft = None

    # Code

    def diagnose(self, text: str) -> None:
        """What is wrong in the file of a hunt, in the learner's words."""
        self._at(Work)
        self._note(events.Diagnosed(round=self.number, text=text))

    def hint(self) -> Hint | None:
        """The next hint, noted; None after the last."""
        step = self._at(Work)
        coding = self.round.round.kind is Kind.CODING
        ladder = catalog.entry(step.slug).hints
        most = len(ladder) if coding else hunt.HINTS
        rung = self.round.hints + 1
        if rung > most:
            return None
        self._note(events.Hinted(round=self.number, rung=rung))
        if coding:
            return Hint(rung, most, ladder[rung - 1])
        return Hint(rung, most, hunt.hint(step.slug, _bug(self.round.round), rung))

    @property
    def changed(self) -> bool:
        """Whether the file is another than the one graded last."""
        last, path = self.round.last, self._at(Work).path
        if not path.exists():  # as between an editor's two steps of saving
            return last is not None
        return last is None or _digest(submission.read(path)) != last.sha256

    def grade(self, judge: Judge, by: str) -> Verdict | None:
        """Grade what is in the file now; None if it is gone. `by` is what sets it off: enter,
        save or next. Raises Undiagnosed."""
        step, number = self._at(Work), self.number
        if step.unsaid:
            raise hunt.Undiagnosed
        if not step.path.exists():
            return None
        noted: list[tuple[Event, float]] = []

        def then(verdict: Verdict, source: bytes | Trouble, snapshot: Snapshot | None) -> Write:
            kept = None if snapshot is None else snapshot.number
            event = events.graded(verdict, number, by, kept, _digest(source))
            noted.append((event, self._keeper.elapsed()))
            return lambda store: self._put(store, *noted[0])

        graded = grading.grade(
            step.slug,
            step.path,
            judge,
            name=step.path.name,
            now=clock.now(),
            keep=Reason.MOCK if self.round.round.kind is Kind.CODING else None,
            then=then,
        )
        if graded.trouble:
            raise graded.trouble
        self._apply(*noted[0])
        return graded.verdict

    # Debrief

    def _compared(self) -> Mistakes | Compare | Reveal | End:
        """The first thing that is not compared yet."""
        for number, state in enumerate(self.state.rounds[: self.number]):
            round, best = state.round, state.best
            if round.kind is Kind.CODING:
                if best is not None and not best.passed and number not in self._seen:
                    known = {bug.id: bug for bug in catalog.entry(_slug(round)).bugs}
                    bugs = [known[bug] for bug in best.bugs if bug in known]
                    return Mistakes(number, _slug(round), best, bugs)
            elif round.kind is Kind.HUNT:
                if state.right is None and state.began is not None:
                    slug, bug = _slug(round), _bug(round)
                    change = hunt.change(slug, bug)
                    return Reveal(number, slug, bug, change, state.diagnosis or "")
            else:
                for place, ask in enumerate(round.asks):
                    answer = state.answers.get(place)
                    if answer is not None and place not in state.ticks:
                        rubric = ask.followup is None and bool(ask.points)
                        return Compare(number, place, ask, answer, rubric and not answer.skipped)
        return End()

    def seen(self) -> None:
        """The mistakes were shown; once in a sitting will do."""
        self._seen.add(self._at(Mistakes).round)

    def tick(self, points: tuple[int, ...]) -> None:
        """The points that the answer said, by index from 0; they rate the question."""
        step = self._at(Compare)
        share = len(points) / len(step.ask.points)

        def rate(store: Store) -> None:
            id = store.interviews.answer(self.interview.number, step.ask.key)
            if id is not None:
                store.memory.tick(id, points)
            rating = schedule.suggested(share, step.answer.correct)
            repetition.rate(store.memory, step.ask.key, rating, clock.now(), id)

        event = events.Ticked(round=step.round, ask=step.place, share=share, said=points)
        self._note(event, rate)

    def weigh(self, share: float) -> None:
        """How much of a good answer was said, 0 to 1, where no points tell."""
        step = self._at(Compare)
        share = 0.0 if step.answer.skipped else share
        self._note(events.Ticked(round=step.round, ask=step.place, share=share))

    def judge(self, right: bool) -> None:
        """Whether the diagnosis named the bug; that rates the hunt."""
        step = self._at(Reveal)
        state, right = self.state.rounds[step.round], right and bool(step.diagnosis)
        mended = next((seconds for seconds, graded in state.gradings if graded.passed), None)
        rating = hunt.rating(
            seconds=mended or 0.0,
            par_s=60.0 * state.round.par,
            right=right,
            hints=state.hints,
            gave_up=mended is None,
        )
        rate = _rate(f"bug:{step.slug}", rating)
        self._note(events.Judged(round=step.round, right=right), rate)

    # Storing

    def _note(self, event: Event, *writes: Write, given: Given | None = None) -> None:
        """Store an event and what follows from it, all or nothing."""
        clock_s = self._keeper.elapsed()
        with Store.open(create=True) as store, store.transaction():
            self._put(store, event, clock_s, given)
            for write in writes:
                write(store)
        self._apply(event, clock_s)

    def _put(self, store: Store, event: Event, clock_s: float, given: Given | None = None) -> None:
        kind, data = events.encode(event)
        self._heard = clock.now()
        store.interviews.append(self.interview.number, kind, data, clock_s, self._heard, given)

    def _apply(self, event: Event, clock_s: float) -> None:
        self._stored_s = clock_s
        self.state.apply(event, clock_s)

    def _close(self, store: Store) -> None:
        store.interviews.end(self.interview.number, clock.now())

    def _at(self, kind: type[S]) -> S:
        """The step that goes on, which is of this kind."""
        step = self.step()
        assert isinstance(step, kind), step
        return step

    def _path(self) -> Path:
        prefix = "hunt_" if self.round.round.kind is Kind.HUNT else ""
        return self.interview.folder / f"{prefix}{_slug(self.round.round)}.py"


def _saw(slug: str) -> Write:
    return lambda store: store.attempts.saw_solution(slug, clock.now())


def _rate(key: str, rating: Rating) -> Write:
    return lambda store: repetition.rate(store.memory, key, rating, clock.now())


def _slug(round: Round) -> str:
    assert round.slug is not None
    return round.slug


def _bug(round: Round) -> catalog.Bug:
    assert round.bug is not None
    return catalog.entry(_slug(round)).bug(round.bug)


def _numeric(ask: Ask) -> numbers.Numeric | None:
    question = bank.question(ask.id) if ask.asks_number else None
    return question.numeric if question else None


def _judged(ask: Ask, typed: str) -> numbers.Judged | None:
    """A number judged, None where none is wanted. Raises BadNumber."""
    numeric = _numeric(ask)
    if numeric is None:
        return None
    return numbers.judge(numeric, numbers.drawn(numeric, ask.draw), typed)


def _judged_before(ask: Ask, typed: Sequence[str]) -> numbers.Judged | None:
    """The number typed before the rest; None where none was, or the question was edited since."""
    if typed and typed[0]:
        with contextlib.suppress(numbers.BadNumber):
            return _judged(ask, typed[0])
    return None


def _digest(source: bytes | Trouble) -> str:
    data = source if isinstance(source, bytes) else f"{source.kind}: {source.message}".encode()
    return hashlib.sha256(data).hexdigest()


def begin(paper: Paper, now: datetime) -> Interview:
    """Store a new interview and make its folder. Raises UsageFault if that cannot be made."""
    home = file().parent / "interviews"
    with Store.open(create=True) as store:
        interview = store.interviews.begin(papers.encode(paper), home, now)
    try:
        interview.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageFault(f"{interview.folder} cannot be made: {error.strerror}.") from error
    return interview


def state_of(interview: Interview, paper: Paper) -> State:
    """Where an interview stands by its stored events."""
    return _stored(interview, paper)[0]


def _stored(interview: Interview, paper: Paper) -> tuple[State, datetime | None]:
    """Where it stands, and when its last event was stored."""
    with Store.open(create=False) as store:
        rows = store.interviews.events(interview.number)
        last = store.interviews.last(interview.number)
    happened = [(clock_s, events.decode(kind, data)) for clock_s, kind, data in rows]
    return State.of(paper, happened), last


def _drafted(interview: Interview) -> _Draft | None:
    with Store.open(create=False) as store:
        text = store.settings.get(_draft_key(interview))
    return msgspec.json.decode(text, type=_Draft) if text else None


def _draft_key(interview: Interview) -> str:
    return f"mock:{interview.number}"


def abandon(interview: Interview) -> None:
    """End an interview for good. Raises UsageFault if it is over, or held in another window."""
    with alone(interview):
        sitting = Sitting(interview)
        if interview.ended is not None or sitting.state.over:
            number = interview.number
            raise UsageFault(f"Mock {number} is over: `kata mock --report {number}` shows it.")
        sitting.abandon()


@contextlib.contextmanager
def alone(interview: Interview) -> Iterator[None]:
    """Hold the interview against a second sitting. The lock goes with the process, however that
    ends, and is not inherited by those that grade."""
    path = interview.folder / ".sitting"
    try:
        interview.folder.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        raise UsageFault(f"{path} cannot be written: {error.strerror}.") from error
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageFault(f"Mock {interview.number} goes on in another window.") from None
        yield
