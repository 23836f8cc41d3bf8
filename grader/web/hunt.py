"""The bug hunt's pages: plant, say what is wrong, mend, judge. As `kata bug`."""

import secrets
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from grader import catalog
from grader.exam.verdict import Outcome, Verdict
from grader.interview import anew
from grader.practice import clock, hunt
from grader.practice.grading import Judge
from grader.practice.hunt import Hunt
from grader.practice.workspace import shown as shown_path
from grader.store.database import read_time
from grader.views import html, hunting, result
from grader.views.interview_report import date
from grader.views.plain import counted, when
from grader.web import desk, pages
from grader.web.asked import back, fields, kata_of, shown
from grader.web.editor import Edited, Editor, follow, saved_first

if TYPE_CHECKING:
    from grader.web.app import Web


@dataclass(frozen=True)
class _Graded:
    """The last grading of a hunt's file, for whoever comes back to the page."""

    planted_at: str
    base: str
    html: str


@dataclass(frozen=True)
class _Ended:
    """A hunt that is over, and what is said of that."""

    found: Hunt
    gave_up: bool
    closed: str


class Hunts:
    """The routes. What is remembered here is only for looking at: the hunts are in the store."""

    def __init__(self, web: "Web") -> None:
        self._web = web
        self._graded: dict[str, _Graded] = {}
        self._ended: dict[str, _Ended] = {}

    def routes(self) -> list[Route]:
        at, post = "/bugs/{slug}", partial(Route, methods=["POST"])
        return [
            Route("/bugs", self.all),
            post("/bugs", self.plant),
            Route(at, self.one),
            Route(f"{at}/events", self.events),
            *Editor(self._web, self._edited).routes(at),
            post(f"{at}/diagnose", self.diagnose),
            post(f"{at}/hint", self.hint),
            post(f"{at}/give-up", self.give_up),
            post(f"{at}/judge", self.judge),
        ]

    # Looking

    async def all(self, request: Request) -> Response:
        return await shown(_all)

    async def one(self, request: Request) -> Response:
        return await shown(self._one, kata_of(request))

    async def events(self, request: Request) -> Response:
        found = await run_in_threadpool(_open, kata_of(request))
        return follow(self._web, request, found.path)

    def _one(self, slug: str) -> str:
        found = hunt.opened().get(slug)
        if found is None:
            return _ended_page(slug, self._ended.get(slug))
        if found.mended is not None:
            return _ended_page(slug, _Ended(found, gave_up=False, closed=""))
        return _page(found, self._graded.get(slug))

    # Changing

    async def plant(self, request: Request) -> Response:
        """A new hunt; one that is open there already is gone on with."""
        slug = (await fields(request)).get("slug", "")
        if slug and slug not in catalog.slugs():
            raise HTTPException(404, f"No kata is called '{slug}'.")
        return back(f"/bugs/{await self._web.write(_plant, slug)}")

    async def diagnose(self, request: Request) -> Response:
        return await self._changed(request, _diagnose, "#work")

    async def hint(self, request: Request) -> Response:
        return await self._changed(request, _hint, "#hints")

    async def give_up(self, request: Request) -> Response:
        return await self._changed(request, self._give_up)

    async def judge(self, request: Request) -> Response:
        slug, given = kata_of(request), await fields(request)
        if given.get("right") not in ("yes", "no"):
            raise HTTPException(400, "Say yes or no: did your diagnosis name it?")
        await self._web.write(self._judge, slug, given)
        return back(f"/bugs/{slug}")

    async def _changed(self, request: Request, change: Any, place: str = "") -> Response:
        """Save what stands in the editor, then do what its form asks for, if it is of the hunt
        that is open: another one gets nothing, and what was typed is kept."""
        slug, given = kata_of(request), await fields(request)
        found = await run_in_threadpool(hunt.opened)
        if slug not in found or found[slug].planted_at != given.get("hunt"):
            text = "The hunt that this was sent for is over."
            page = await run_in_threadpool(
                pages.trouble, "That did not work", text, given, f"/bugs/{slug}"
            )
            return HTMLResponse(page, 409)
        refused = await saved_first(self._web, self._edited(request), given)
        if refused is not None:
            return refused
        await self._web.write(change, slug, given)
        return back(f"/bugs/{slug}{place}")

    def _give_up(self, slug: str, given: dict[str, str]) -> None:
        self._close(_open(slug), right=False, gave_up=True)

    def _judge(self, slug: str, given: dict[str, str]) -> None:
        found = hunt.opened().get(slug)
        if found is not None and found.mended and found.planted_at == given.get("hunt"):
            self._close(found, right=given["right"] == "yes", gave_up=False)

    def _close(self, found: Hunt, *, right: bool, gave_up: bool) -> None:
        now = clock.now()
        closed = hunt.close(found, right, now, gave_up=gave_up)
        rating, due = closed.rating.name.lower(), when(closed.due, now)
        self._ended[found.slug] = _Ended(
            found, gave_up, hunting.closed(rating, closed.seconds, due)
        )

    # The file

    def _edited(self, request: Request) -> Edited:
        slug = kata_of(request)
        path = _open(slug).path
        return Edited(
            at=f"/bugs/{slug}",
            path=path,
            save=partial(desk.put_beside, path),
            keep=partial(desk.keep_beside, path),
            run=partial(self._grade, slug),
        )

    def _grade(self, slug: str, judge: Judge) -> dict[str, Any]:
        found = _open(slug)
        base = desk.base(found.path)
        _, graded = hunt.grade(found, judge, clock.now())
        if graded.trouble:
            raise graded.trouble
        content = judged(graded.verdict, onward=f"/bugs/{slug}")
        self._graded[slug] = _Graded(found.planted_at, base, content)
        return {"slug": slug, "passed": graded.verdict.passed, "html": content}


