"""The editor beside a file, on whatever page: save, Run, and a file that was changed elsewhere."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from grader.errors import UsageFault
from grader.web import desk, pages
from grader.web.asked import Asked, back, sent, whole
from grader.web.live import Grade

if TYPE_CHECKING:
    from grader.web.app import Web

_PAGE_CHARACTERS = 64  # of the name that a page gives itself


@dataclass(frozen=True)
class Edited:
    """A file that is edited on the page at the address `at`.

    save: puts a text into the file that goes out from some bytes, and names the new ones; raises
    desk.Changed. keep: keeps a text that gives way, None is the file's own. run: grades it for
    Run; saved: for Save, where that grades, too. history: where versions are shown, "" if nowhere.
    """

    at: str
    path: Path
    save: Callable[[str, str], str]
    keep: Callable[[str | None], object]
    run: Grade
    saved: Grade | None = None
    history: str = ""


class Editor:
    """The routes below a page that has one. `find` is the file that a request means; it may read
    the store, and raises HTTPException or KataError."""

    def __init__(self, web: "Web", find: Callable[[Request], Edited]) -> None:
        self._web, self._find = web, find

    def routes(self, at: str) -> list[Route]:
        """`at` is the pattern of the page's address."""
        changes = (self.save, self.run, self.stop, self.compare, self.take)
        return [Route(f"{at}/{change.__name__}", change, methods=["POST"]) for change in changes]

    async def save(self, request: Request) -> Response:
        file, asked = await self._asked(request)
        return await self._saved(file, asked, file.saved)

    async def run(self, request: Request) -> Response:
        """Save, and grade the file as it is then; a form waits for the verdict."""
        file, asked = await self._asked(request)
        return await self._saved(file, asked, file.run)

    async def stop(self, request: Request) -> Response:
        _, asked = await self._asked(request)
        self._web.runs.stop(asked.page)
        return Response(status_code=204)

    async def compare(self, request: Request) -> Response:
        """What the file has otherwise than the page's text."""
        file, asked = await self._asked(request)
        await run_in_threadpool(file.keep, None)
        there = await run_in_threadpool(desk.opened, file.path)
        return JSONResponse(_there(asked.text or "", there))

    async def take(self, request: Request) -> Response:
        """The file's text for the page, whose own is kept."""
        file, asked = await self._asked(request)
        if asked.text:
            await run_in_threadpool(file.keep, asked.text)
        if asked.plain:
            return back(file.at)
        there = await run_in_threadpool(desk.opened, file.path)
        answer = {"text": there.text, "base": there.base, "trouble": there.trouble}
        return JSONResponse(answer)

    async def _asked(self, request: Request) -> tuple[Edited, Asked]:
        asked = await sent(request)
        return await run_in_threadpool(self._find, request), asked

    async def _saved(self, file: Edited, asked: Asked, grade: Grade | None) -> Response:
        try:
            base = await self._web.write(_put, file, asked)
        except desk.Changed as changed:
            return await _conflict(file, asked, changed.there)
        if grade is None:
            return back(file.at) if asked.plain else JSONResponse({"base": base})
        number, told = self._web.runs.ask(asked.page, grade)
        if asked.plain:
            name, data = await told
            if name == "trouble":
                raise UsageFault(data["text"])
            return back(f"{file.at}#verdict")
        return JSONResponse({"base": base, "run": number}, 202)


async def saved_first(web: "Web", file: Edited, given: Mapping[str, str]) -> Response | None:
    """Before the rest of what its form asks for: save what stands in the editor. What is to be
    answered where that cannot be."""
    asked = Asked(given.get("text"), given.get("base", ""), plain=True)
    try:
        await web.write(_put, file, asked)
    except desk.Changed as changed:
        return await _conflict(file, asked, changed.there)
    return None


async def _conflict(file: Edited, asked: Asked, there: desk.Opened) -> Response:
    mine = asked.text or ""
    await run_in_threadpool(file.keep, None)
    if asked.plain:
        content = await run_in_threadpool(pages.conflict, file.at, file.history, mine, there)
        return HTMLResponse(content, 409)
    return JSONResponse(_there(mine, there), 409)


def follow(
    web: "Web",
    request: Request,
    path: Path | None,
    clock: Callable[[], dict[str, Any]] | None = None,
) -> Response:
    """The event stream of a page. Raises HTTPException."""
    page = request.query_params.get("page", "")
    seen = whole(request.query_params.get("seen", "0"), 9) or 0
    if not 0 < len(page) <= _PAGE_CHARACTERS:
        raise HTTPException(404)
    told = web.streams.follow(page, path, seen, clock)
    return StreamingResponse(told, media_type="text/event-stream")


def _put(file: Edited, asked: Asked) -> str:
    if asked.text is None:
        return desk.base(file.path)
    return file.save(asked.text, asked.base)


def _there(mine: str, there: desk.Opened) -> dict[str, str]:
    """The file's side of a conflict, for a page with script."""
    difference = pages.render(
        "_diff.html", lines=pages.theirs(mine, there), same="No line differs."
    )
    return {"base": there.base, "trouble": there.trouble, "html": difference}
