"""The pages of mock interviews: the list, a paper, the round now, the report. As `kata mock`.

A form names the turn that it is of: where another one is on by now, nothing is stored, and the
round is shown as it is, with what was typed.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from grader import catalog
from grader.errors import KataError, UsageFault
from grader.interview import anew, held, rubric
from grader.interview import paper as papers
from grader.interview import sitting as sittings
from grader.interview.choice import Grade as Level
from grader.interview.events import State
from grader.interview.paper import Kind
from grader.interview.sitting import Sitting
from grader.interview.steps import Compare, Mistakes, Question, Reveal, Step, Work
from grader.practice import clock, hunt, stubs
from grader.practice.grading import Judge
from grader.practice.workspace import shown as shown_path
from grader.recall import bank
from grader.recall.numbers import BadNumber
from grader.store.interviews import Interview
from grader.views import html, interview_html, interview_report, mathml
from grader.views import interview as words
from grader.views.plain import clock as duration
from grader.views.plain import counted
from grader.web import desk, pages
from grader.web.asked import back, fields, shown, whole
from grader.web.editor import Edited, Editor, follow, saved_first
from grader.web.live import Grade
from grader.web.seat import Left, Seat

if TYPE_CHECKING:
    from grader.web.app import Web

_TICK_S = 1.0
_MINUTES = range(15, 121)
_SHARES = {"yes": 1.0, "partly": 0.5, "no": 0.0}

Given = Mapping[str, str]
Change = Callable[[Sitting, Any, Given], object]


class _Stale(Exception):
    """The form is of another turn than the one that is on."""


class Mocks:
    """The routes, and the sittings that go on here, by number."""

    def __init__(self, web: "Web") -> None:
        self._web = web
        self._seats: dict[int, Seat] = {}
        self._seating = asyncio.Lock()
        self._ticking: set[asyncio.Task[None]] = set()

    def routes(self) -> list[Route]:
        at, post = "/mock/{number:int}", partial(Route, methods=["POST"])
        forms: dict[str, tuple[type[Step], Change]] = {
            "number": (Question, _number),
            "answer": (Question, _answer),
            "skip": (Question, _skip),
            "diagnose": (Work, _diagnose),
            "hint": (Work, _hint),
            "seen": (Mistakes, _seen),
            "tick": (Compare, _ticked),
            "weigh": (Compare, _weigh),
            "judge": (Reveal, _judge),
        }
        return [
            Route("/mock", self.all),
            post("/mock", self.begin),
            Route(at, self.one),
            Route(f"{at}/report", self.report),
            post(f"{at}/resume", self.resume),
            post(f"{at}/pause", self.pause),
            post(f"{at}/abandon", self.abandon),
            post(f"{at}/next", self.next),
            post(f"{at}/draft", self.draft),
            *(
                post(f"{at}/{name}", partial(self.act, kind=kind, change=change))
                for name, (kind, change) in forms.items()
            ),
            Route(f"{at}/events", self.events),
            Route(f"{at}/{{round:int}}", self.one),
            Route(f"{at}/{{round:int}}/events", self.events),
            Route(f"{at}/{{round:int}}/last", self.last),
            *Editor(self._web, self._edited).routes(f"{at}/{{round:int}}"),
        ]

    def end(self) -> None:
        """The server ends: no more ticks."""
        for task in self._ticking:
            task.cancel()

    async def leave(self) -> None:
        """The server ends, and nothing is judged any more: what goes on here pauses."""
        for seat in self._seats.values():
            await run_in_threadpool(seat.leave, "kata web ended")

    # Looking

    async def all(self, request: Request) -> Response:
        minutes = request.query_params.get("minutes", "")
        return await shown(_all, minutes if minutes in map(str, _MINUTES) else "45")

    async def one(self, request: Request) -> Response:
        return await self._now(request)

    async def report(self, request: Request) -> Response:
        interview = await run_in_threadpool(_numbered, request)
        return await shown(_report, interview)

    async def events(self, request: Request) -> Response:
        seat = self._seat(request)
        if seat is None:
            raise HTTPException(404)
        path = None
        if "round" in request.path_params:
            path = (await run_in_threadpool(self._edited, request)).path
        return follow(self._web, request, path, seat.clock)

    async def last(self, request: Request) -> Response:
        seat = self._seat(request)
        if seat is None:
            raise HTTPException(404)
        return JSONResponse(await run_in_threadpool(seat.last))

    async def _now(
        self, request: Request, status: int = 200, given: Given | None = None, bad: str = ""
    ) -> Response:
        """The page of an interview as it is; with what was `given` in a form that was not taken,
        for this turn, where it was `bad`, or for another."""
        interview = await run_in_threadpool(_numbered, request)
        seat = self._seat(request)
        try:
            content = await run_in_threadpool(_page, interview, seat, given or {}, bad)
        except Left:
            content = await run_in_threadpool(_page, interview, None, given or {}, bad)
        if content is None:
            return back(f"/mock/{interview.number}/report")
        return HTMLResponse(content, status)

    def _seat(self, request: Request) -> Seat | None:
        number: int = request.path_params["number"]
        seat = self._seats.get(number)
        if seat is not None and not seat.open:
            del self._seats[number]
            return None
        return seat

    # Beginning, pausing, ending

    async def begin(self, request: Request) -> Response:
        """A new interview; its clock stands until it is entered."""
        number = await self._web.write(_begin, await fields(request))
        return back(f"/mock/{number}")

    async def resume(self, request: Request) -> Response:
        """Go on here, at first, after a pause, or after a kill."""
        interview = await run_in_threadpool(_numbered, request)
        async with self._seating:
            if interview.ended is None and self._seat(request) is None:
                seat = await run_in_threadpool(Seat, interview)
                try:
                    await run_in_threadpool(seat.start)
                except KataError:
                    await run_in_threadpool(seat.leave, "broken off")
                    raise
                self._seats[interview.number] = seat
                task = asyncio.create_task(self._tick(seat))
                self._ticking.add(task)
                task.add_done_callback(self._ticking.discard)
        return _to(request)

    async def pause(self, request: Request) -> Response:
        """At once, from whatever turn; what stands in the page is kept."""
        given, seat = await fields(request), self._seat(request)
        if seat is not None:
            with contextlib.suppress(Left):  # it has paused already
                try:
                    await self._paused(seat, given)
                except KataError:
                    await run_in_threadpool(seat.leave, "broken off")  # its clock stands
                    raise
        return _to(request)

    async def _paused(self, seat: Seat, given: Given) -> None:
        turn, text = given.get("turn", ""), given.get("text", "")
        await run_in_threadpool(seat.halt, turn, text)
        file = await run_in_threadpool(seat.file, turn)
        if file is not None and await saved_first(self._web, file, given) is not None:
            await run_in_threadpool(file.keep, text)  # the file stays as it was changed
        reason = " ".join(given.get("reason", "").split())
        await self._close(seat, lambda sitting: sitting.pause(reason))

    async def abandon(self, request: Request) -> Response:
        """End it early."""
        given, seat = await fields(request), self._seat(request)
        if seat is None:
            interview = await run_in_threadpool(_numbered, request)
            async with self._seating:  # which the same lock would not keep out
                await run_in_threadpool(sittings.abandon, interview)
            return _to(request)
        refused = await self._saved(seat, given)
        if refused is None:
            await self._close(seat, Sitting.abandon)
        return refused or _to(request)

    async def _close(self, seat: Seat, change: Callable[[Sitting], object]) -> None:
        """Give up what is judged for it, then end it here by this change."""

        def closes(_: Judge) -> dict[str, Any]:
            with seat.working() as sitting:
                change(sitting)
                seat.close()
            return {}

        self._web.runs.stop_all(seat.key)
        await self._in_turn(seat, seat.key, closes)

    async def _in_turn(self, seat: Seat, page: str, change: Grade) -> None:
        """Between gradings, so that none is under way. Raises UsageFault if it fails."""
        _, told = self._web.runs.ask(page, change)
        name, data = await told
        if name != "verdict" and seat.open:
            raise UsageFault(data.get("text", "It was stopped: nothing was changed."))

    async def _tick(self, seat: Seat) -> None:
        """Note that time passes, and grade what is saved in other editors."""
        while seat.open:
            await asyncio.sleep(_TICK_S)
            turn = await run_in_threadpool(seat.tick)
            if turn:
                self._web.runs.ask(seat.key, partial(seat.grade, turn=turn, by="save"))
            if seat.gone:
                with contextlib.suppress(KataError):  # the next tick tries again
                    await self._close(seat, lambda sitting: sitting.pause("no page was open"))

    # A turn

    async def act(self, request: Request, kind: type[Step], change: Change) -> Response:
        """What a form asks for, in its turn."""
        given, seat = await fields(request), self._seat(request)
        if seat is None:
            return await self._now(request, 409, given)

        def acts() -> None:
            with seat.working() as sitting:
                step = sitting.step()
                if seat.turn() != given.get("turn") or not isinstance(step, kind):
                    raise _Stale
                change(sitting, step, given)
                seat.go_on()

        try:
            refused = await self._saved(seat, given)
            if refused is None:
                await run_in_threadpool(acts)
        except (_Stale, Left):
            return await self._now(request, 409, given)
        except BadNumber as bad:
            return await self._now(request, 422, given, str(bad))
        return refused or _to(request)

    async def next(self, request: Request) -> Response:
        """On to the next round, or past the rest of the debrief. What stands in the file counts."""
        given, seat = await fields(request), self._seat(request)
        turn = given.get("turn", "")
        try:
            if seat is None or turn != await run_in_threadpool(seat.turn_now):
                raise _Stale
            refused = await self._saved(seat, given)
        except (_Stale, Left):
            return await self._now(request, 409, given)
        if refused is None:
            page = given.get("page") or seat.key
            await self._in_turn(seat, page, partial(seat.finish, turn=turn))
        return refused or _to(request)

    async def draft(self, request: Request) -> Response:
        """What stands in the page as the answer, from its script."""
        given, seat = await fields(request), self._seat(request)
        if seat is not None:
            await run_in_threadpool(seat.draft, given.get("turn", ""), given.get("text", ""))
        return Response(status_code=204)

    # The file

    async def _saved(self, seat: Seat, given: Given) -> Response | None:
        """Save what stands in the editor of this turn; what is to be answered if it cannot be."""
        file = await run_in_threadpool(seat.file, given.get("turn", ""))
        return None if file is None else await saved_first(self._web, file, given)

    def _edited(self, request: Request) -> Edited:
        """Raises HTTPException if the round is another one by now."""
        seat = self._seat(request)
        file = None if seat is None else seat.file()
        if file is None or not request.url.path.startswith(f"{file.at}/"):
            raise HTTPException(409, "The interview has gone on: this round is over, or it pauses.")
        return file


def _to(request: Request) -> Response:
    return back(f"/mock/{request.path_params['number']}")


def _numbered(request: Request) -> Interview:
    """Raises HTTPException if there is none."""
    try:
        return held.numbered(request.path_params["number"])
    except UsageFault as fault:
        raise HTTPException(404, str(fault)) from None


# What a form does in its turn


def _number(sitting: Sitting, step: Question, given: Given) -> None:
    if not step.number:
        raise _Stale
    sitting.write(given.get("number", "").strip())


def _answer(sitting: Sitting, step: Question, given: Given) -> None:
    if step.number:
        raise _Stale
    sitting.answer(_text(given))


def _skip(sitting: Sitting, step: Question, given: Given) -> None:
    """What was typed so far is the answer all the same."""
    text = _text(given)
    if text and not step.number:
        sitting.answer(text)
    else:
        sitting.skip()


def _text(given: Given) -> str:
    """An answer with plain line ends, without blank lines around it."""
    lines = given.get("text", "").splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def _diagnose(sitting: Sitting, step: Work, given: Given) -> None:
    text = " ".join(given.get("diagnosis", "").split())
    if step.unsaid and text:
        sitting.diagnose(text)


def _hint(sitting: Sitting, step: Work, given: Given) -> None:
    if given.get("rung") != f"{sitting.round.hints + 1}":
        raise _Stale
    sitting.hint()


def _seen(sitting: Sitting, step: Mistakes, given: Given) -> None:
    sitting.seen()


def _ticked(sitting: Sitting, step: Compare, given: Given) -> None:
    if not step.by_points:
        raise _Stale
    points = range(len(step.ask.points))
    sitting.tick(tuple(point for point in points if f"point-{point}" in given))


def _weigh(sitting: Sitting, step: Compare, given: Given) -> None:
    if step.by_points or given.get("share") not in _SHARES:
        raise _Stale
    sitting.weigh(_SHARES[given["share"]])


def _judge(sitting: Sitting, step: Reveal, given: Given) -> None:
    if given.get("right") not in ("yes", "no"):
        raise _Stale
    sitting.judge(given["right"] == "yes")


# A new one


def _begin(given: Given) -> int:
    """The number of a new interview; of the same one where its form comes twice. Raises
    HTTPException."""
    minutes, seed = _number_in(given, "minutes"), _number_in(given, "seed")
    if minutes not in _MINUTES:
        raise HTTPException(400, f"Minutes are {_MINUTES[0]} to {_MINUTES[-1]}.")
    level, deck, focus = (given.get(name) or None for name in ("level", "deck", "focus"))
    if level not in (None, *Level) or focus not in (None, *catalog.tracks()):
        raise HTTPException(400, "There is no such level or track.")
    if deck not in (None, *bank.CHOICES):
        raise HTTPException(400, "There is no such deck.")
    paper = anew.paper(minutes, seed, level=level, focus=focus, deck=deck)
    for interview in held.unfinished():
        theirs = papers.decode(interview.plan)
        if theirs == paper and not _begun(sittings.state_of(interview, theirs)):
            return interview.number
    return sittings.begin(paper, clock.now()).number


def _number_in(given: Given, name: str) -> int:
    number = whole(given.get(name, "").strip(), 15)
    if number is None:
        raise HTTPException(400, f"{name.capitalize()}: a whole number, please.")
    return number


def _begun(state: State) -> bool:
    return any(round.began is not None for round in state.rounds)


# What the templates are filled with


def _all(wanted: str) -> str:
    begun = held.every()
    reports = held.reports(begun)
    ended = {interview.number for interview in begun if interview.ended is not None}
    return pages.render(
        "mock.html",
        reports=reports[::-1],
        ended=ended,
        words=interview_report,
        minutes=_MINUTES,
        wanted=wanted,
        levels=list(Level),
        decks=bank.CHOICES,
        tracks=catalog.tracks(),
        seed=anew.seed(),
    )


def _report(interview: Interview) -> str:
    report = held.report_of(interview)
    return pages.render("interview.html", layout="base.html", **interview_html.values(report))


def _page(interview: Interview, seat: Seat | None, given: Given, bad: str) -> str | None:
    """None where it is over."""
    if seat is not None:
        with seat.working() as sitting:
            return _round(seat, sitting, given, bad)
    paper = papers.decode(interview.plan)
    state = sittings.state_of(interview, paper)
    if interview.ended is not None or state.over:
        return None
    begun = _begun(state)
    return pages.render(
        "mock_paper.html",
        at=f"/mock/{interview.number}",
        number=interview.number,
        paper=paper,
        settings=interview_report.settings(paper),
        about=words.about,
        state=state,
        begun=begun,
        place=(state.current or 0) + 1,
        left=words.remaining(60.0 * paper.minutes - state.clock_s),
        stood=state.breaks[-1] if state.paused and state.breaks else None,
        typed=pages.typed(given),
    )


def _round(seat: Seat, sitting: Sitting, given: Given, bad: str) -> str:
    """The round that is on."""
    step, turn = sitting.step(), seat.turn()
    stale = bool(given) and given.get("turn") != turn
    number, round = seat.interview.number, sitting.round.round
    common: dict[str, Any] = {
        "at": f"/mock/{number}",
        "number": number,
        "page": f"{seat.key}{secrets.token_hex(8)}",
        "turn": turn,
        "rounds": sitting.state.rounds,
        "place": sitting.number,
        "used": [state.used_s(sitting.state.clock_s) for state in sitting.state.rounds],
        "round": round,
        "left": words.remaining(sitting.left_s),
        "whole": words.remaining(sitting.whole_left_s),
        "late": sitting.left_s < 60,
        "said": seat.warning,
        "graded": len(sitting.round.gradings),
        "typed": pages.typed(given) if stale else [],
        "bad": bad,
        "code": html.code,
        "markdown": mathml.markdown,
        "duration": duration,
        "counted": counted,
        "step": step,
    }
    filled: dict[str, Any]
    match step:
        case Question(ask=ask, place=place):
            kept = given.get("number" if step.number else "text", "") if not stale else ""
            return pages.render(
                "mock_question.html",
                **common,
                form="pausing" if step.number else "answer",
                ask=ask,
                nth=place + 1,
                of=len(round.asks),
                title=words.kind(ask),
                kept=kept or step.draft,
            )
        case Work():
            return pages.render("mock_work.html", **common, form="edit", **_at_work(seat, step))
        case Mistakes():
            name, filled = "mistakes", {"counts": words.counts(step.best)}
        case Compare(ask=ask, answer=answer):
            name = "compare"
            filled = {
                "title": words.kind(ask),
                "text": interview_report.said(answer, ask.without_number(answer.text)),
            }
        case Reveal():
            name = "reveal"
            filled = {"bug": step.bug, "change": step.change, "diagnosis": step.diagnosis}
        case _:
            raise UsageFault(f"Mock {number} stands between two rounds: pause it, and go on.")
    return pages.render(
        "mock_debrief.html", **common, form="pausing", asked=f"_{name}.html", **filled
    )


def _at_work(seat: Seat, step: Work) -> dict[str, Any]:
    """What the template of a round of work is filled with."""
    state = seat.sitting.round
    round, card, opened = state.round, catalog.card(step.slug), desk.opened(step.path)
    coding = round.kind is Kind.CODING
    if coding:
        ladder: list[str] = list(catalog.entry(step.slug).hints)
        blank = stubs.stub(step.slug)
    else:
        bug = catalog.entry(step.slug).bug(round.bug or "")
        ladder = [hunt.hint(step.slug, bug, rung + 1) for rung in range(hunt.HINTS)]
        blank = hunt.planted(step.slug, bug)
    return {
        "coding": coding,
        "card": card,
        "par": round.par,
        "file": shown_path(step.path),
        "path": step.path,
        "opened": opened,
        "text": opened.text if opened.base else blank,
        "history": "",
        "hints": ladder[: state.hints],
        "most": len(ladder),
        "cost": f"{100 * (rubric.HINT if coding else rubric.HUNT_HINT):.0f}",
        "diagnosis": state.diagnosis or "",
        "hidden": {"turn": seat.turn()},
        "above": "" if coding else "_diagnosis.html",
        "verdict": seat.verdict() or None,
    }