def _open(slug: str) -> Hunt:
    """Raises HTTPException if no hunt is open there."""
    found = hunt.opened().get(slug)
    if found is None:
        raise HTTPException(404, f"No hunt is open on {slug}.")
    return found


def _plant(slug: str) -> str:
    seed = anew.seed()
    slug = slug or anew.hunted(seed).slug
    if slug not in hunt.opened():
        hunt.plant(slug, hunt.chosen_bug(slug, seed), clock.now())
    return slug


def _diagnose(slug: str, given: dict[str, str]) -> None:
    found, text = _open(slug), " ".join(given.get("diagnosis", "").split())
    if text and text != found.diagnosis and found.mended is None:
        hunt.diagnose(found, text, clock.now())


def _hint(slug: str, given: dict[str, str]) -> None:
    found = _open(slug)
    if given.get("rung") == f"{found.hints + 1}" and found.mended is None:
        hunt.next_hint(found, clock.now())


# What the templates are filled with


def _all() -> str:
    hunts = hunt.opened()
    cards = {card.slug: card for card in catalog.cards()}
    newest = sorted(hunts.values(), key=lambda found: found.planted_at, reverse=True)
    return pages.render(
        "bugs.html",
        hunts=[(found, cards[found.slug]) for found in newest],
        free=[card for card in cards.values() if card.slug not in hunts],
        minutes=hunt.minutes,
        counted=counted,
        date=lambda found: date(read_time(found.planted_at)),
    )


def _page(found: Hunt, graded: _Graded | None) -> str:
    opened, card = desk.opened(found.path), catalog.card(found.slug)
    here = (found.planted_at, opened.base)
    return pages.render(
        "bug.html",
        at=f"/bugs/{found.slug}",
        page=secrets.token_hex(8),
        card=card,
        minutes=hunt.minutes(card),
        hints=[hunt.hint(found.slug, found.bug, rung + 1) for rung in range(found.hints)],
        most=hunt.HINTS,
        code=html.code,
        file=shown_path(found.path),
        opened=opened,
        text=opened.text if opened.base else hunt.planted(found.slug, found.bug),
        history="",
        diagnosis=found.diagnosis,
        hidden={"hunt": found.planted_at},
        above="_diagnosis.html",
        verdict=graded.html if graded and (graded.planted_at, graded.base) == here else None,
    )


def _ended_page(slug: str, ended: _Ended | None) -> str:
    found = None if ended is None else ended.found
    return pages.render(
        "bug_end.html",
        at=f"/bugs/{slug}",
        card=catalog.card(slug),
        hunt="" if found is None else found.planted_at,
        bug=None if found is None else found.bug,
        change=((), ()) if found is None else hunt.change(slug, found.bug),
        diagnosis="" if found is None else found.diagnosis,
        gave_up=ended is not None and ended.gave_up,
        closed="" if ended is None else ended.closed,
        code=html.code,
    )


def judged(verdict: Verdict, onward: str = "") -> str:
    """How the file of a hunt was judged; `onward` is where the mistake is shown."""
    failing = [check for check in verdict.checks if check.outcome is Outcome.FAILED]
    return pages.render(
        "_hunted.html",
        verdict=verdict,
        conclusion=result.conclusion(verdict),
        parts=pages.parts(verdict),
        failing=result.names(failing) if failing else "",
        onward=onward,
    )
