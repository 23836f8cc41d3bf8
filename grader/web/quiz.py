"""The pages of a quiz. There is one sitting at a time, and every tab shows its turn as it is now.

The sitting is that of `kata quiz`; here is what a terminal's conversation holds: the question that
is open, those that wait while an earlier one is rated anew, what is to be said next. Each page says
which state of the turn it shows, and a step asked for by an older one changes nothing.
"""

import copy
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from grader.errors import KataError
from grader.practice import clock, plan, repetition
from grader.recall import bank, numbers
from grader.recall.bank import FollowUp, UnknownQuestion
from grader.recall.numbers import BadNumber
from grader.recall.quiz import Options, Sitting, Turn, rating
from grader.store import Store
from grader.store.memory import Rating
from grader.views import mathml
from grader.views import question as words
from grader.views.plain import when
from grader.web import pages
from grader.web.asked import back, fields, whole

if TYPE_CHECKING:
    from grader.web.app import Web

NUMBER, ANSWER, TICK, RATE, FOLLOW_UP = "number", "answer", "tick", "rate", "followup"
_MOST = 1000  # questions that may be asked for at once
_ANY = (NUMBER, ANSWER, TICK, RATE, FOLLOW_UP)
_STEPS = {  # with the stages of a turn that each goes with
    "number": (NUMBER,),
    "give": (ANSWER,),
    "tick": (TICK, RATE),
    "rate": (RATE,),
    "followup": (TICK, RATE),
    "said": (FOLLOW_UP,),
    **dict.fromkeys(("draft", "keep", "skip", "undo", "end"), _ANY),
}
_OLD = "The quiz had gone on when that came. Here it is as it is now."


class Stale(Exception):
    """A step that an older page asked for, or of a turn that was gone on with elsewhere."""


@dataclass
class _Open:
    """A turn that is not done with. `began` is when it was first shown, `asked` the follow-up
    that waits for an answer, `told` those answered with what was said; `ticks` and `typed` are
    points ticked and a number typed on a page and not given yet; `again`: its rating was taken
    back just now."""

    turn: Turn
    number: int
    began: float = field(default_factory=clock.seconds)
    asked: FollowUp | None = None
    asked_at: float = 0.0
    told: tuple[tuple[FollowUp, str], ...] = ()
    ticks: tuple[int, ...] = ()
    typed: str = ""
    again: bool = False

    @property
    def stage(self) -> str:
        if self.turn.wants_number:
            return NUMBER
        if not self.turn.finished:
            return ANSWER
        if self.asked is not None:
            return FOLLOW_UP
        return TICK if self.turn.points is None else RATE


