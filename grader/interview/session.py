"""A sitting: the rounds of a paper one after another, everything stored as it happens.

A sitting holds no state of its own beside the events: broken off anywhere (Ctrl-C, the end of
input, kill -9), it goes on from them. What is shown and typed goes through a desk.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from grader import catalog
from grader.errors import UsageFault
from grader.exam import submission
from grader.exam.verdict import Trouble, Verdict
from grader.interview import events, timing
from grader.interview import paper as papers
from grader.interview.events import Event, RoundState, State
from grader.interview.paper import Ask, Kind, Paper, Round
from grader.practice import clock, files, hunt, repetition, schedule, stubs
from grader.recall import bank, numbers
from grader.store import Store, StoreError, database
from grader.store.attempts import Reason
from grader.store.interviews import Given, Interview
from grader.views import interview as pages
from grader.views.plain import wrapped

if TYPE_CHECKING:
    from grader.exam.examiner import Examiner

_BEAT_S = 5.0


class Enough(Exception):
    """The learner leaves; the sitting is paused."""


class _Next(Exception):
    """The learner moves on."""


@dataclass(frozen=True)
class Saved:
    """The file that is worked on has changed."""


class Desk(Protocol):
    """Where the learner sits. While it waits it calls `tick` often and shows the `status`."""

    width: int
    colour: bool

    def attach(
        self, status: Callable[[], pages.Status], tick: Callable[[], int | None]
    ) -> None: ...

    def detach(self) -> None: ...

    def ticking(self) -> AbstractContextManager[None]:
        """`tick` and show the status while something else is at work."""
        ...

    def say(self, *lines: str) -> None: ...

    def line(self, prompt: str) -> str:
        """A typed line. Raises Enough, or UsageFault where no input is left."""
        ...

    def watch(self, path: Path) -> None:
        """From now on the file is looked at: a change is a save."""
        ...

    def line_or_save(self, prompt: str, path: Path) -> str | Saved:
        """A typed line, or the news that the file watched was saved."""
        ...

    def edit(self, path: Path) -> None:
        """The learner's own editor, until it is closed."""
        ...


