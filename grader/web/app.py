"""Routes: what a request means, which step it is, which page answers."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from grader import catalog
from grader.errors import KataError, UsageFault
from grader.practice import grading, hints, rounds, stubs
from grader.practice.workspace import Workspace
from grader.store import Store
from grader.store.attempts import Reason
from grader.web import bundle, desk, pages, plan, quiz
from grader.web.asked import back, fields, kata_of, shown, whole
from grader.web.editor import Edited, Editor, follow, saved_first
from grader.web.guard import Guard
from grader.web.hunt import Hunts
from grader.web.judge import Judge
from grader.web.live import Runs, Streams
from grader.web.mock import Mocks

_T = TypeVar("_T")
_STATIC = Path(__file__).parent / "static"
_KINDS = {".js": "text/javascript", ".svg": "image/svg+xml", ".woff2": "font/woff2"}


class Web:
    """The application. `app` is what the server serves, `streams` end with it."""

    def __init__(self, space: Workspace, port: int, token: str) -> None:
        self.space = space
        self.judge = Judge()
        self.streams = Streams()
        self._writing = asyncio.Lock()
        ours = {path.name: path.read_bytes() for path in _STATIC.iterdir()}
        self.static = {
            name: (content, _KINDS[Path(name).suffix])
            for name, content in (ours | bundle.files()).items()
            if Path(name).suffix in _KINDS
        }
        self.static["kata.css"] = pages.style(), "text/css"
        self.mocks = Mocks(self)
        get, post = (partial(Route, methods=[method]) for method in ("GET", "POST"))
        routes = [
            get("/", self.today),
            get("/katas", self.katas),
            get("/katas/{slug}", self.kata),
            get("/katas/{slug}/events", self.events),
            *Editor(self, self._edited).routes("/katas/{slug}"),
            post("/katas/{slug}/start", self.start),
            post("/katas/{slug}/reset", self.reset),
            post("/katas/{slug}/hint", self.hint),
            Route("/katas/{slug}/solution", self.solution, methods=["GET", "POST"]),
            get("/katas/{slug}/history", self.history),
            get("/katas/{slug}/history/{number:int}", self.version),
            post("/katas/{slug}/history/{number:int}/restore", self.restore),
            *quiz.routes(self),
            *plan.routes(self),
            *Hunts(self).routes(),
            *self.mocks.routes(),
            get("/stats", self.stats),
            get("/static/{name}", self.file),
        ]
        handlers: Any = {KataError: _fault, HTTPException: _refused, Exception: _failed}
        self.inner = Starlette(routes=routes, lifespan=self._lifespan, exception_handlers=handlers)
        self.app = Guard(self.inner, port, token)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self.runs = Runs(self.judge, self.streams)
        self.runs.warm()
        yield
        self.streams.end()
        self.mocks.end()
        await self.runs.close()
        await self.mocks.leave()

    async def write(self, change: Callable[..., _T], *arguments: object) -> _T:
        """Change a file: one after another, since temporary files are named after the process."""
        async with self._writing:
            return await run_in_threadpool(change, *arguments)

    # Reading

    async def today(self, request: Request) -> Response:
        return await shown(pages.today)

    async def katas(self, request: Request) -> Response:
        track = request.query_params.get("track")
        return await shown(pages.katas, track if track in catalog.tracks() else None)

    async def kata(self, request: Request) -> Response:
        return await shown(pages.kata, kata_of(request), self.space, secrets.token_hex(8))

    async def history(self, request: Request) -> Response:
        return await shown(pages.history, kata_of(request))

    async def version(self, request: Request) -> Response:
        slug, number = kata_of(request), request.path_params["number"]
        return await shown(pages.version, slug, number, self.space)

    async def stats(self, request: Request) -> Response:
        return await shown(pages.statistics)

    async def file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self.static:
            raise HTTPException(404)
        content, kind = self.static[name]
        # what is built is large, and its address changes with it
        keep = {"cache-control": "private, max-age=86400"} if name in bundle.files() else None
        return Response(content, media_type=kind, headers=keep)

    # The file

    def _edited(self, request: Request) -> Edited:
        slug = kata_of(request)
        path = self.space.path(slug)

        def keep(text: str | None) -> None:
            if text is not None:  # the file's own is kept when it is written over
                desk.keep(slug, text, path)

        return Edited(
            at=f"/katas/{slug}",
            path=path,
            save=partial(desk.save, self.space, slug),
            keep=keep,
            run=partial(self._grade, slug),
            history=f"/katas/{slug}/history",
        )

    def _grade(self, slug: str, judge: grading.Judge) -> dict[str, Any]:
        path = self.space.existing(slug)
        graded = grading.attempt(slug, path, judge, Reason.WEB, current_in=self.space)
        return {"slug": slug, "passed": graded.verdict.passed, "html": pages.verdict(graded)}

    async def events(self, request: Request) -> Response:
        return follow(self, request, self.space.path(kata_of(request)))

    # Rounds, hints, versions

    async def start(self, request: Request) -> Response:
        return await self._begin(request, Reason.START)

    async def reset(self, request: Request) -> Response:
        return await self._begin(request, Reason.RESET)

    async def _begin(self, request: Request, reason: Reason) -> Response:
        slug, given = kata_of(request), await fields(request)
        refused = await self._saved_first(request, given)
        if refused is not None:
            return refused
        await self.write(rounds.begin, slug, self.space, reason)
        return _kata(slug, "work")

    async def restore(self, request: Request) -> Response:
        slug = kata_of(request)
        await self.write(rounds.restore, slug, request.path_params["number"], self.space)
        return _kata(slug, "work")

    async def hint(self, request: Request) -> Response:
        slug, given = kata_of(request), await fields(request)
        refused = await self._saved_first(request, given)
        if refused is not None:
            return refused
        rung = whole(given.get("rung", ""), 2) or 0  # the page's: who clicks twice asks for one
        await run_in_threadpool(hints.climb, slug, rung)
        return _kata(slug, "hints")

    async def _saved_first(self, request: Request, given: dict[str, str]) -> Response | None:
        """As `saved_first`, but a stub that is shown where there is no file makes none."""
        edited = self._edited(request)
        if not given.get("base") and given.get("text") == stubs.stub(kata_of(request)):
            return None
        return await saved_first(self, edited, given)

    async def solution(self, request: Request) -> Response:
        slug = kata_of(request)
        if request.method == "POST":
            await run_in_threadpool(_saw_solution, slug)
            return back(f"/katas/{slug}/solution")
        return await shown(pages.solution, slug, self.space)


def _kata(slug: str, place: str) -> Response:
    return back(f"/katas/{slug}#{place}")


def _saw_solution(slug: str) -> None:
    with Store.open(create=True) as store:
        rounds.saw_solution(store, slug)


# What went wrong


def _fault(request: Request, error: Exception) -> Response:
    status = 409 if isinstance(error, UsageFault) else 500
    return _said(request, status, "That did not work", str(error))


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        text = error.detail if error.detail != "Not Found" else "There is no such page."
        return _said(request, 404, "Not found", text)
    return _said(request, error.status_code, "That did not work", error.detail)


def _failed(request: Request, error: Exception) -> Response:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return _said(request, 500, "kata itself failed", text)


def _said(request: Request, status: int, title: str, text: str) -> Response:
    if "application/json" in request.headers.get("content-type", ""):
        return JSONResponse({"error": text}, status)
    sent = getattr(request.state, "sent", {})
    at = _page_of(request.url.path) if request.method == "POST" and status != 404 else ""
    return HTMLResponse(pages.trouble(title, text, sent, at), status)


def _page_of(path: str) -> str:
    """The page whose form is sent to this path."""
    parts = path.split("/")
    return "/".join(parts[: 3 if parts[1] in ("katas", "bugs", "mock") else 2])