class Quiz:
    """The sitting of this server. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sitting: Sitting | None = None
        self._open: _Open | None = None
        self._held: tuple[_Open, ...] = ()
        self._asked = 0
        self._day: date | None = None  # on which it began
        self._said: list[str] = []  # what came of it, once it is over
        self._notice = ""
        self._last = ""  # the last step: what came of it is looked at first
        self._kept = ""  # what was typed and is stored nowhere
        self._stored = ""  # what was typed last and is stored
        self._mark, self._steps = secrets.token_hex(4), 0
        self._does: dict[str, Callable[[Sitting, _Open, dict[str, str], datetime], bool]] = {
            "draft": self._draft,
            "keep": self._draft,
            "number": self._number,
            "give": self._give,
            "tick": self._tick,
            "rate": self._rate,
            "followup": self._follow_up,
            "said": self._answer_follow_up,
            "skip": self._skip,
            "undo": self._undo,
            "end": self._end,
        }

    @property
    def state(self) -> str:
        """Names the turn as it is now."""
        return f"{self._mark}-{self._steps}"

    def asks(self, id: str) -> bool:
        """Whether this question is the one that is open."""
        open_ = self._open
        return open_ is not None and open_.turn.question.id == id

    @property
    def _untouched(self) -> bool:
        return self._open is not None and self._open.turn.answer is None and not self._held

    # Steps

    def begin(self, options: Options) -> None:
        """A new sitting, in place of one that is open: what that has unrated is gone on with."""
        with self._lock, Store.open(create=True) as store:
            now = _now()
            if self._sitting is not None and self._open is not None:
                store.memory.end_quiz(self._sitting.id, now)
                self._open = None
            followed = plan.current(store.settings, now)
            sitting = Sitting(store.memory, bank.load(), options, now, followed)
            self._sitting, self._held, self._asked, self._kept = sitting, (), 0, ""
            self._day = plan.study_day(now)
            counts = sitting.counts(now)
            self._notice = self._last = ""
            if sum(counts):
                self._notice = words.begun(counts, options.cram, sitting.beyond_plan)
            self._go_on(sitting, now)
            self._steps += 1

    def do(self, what: str, given: dict[str, str]) -> str:
        """One step of the turn that `given` names; returns the state after it.

        Raises Stale, and BadNumber where a number cannot be read; what was typed is kept if it is
        not stored.
        """
        with self._lock:
            try:
                self._do(what, given)
            except BadNumber:
                raise
            except Exception as error:
                # The page of a draft goes on to show it.
                if what != "draft" and self._keep(_text(given)) and isinstance(error, Stale):
                    self._notice = str(error)
                raise
            self._steps += 1
            return self.state

    def _do(self, what: str, given: dict[str, str]) -> None:
        if given.get("turn") != self.state:
            raise Stale(_OLD)
        if self._open is None:
            if what != "undo":
                raise Stale(_OLD)
            self._reopen()
            return
        sitting, open_ = self._sitting, self._open
        assert sitting is not None
        if open_.stage not in _STEPS[what]:
            raise Stale(_OLD)
        before = replace(open_, turn=copy.copy(open_.turn)), self._held
        now = _now()
        with Store.open(create=True) as store:
            sitting.deck = store.memory
            try:
                with store.transaction():
                    if not sitting.stands(open_.turn):
                        raise Stale(_elsewhere(open_.turn))
                    if what not in ("draft", "keep"):
                        self._notice = ""
                    done = self._does[what](sitting, open_, given, now)
            except BaseException as error:
                self._open, self._held = before
                if isinstance(error, Stale):
                    self._overtaken(sitting, now)
                raise
            self._stored = _text(given)
            if what != "draft":
                self._kept, self._last = "", what
            if done:
                self._go_on(sitting, now)

    def _overtaken(self, sitting: Sitting, now: datetime) -> None:
        """The open turn was gone on with elsewhere: on to what follows."""
        assert self._open is not None
        turn, self._open, self._stored = self._open.turn, None, ""
        if not turn.finished:
            self._keep(_rest(turn))
        self._go_on(sitting, now)
        self._steps += 1
        self._notice = _elsewhere(turn)

    def _keep(self, text: str) -> bool:
        """Keep what was typed, unless it is stored or kept."""
        stored = "" if self._open is None else _rest(self._open.turn)
        if any(text in known for known in (stored, self._stored, self._kept)):
            return False
        self._kept = f"{self._kept}\n\n{text}".strip()
        return True

    def _go_on(self, sitting: Sitting, now: datetime) -> None:
        """To what was held, or the next question, or the end."""
        if self._held:
            *held, self._open = self._held
            self._held = tuple(held)
            return
        turn = sitting.next(now, secrets.randbelow(2**31))
        if turn is None:
            self._end(sitting, None, {}, now)
            return
        self._asked += 1
        self._open = _Open(turn, self._asked)

    def _reopen(self) -> None:
        """After the end: take the last rating back, of this quiz or else of an earlier one."""
        with Store.open(create=True) as store:
            turn = None
            if self._sitting is not None:
                self._sitting.deck = store.memory
                turn = self._sitting.undo()
            if turn is not None:
                self._open = _Open(turn, self._asked, again=True)
                self._notice = _taken_back(turn)
                return
            answer = repetition.undo(store.memory)
        if answer is None or answer.rating is None:
            self._notice = "There is no rating of a quiz to take back."
        else:
            id = answer.key.partition(":")[2]
            self._notice = (
                f"Taken back: {answer.rating.name.lower()} for {id}. "
                "A quiz asks for its rating again, if the answer is of today."
            )

    # What each step does, in one transaction; whether the turn is done with

    def _draft(self, sitting: Sitting, open_: _Open, given: dict[str, str], now: datetime) -> bool:
        """Store what is typed so far."""
        turn, text = open_.turn, _text(given)
        if open_.stage == ANSWER and text != _rest(turn):
            sitting.draft(turn, _whole(turn, text), now)
        elif open_.stage == FOLLOW_UP and text != turn.followup_text:
            sitting.draft_follow_up(turn, text, now)
        elif open_.stage == TICK:
            open_.ticks = _ticks(given, turn)
        elif open_.stage == NUMBER:
            open_.typed = given.get("number", "")
        return False

    def _number(self, sitting: Sitting, open_: _Open, given: dict[str, str], now: datetime) -> bool:
        sitting.number(open_.turn, " ".join(given.get("number", "").split()), now)
        return False

    def _give(self, sitting: Sitting, open_: _Open, given: dict[str, str], now: datetime) -> bool:
        turn = open_.turn
        sitting.give(turn, _whole(turn, _text(given)), now, _since(open_.began))
        return False

    def _tick(self, sitting: Sitting, open_: _Open, given: dict[str, str], now: datetime) -> bool:
        sitting.tick(open_.turn, _ticks(given, open_.turn))
        if sitting.options.cram:
            self._notice = words.scored(open_.turn, None)
        return sitting.options.cram

    def _rate(self, sitting: Sitting, open_: _Open, given: dict[str, str], now: datetime) -> bool:
        turn = open_.turn
        try:
            rated = rating(given.get("rating", ""), sitting.suggested(turn))
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        card = sitting.rate(turn, rated, now)
        (self._notice,) = words.rated(rated, card.due, now, False)
        for held in self._held:
            if held.turn.key == card.key:
                held.turn.card = card
        return True

    def _follow_up(
        self, sitting: Sitting, open_: _Open, given: dict[str, str], now: datetime
    ) -> bool:
        self._draft(sitting, open_, given, now)
        open_.asked, open_.asked_at = sitting.follow_up(open_.turn, now), clock.seconds()
        if open_.asked is None:
            self._notice = "These were all its follow-ups."
        return False

    def _answer_follow_up(
        self, sitting: Sitting, open_: _Open, given: dict[str, str], now: datetime
    ) -> bool:
        text, turn = _text(given), open_.turn
        assert open_.asked is not None
        if text or turn.followup is not None:
            sitting.give_follow_up(turn, text, now, _since(open_.asked_at))
        open_.told, open_.asked = (*open_.told, (open_.asked, text)), None
        return False

    def _skip(self, sitting: Sitting, open_: _Open, given: dict[str, str], now: datetime) -> bool:
        """On to the next; what was given of this one stays without a rating."""
        self._draft(sitting, open_, given, now)
        return True

    def _undo(self, sitting: Sitting, open_: _Open, given: dict[str, str], now: datetime) -> bool:
        """The last rating of this sitting, given anew; then the open turn goes on."""
        self._draft(sitting, open_, given, now)
        turn = sitting.undo()
        if turn is None:
            self._notice = "No rating was given in this quiz yet."
            return False
        self._held = (*self._held, open_)
        self._open = _Open(turn, open_.number, again=True)
        self._notice = _taken_back(turn)
        return False

    def _end(
        self, sitting: Sitting, open_: _Open | None, given: dict[str, str], now: datetime
    ) -> bool:
        if open_ is not None:
            self._draft(sitting, open_, given, now)
        found = sitting.end(now)
        self._open, self._held = None, ()
        self._said = [words.answered(found), *words.results(found), *words.following(found, now)]
        return False

    # Pages

    def turn_page(self, again: bool = False, typed: str = "", wrong: str = "") -> str | None:
        """The turn as it is now; None if none is open. again: the points are to be ticked again;
        typed, wrong: a number that cannot be read, and why."""
        with self._lock:
            if self._open is None or self._sitting is None:
                return None
            with Store.open(create=True) as store:
                now, sitting = _now(), self._sitting
                sitting.deck = store.memory
                if not sitting.stands(self._open.turn):
                    self._overtaken(sitting, now)
                if self._day != plan.study_day(now) and self._untouched:  # another day's queue
                    self._open, self._said, self._notice = None, [], ""
                if self._open is None:
                    return None
                return self._page(sitting, self._open, now, again, typed, wrong)

    def _page(
        self, sitting: Sitting, open_: _Open, now: datetime, again: bool, typed: str, wrong: str
    ) -> str:
        turn, stage = open_.turn, open_.stage
        if again and stage == RATE:
            stage = TICK
        suggested = sitting.suggested(turn) if stage == RATE else None
        offers = sitting.offers(turn, now) if stage == RATE else {}
        numeric = turn.question.numeric
        return pages.render(
            "quiz.html",
            state=self.state,
            stage=stage,
            last=self._last,
            again=again and stage == TICK,
            turn=turn,
            question=turn.question,
            open=open_,
            place=f"{open_.number} of {self._asked + len(sitting.waiting(now))}",
            facts=words.facts(turn.question, "" if turn.card else "new"),
            notice=self._notice,
            kept=self._kept,
            resumed=words.resumed(turn) if turn.resumed and not open_.again else "",
            text=turn.followup_text if stage == FOLLOW_UP else _rest(turn),
            ticks=open_.ticks if turn.points is None else turn.points,
            typed=typed or open_.typed,
            wrong=wrong,
            wanted="" if numeric is None else numbers.wanted(numeric.unit),
            rest=words.the_rest(turn),
            right=words.right_number(turn),
            verdict=words.conclusion(turn.judged, numeric.unit) if numeric and turn.judged else "",
            no_slip=words.NO_SLIP,
            scored=words.scored(turn, suggested) if stage == RATE else "",
            suggested=suggested,
            offers=[(one, _WORDS[one], when(due, now)) for one, due in offers.items()],
            cram=sitting.options.cram,
            more=len(turn.question.followups) - turn.shown_followups,
            markdown=mathml.markdown,
            line=mathml.line,
        )

    def begin_page(self, given: dict[str, str], wrong: str = "") -> str:
        """What a quiz may ask, and what the last one came to. wrong: what is amiss with `limit`.
        Raises HTTPException if there is no such question."""
        asked = given.get("ask", "")
        with self._lock:
            open_, state, notice = self._open, self.state, self._notice
            said, kept = list(filter(None, self._said)), self._kept
        return pages.render(
            "quiz_begin.html",
            state=state,
            open=open_,
            notice="" if open_ else notice,
            kept="" if open_ else kept,
            said=[] if open_ else said,
            question=_question(asked) if asked else None,
            given=given,
            wrong=wrong,
            topics=bank.TOPICS,
            decks=bank.CHOICES,
            most=_MOST,
        )


_WORDS = {one: one.name.lower() for one in Rating}


def _now() -> datetime:
    return clock.now().astimezone()


def _since(began: float) -> float:
    return max(clock.seconds() - began, 0.001)


def _elsewhere(turn: Turn) -> str:
    return f"{turn.question.id} was rated elsewhere meanwhile."


def _taken_back(turn: Turn) -> str:
    return f"Taken back: the rating of {turn.question.id}. Rate it again."


def _text(given: dict[str, str]) -> str:
    """What was typed."""
    return given.get("text", "").rstrip()


def _rest(turn: Turn) -> str:
    """The text of an answer, of a numeric one what follows its number."""
    return turn.text if turn.question.numeric is None else turn.text.partition("\n")[2]


def _whole(turn: Turn, rest: str) -> str:
    """The text of an answer of which this is the rest."""
    if turn.question.numeric is None:
        return rest
    return f"{numbers.first(turn.text)}\n{rest}".rstrip()


def _ticks(given: dict[str, str], turn: Turn) -> tuple[int, ...]:
    return tuple(n for n in range(len(turn.question.points)) if f"point-{n}" in given)


def _question(id: str) -> bank.Question | None:
    try:
        return bank.question(bank.find(id))
    except UnknownQuestion as error:
        raise HTTPException(404, str(error)) from None


def _options(given: dict[str, str]) -> Options:
    """What a form asks for. Raises ValueError, saying what is wrong with its number."""
    if asked := given.get("ask", ""):
        _question(asked)
        return Options(ask=bank.find(asked), cram="cram" in given)
    topic, deck = given.get("topic") or None, given.get("deck") or None
    if topic not in (None, *bank.TOPICS) or deck not in (None, *bank.CHOICES):
        raise HTTPException(400, "There is no such topic, or no such deck.")
    text, limit = given.get("limit", "").strip(), None
    if text:
        limit = whole(text, 5)
        if limit is None or not 1 <= limit <= _MOST:
            raise ValueError(f"Wanted is a whole number from 1 to {_MOST}, or nothing: no end.")
    return Options(topic, limit, "cram" in given, None, deck)


def routes(web: "Web") -> list[Route]:
    quiz = Quiz()

    async def look(request: Request) -> Response:
        given = dict(request.query_params)
        wants = given.keys() & {"ask", "topic", "deck", "limit", "new"}
        if wants == {"ask"} and quiz.asks(given["ask"]):
            wants = set()
        page = None
        if not wants:
            page = await run_in_threadpool(quiz.turn_page, "tick" in given)
        return HTMLResponse(page or await run_in_threadpool(quiz.begin_page, given))

    async def begin(request: Request) -> Response:
        given = await fields(request)
        try:
            options = _options(given)
        except ValueError as error:
            page = await run_in_threadpool(quiz.begin_page, given, str(error))
            return HTMLResponse(page, 422)
        await web.write(quiz.begin, options)
        return back("/quiz")

    async def draft(request: Request) -> Response:
        """By script: an answer that is being typed."""
        try:
            return JSONResponse({"turn": await web.write(quiz.do, "draft", await fields(request))})
        except (Stale, KataError) as error:
            return JSONResponse({"error": str(error)}, 409 if isinstance(error, Stale) else 500)

    async def step(request: Request) -> Response:
        what, given = request.path_params["what"], await fields(request)
        if what not in _STEPS:
            raise HTTPException(404)
        try:
            await web.write(quiz.do, what, given)
        except Stale:
            return back("/quiz")
        except BadNumber as error:
            typed = given.get("number", "")
            page = await run_in_threadpool(quiz.turn_page, False, typed, str(error))
            return HTMLResponse(page or "", 422) if page else back("/quiz")
        return back("/quiz")

    return [
        Route("/quiz", look),
        Route("/quiz", begin, methods=["POST"]),
        Route("/quiz/draft", draft, methods=["POST"]),
        Route("/quiz/{what}", step, methods=["POST"]),
    ]