class Sitting:
    """One interview, from where its events stand to its end."""

    def __init__(self, interview: Interview, paper: Paper, state: State, desk: Desk) -> None:
        self.interview, self.paper, self.state, self.desk = interview, paper, state, desk
        self.keeper = timing.Keeper(state.clock_s, clock.seconds)
        self._stored_s = state.clock_s
        self._open = ExitStack()
        self._judge: Examiner | None = None
        self._grades = False

    def run(self) -> None:
        """Go on to the end. Whatever breaks it off is raised again after a pause is stored."""
        self.desk.attach(self._status, self._tick)
        try:
            self.keeper.start()
            if self.state.paused:
                self._note(events.Resumed())
            while (number := self.state.current) is not None:
                self._round(number)
            with Store.open(create=True) as store:
                store.interviews.end(self.interview.number, clock.now())
        except BaseException as end:
            self.keeper.stop()
            with suppress(StoreError):
                if not self.state.paused:
                    self._note(events.Paused(reason=_broken_off(end)))
            raise
        finally:
            self.desk.detach()
            self._open.close()

    # Time and events

    def _note(self, event: Event, given: Given | None = None) -> None:
        clock_s = self.keeper.elapsed()
        kind, data = events.encode(event)
        with Store.open(create=True) as store:
            store.interviews.append(self.interview.number, kind, data, clock_s, clock.now(), given)
        self._stored_s = clock_s
        self.state.apply(event, clock_s)

    def _tick(self) -> int | None:
        """Note that time passes; the warning that is due, if one is."""
        number = self.state.current
        if number is None or not self.keeper.runs:
            return None
        round = self.state.rounds[number]
        clock_s = self.keeper.elapsed()
        mark = timing.due_warning(round.round.minutes, round.used_s(clock_s), round.warned)
        with suppress(StoreError):  # what is said next is stored, or tells why not
            if mark is not None:
                self._note(events.Warned(round=number, minutes=mark))
            elif clock_s - self._stored_s >= _BEAT_S:
                self._note(events.Beat())
        if mark is not None:
            round.warned.add(mark)
        return mark

    def _status(self) -> pages.Status:
        number = self.state.current
        clock_s = self.keeper.elapsed()
        round = self.state.rounds[number if number is not None else -1]
        return pages.Status(
            title=round.round.title,
            number=1 + (number if number is not None else len(self.state.rounds) - 1),
            of=len(self.state.rounds),
            left_s=timing.left_s(round.round.minutes, round.used_s(clock_s)),
            whole_left_s=timing.left_s(self.paper.minutes, clock_s),
            last=self._standing(round) if round.round.on_code else "",
            paused=not self.keeper.runs,
        )

    def _standing(self, round: RoundState) -> str:
        return "grading …" if self._grades else pages.standing(round.last)

    # What can be typed anywhere

    def _line(self, prompt: str) -> str:
        """A line that is no command. Raises _Next."""
        while True:
            text = self.desk.line(prompt)
            if not text.startswith("/"):
                return text
            self._command(text[1:])

    def _command(self, text: str) -> None:
        word, _, rest = text.strip().partition(" ")
        if word in ("n", "next"):
            raise _Next
        if word in ("p", "pause"):
            self._pause(rest.strip())
        else:
            self.desk.say("/n moves on, /p REASON pauses, Ctrl-C leaves: all is kept.")

    def _pause(self, reason: str) -> None:
        self.keeper.stop()
        reason = reason or self.desk.line("Paused. Why? ")
        self._note(events.Paused(reason=reason))
        self.desk.say(f"Paused: {reason or 'no reason given'}. The clock stands.")
        self.desk.line("Enter goes on, Ctrl-C leaves: ")
        self.keeper.start()
        self._note(events.Resumed())

    # Rounds

    def _round(self, number: int) -> None:
        state = self.state.rounds[number]
        again = state.began is not None
        if not again:
            self._note(events.Began(round=number))
        left = timing.left_s(state.round.minutes, state.used_s(self.keeper.elapsed()))
        of = len(self.state.rounds)
        self.desk.say(
            *pages.heading(
                state.round, number + 1, of, left, again, self.desk.width, self.desk.colour
            )
        )
        play = {
            Kind.WARMUP: self._questions,
            Kind.FOLLOWUPS: self._questions,
            Kind.CODING: self._coding,
            Kind.HUNT: self._hunt,
            Kind.DEBRIEF: self._debrief,
        }
        play[state.round.kind](number, state)
        self._note(events.Ended(round=number))
        used, minutes = state.used_s(self.keeper.elapsed()), state.round.minutes
        self.desk.say(
            *pages.ended(state.round, used, timing.over_s(minutes, used), self.desk.width)
        )

    # Questions

    def _questions(self, number: int, state: RoundState) -> None:
        for place, ask in enumerate(state.round.asks):
            if place in state.answers:
                continue
            self.desk.say(
                *pages.question(
                    ask,
                    place + 1,
                    len(state.round.asks),
                    state.typed.get(place, []),
                    self.desk.width,
                    self.desk.colour,
                )
            )
            began_s = self.keeper.elapsed()
            try:
                answer = self._answer(number, place, ask, state)
            except _Next:
                answer = events.Answered(round=number, ask=place, seconds=0.0, skipped=True)
            answer = replace(answer, seconds=round(self.keeper.elapsed() - began_s, 1))
            self._note(answer, _given(ask, answer))

    def _answer(self, number: int, place: int, ask: Ask, state: RoundState) -> events.Answered:
        """Lines up to an empty one; those of a number begin with the number."""
        question = bank.question(ask.id) if ask.numeric and ask.followup is None else None
        judged = None
        if question is not None and question.numeric is not None:
            judged = self._number(number, place, ask, question.numeric, state)
        while text := self._line("… " if state.typed.get(place) else "> "):
            self._note(events.Typed(round=number, ask=place, text=text))
        return events.Answered(
            round=number,
            ask=place,
            seconds=0.0,
            text="\n".join(state.typed.get(place, [])),
            correct=judged.correct if judged else None,
            why=judged.why if judged else None,
        )

    def _number(
        self, number: int, place: int, ask: Ask, numeric: numbers.Numeric, state: RoundState
    ) -> numbers.Judged:
        """A number, asked for until it can be read; an empty line passes."""
        names = numbers.drawn(numeric, ask.draw)
        if typed := state.typed.get(place):
            return numbers.judge(numeric, names, typed[0])
        while text := self._line("number> "):
            try:
                judged = numbers.judge(numeric, names, text)
            except numbers.BadNumber as bad:
                self.desk.say(*wrapped(str(bad), self.desk.width))
                continue
            self._note(events.Typed(round=number, ask=place, text=text))
            return judged
        raise _Next

    # Code

    def _coding(self, number: int, state: RoundState) -> None:
        slug = _slug(state.round)
        path = self.interview.folder / f"{slug}.py"
        files.create(path, stubs.stub(slug).encode())
        self.desk.say(
            *pages.coding(catalog.card(slug), str(path), self.desk.width, self.desk.colour)
        )
        self._work(number, state, path)
        if state.best is not None and state.best.passed:
            self._rate_kata(slug, state)

    def _hunt(self, number: int, state: RoundState) -> None:
        slug = _slug(state.round)
        path = self.interview.folder / f"hunt_{slug}.py"
        if files.create(path, hunt.planted(slug, _bug(state.round)).encode()):
            with Store.open(create=True) as store:
                store.attempts.saw_solution(slug, clock.now())  # all but a line of it
        self.desk.say(
            *pages.hunting(catalog.card(slug), str(path), self.desk.width, self.desk.colour)
        )
        self._work(number, state, path)

    def _work(self, number: int, state: RoundState, path: Path) -> None:
        """Grade on Enter and on saves, give hints, until the learner moves on."""
        self.desk.watch(path)
        with self.desk.ticking():
            self._examiner()  # torch loads while the page is read
        graded: bytes | Trouble | None = None
        while True:
            typed = self.desk.line_or_save(pages.KEYS, path)
            if isinstance(typed, Saved):
                if _read(path) == graded:
                    continue
                word, by = "", "save"
            else:
                word, by = typed.removeprefix("/").strip(), "enter"
            try:
                if word == "":
                    graded = self._grade(number, state, path, by)
                elif word in ("h", "hint"):
                    self._hint(number, state)
                elif word in ("e", "edit"):
                    self.desk.edit(path)
                elif word in ("n", "next", "p", "pause") or word.startswith(("p ", "pause ")):
                    self._command(word)
                else:
                    self.desk.say(*wrapped(pages.KEYS_LONG, self.desk.width))
            except _Next:
                undiagnosed = state.round.kind is Kind.HUNT and state.diagnosis is None
                if not undiagnosed and _read(path) != graded:  # what stands there at the end counts
                    self._grade(number, state, path, "next")
                return

    def _grade(self, number: int, state: RoundState, path: Path, by: str) -> bytes | Trouble | None:
        """Grade what is in the file now; returns what that was."""
        if state.round.kind is Kind.HUNT and state.diagnosis is None:
            text = ""
            while not text:
                text = self._line("What is wrong, in one line? ")
            self._note(events.Diagnosed(round=number, text=text))
        source = _read(path)
        if source is None:
            self.desk.say(f"{path} is gone: save it again, or move on.")
            return None
        slug = _slug(state.round)
        taken = clock.now()
        verdict = self._judged(slug, source, path)
        kept = None
        if state.round.kind is Kind.CODING:
            with Store.open(create=True) as store:
                snapshot = None
                if isinstance(source, bytes):
                    snapshot = store.attempts.keep(slug, source, Reason.MOCK, taken)
                    kept = snapshot.number
                if verdict.started:
                    store.attempts.record(verdict, snapshot, taken, in_round=False)
        self._note(events.graded(verdict, number, by, kept))
        self._say_graded(state, verdict)
        return source

    def _judged(self, slug: str, source: bytes | Trouble, path: Path) -> Verdict:
        """Grade while the clock line goes on: a file may take its time, or hang."""
        self._grades = True
        try:
            with self.desk.ticking():
                return self._examiner().grade(slug, source, path.name)
        finally:
            self._grades = False

    def _say_graded(self, state: RoundState, verdict: Verdict) -> None:
        used = state.used_s(self.keeper.elapsed())
        self.desk.say(*pages.graded(verdict, used, self.desk.width, self.desk.colour))

    def _examiner(self) -> "Examiner":
        if self._judge is None:
            from grader.exam.examiner import Examiner  # imports torch; forks before any suite

            self._judge = self._open.enter_context(Examiner())
        return self._judge

    def _hint(self, number: int, state: RoundState) -> None:
        slug = _slug(state.round)
        ladder = catalog.entry(slug).hints
        most = len(ladder) if state.round.kind is Kind.CODING else hunt.HINTS
        if state.hints >= most:
            self.desk.say("There are no more hints.")
            return
        rung = state.hints + 1
        self._note(events.Hinted(round=number, rung=rung))
        if state.round.kind is Kind.CODING:
            text = ladder[rung - 1]
        else:
            text = hunt.hint(slug, _bug(state.round), rung)
        self.desk.say(*pages.hint(rung, most, text, self.desk.width))

    # Debrief

    def _debrief(self, number: int, state: RoundState) -> None:
        self.desk.say(*pages.debrief(self.desk.width))
        try:
            for place, round in enumerate(self.state.rounds[:number]):
                if round.round.kind is Kind.CODING:
                    self._named_mistakes(round)
                elif round.round.kind is Kind.HUNT:
                    self._judge_hunt(place, round)
                else:
                    self._tick_answers(place, round)
        except _Next:
            self.desk.say("The rest of the debrief is left; it counts neither way.")

    def _named_mistakes(self, state: RoundState) -> None:
        slug = _slug(state.round)
        best = state.best
        if best is not None and not best.passed:
            known = {bug.id: bug for bug in catalog.entry(slug).bugs}
            bugs = [known[bug] for bug in best.bugs if bug in known]
            self.desk.say(*pages.mistakes(slug, best, bugs, self.desk.width, self.desk.colour))

    def _judge_hunt(self, number: int, state: RoundState) -> None:
        if state.right is not None or state.began is None:
            return
        slug, bug = _slug(state.round), _bug(state.round)
        change = hunt.change(slug, bug)
        diagnosis = state.diagnosis or ""
        self.desk.say(
            *pages.revealed(slug, bug, change, diagnosis, self.desk.width, self.desk.colour)
        )
        right = bool(diagnosis) and self._yes("Did your diagnosis name it? [y/n] ")
        self._note(events.Judged(round=number, right=right))
        mended = next((s for s, g in state.gradings if g.passed), None)
        rating = hunt.rating(
            seconds=mended or 0.0,
            par_s=60.0 * state.round.par,
            right=right,
            hints=state.hints,
            gave_up=mended is None,
        )
        with Store.open(create=True) as store:
            repetition.rate(store.memory, f"bug:{slug}", rating, clock.now())

    def _yes(self, prompt: str) -> bool:
        while (typed := self._line(prompt).lower()) not in ("y", "yes", "n", "no"):
            self.desk.say("y or n, please.")
        return typed.startswith("y")

    def _tick_answers(self, number: int, state: RoundState) -> None:
        for place, ask in enumerate(state.round.asks):
            answer = state.answers.get(place)
            if answer is None or place in state.ticks:
                continue
            self.desk.say(*pages.answer(ask, answer, self.desk.width, self.desk.colour))
            if answer.skipped:
                self._line("Enter goes on: ")
                self._note(events.Ticked(round=number, ask=place, share=0.0))
            elif ask.followup is not None or not ask.points:
                share = self._said()
                self._note(events.Ticked(round=number, ask=place, share=share))
            else:
                points = self._points(len(ask.points))
                share = len(points) / len(ask.points)
                self._note(events.Ticked(round=number, ask=place, share=share, said=points))
                self._rate_answer(ask, answer, points, share)

    def _said(self) -> float:
        shares = {"y": 1.0, "p": 0.5, "n": 0.0}
        while (typed := self._line("Did you say that? [y]es, [p]artly, [n]o: ").lower()) not in (
            shares
        ):
            self.desk.say("y, p or n, please.")
        return shares[typed]

    def _points(self, count: int) -> tuple[int, ...]:
        """The points said, by index from 0."""
        while True:
            text = self._line("Which did you say? Numbers, a for all, Enter for none: ").lower()
            if text in ("a", "all"):
                return tuple(range(count))
            words = text.replace(",", " ").split()
            if all(word.isdigit() and 1 <= int(word) <= count for word in words):
                return tuple(sorted({int(word) - 1 for word in words}))
            self.desk.say(f"Numbers from 1 to {count}, please, as in `1 3`.")

    # The deck

    def _rate_answer(
        self, ask: Ask, answer: events.Answered, points: tuple[int, ...], share: float
    ) -> None:
        rating = schedule.suggested(share, answer.correct)
        with Store.open(create=True) as store, store.transaction():
            id = store.interviews.answer(self.interview.number, ask.key)
            if id is not None:
                store.memory.tick(id, points)
            repetition.rate(store.memory, ask.key, rating, clock.now(), id)

    def _rate_kata(self, slug: str, state: RoundState) -> None:
        seconds = next(seconds for seconds, grading in state.gradings if grading.passed)
        rating = schedule.solved(seconds, 60.0 * state.round.par, state.hints, False)
        with Store.open(create=True) as store:
            repetition.rate(store.memory, f"kata:{slug}", rating, clock.now())


