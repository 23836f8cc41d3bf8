"""What a request asks, and how it is answered: what the routes of every page need."""

import secrets
from collections.abc import Callable

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from grader import catalog


class Asked(msgspec.Struct):
    """What a page with an editor sends. `text` is what stands in it, None where that is not to be
    saved; `base` the bytes that it goes out from; `page` the page's name."""

    text: str | None = None
    base: str = ""
    page: str = ""
    plain: bool = False  # a form, of a page without script


async def sent(request: Request) -> Asked:
    """From a script or from a form. Raises HTTPException."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        try:
            return msgspec.json.decode(await request.body(), type=Asked)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise HTTPException(400, "This is no request of a page of ours.") from None
    found = await fields(request)
    page = found.get("page") or secrets.token_hex(8)
    return Asked(found.get("text"), found.get("base", ""), page, True)


async def fields(request: Request) -> dict[str, str]:
    """The fields of a form, with plain line ends; of those with one name the last. Files are
    refused."""
    async with request.form(max_files=0) as form:
        found = {
            name: value.replace("\r\n", "\n").replace("\r", "\n")
            for name, value in form.items()
            if isinstance(value, str)
        }
    request.state.sent = found  # for the page that says what went wrong
    return found


def whole(text: str, digits: int) -> int | None:
    """The whole number that a text is, of so many digits at most; None if it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits else None


def kata_of(request: Request) -> str:
    """The kata that the address names. Raises HTTPException."""
    found: str = request.path_params["slug"]
    if found not in catalog.slugs():
        raise HTTPException(404, f"No kata is called '{found}'.")
    return found


async def shown(make: Callable[..., str | None], *arguments: object) -> Response:
    """What `make` returns, which may read the store; None is "not found"."""
    content = await run_in_threadpool(make, *arguments)
    if content is None:
        raise HTTPException(404)
    return HTMLResponse(content)


def back(address: str) -> Response:
    """After a change: the page at this address is to be looked at."""
    return RedirectResponse(address, 303)