def _broken_off(end: BaseException) -> str:
    if isinstance(end, KeyboardInterrupt):
        return "Ctrl-C"
    return "left" if isinstance(end, Enough) else "broken off"


def _slug(round: Round) -> str:
    assert round.slug is not None
    return round.slug


def _bug(round: Round) -> catalog.Bug:
    assert round.bug is not None
    return catalog.entry(_slug(round)).bug(round.bug)


def _read(path: Path) -> bytes | Trouble | None:
    """The file; None while it is not there, as between an editor's two steps of saving."""
    return submission.read(path) if path.exists() else None


def _given(ask: Ask, answer: events.Answered) -> Given | None:
    if answer.skipped or ask.followup is not None:
        return None
    return Given(ask.key, answer.text, answer.seconds, ask.draw, answer.correct)


def begin(paper: Paper, now: datetime) -> Interview:
    """Store a new interview and make its folder. Raises UsageFault if that cannot be made."""
    home = database.file().parent / "interviews"
    with Store.open(create=True) as store:
        interview = store.interviews.begin(papers.encode(paper), home, now)
    try:
        interview.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageFault(f"{interview.folder} cannot be made: {error.strerror}.") from error
    return interview


def state_of(interview: Interview, paper: Paper) -> State:
    """Where an interview stands by its stored events."""
    with Store.open(create=False) as store:
        stored = store.interviews.events(interview.number)
    return State.of(paper, [(clock_s, events.decode(kind, data)) for clock_s, kind, data in stored])
