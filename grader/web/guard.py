"""Who may speak to the server: the browser that was handed the token, and our own pages alone.

Another site can make a browser send requests here, by address or by a name that it has pointed at
127.0.0.1. So the cookie is Strict, `Host` must be ours to the letter, whatever changes something
must say our origin, and no page of ours runs or loads what does not come from here.
"""

import hmac
import secrets
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ENTRY = "/enter"
LIMIT_BYTES = 8 << 20  # of a body: a file of 1 MiB, with every character escaped
LONGEST_PATH = 1000  # no page of ours comes near; Python reads no number of 4300 digits
_POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self';"
    " frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # no-referrer would make a form's Origin "null"
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_ENTERED = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>kata</title>'
    '<link rel="icon" href="/static/kata.svg" type="image/svg+xml">'
    '<meta http-equiv="refresh" content="0;url=/"><p><a href="/">Go on to your practice.</a></p>'
)


class Guard:
    """Lets through to `app` what may pass. `port` is the one listened to on 127.0.0.1."""

    def __init__(self, app: ASGIApp, port: int, token: str) -> None:
        self._app, self._token = app, token
        self._host = f"127.0.0.1:{port}"
        self._cookie = f"kata-{port}"  # cookies know no ports, and two servers may run
        self._session = secrets.token_urlsafe(32)
        self._once: set[str] = set()

    def once(self) -> str:
        """A token that lets in one time: other users see the command line of the browser that it
        is handed to."""
        token = secrets.token_urlsafe(32)
        self._once.add(token)
        return token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a websocket
            await send({"type": "websocket.close", "code": 1008})
            return

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refusal(scope)
        if answer is None and scope["path"] == ENTRY:
            answer = self._entry(scope)
        if answer is not None:
            await answer(scope, receive, headed)
        else:
            await self._app(scope, _bounded(receive), headed)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        if headers.getlist("host") != [self._host]:
            return _refuse("This is not the address that `kata web` printed.")
        reads = scope["method"] in ("GET", "HEAD")
        if not reads and headers.getlist("origin") != [f"http://{self._host}"]:
            return _refuse("This comes from another site.")
        if scope["path"] != ENTRY:
            if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
                return _refuse("This comes from another site.")
            if not any(_same(given, self._session) for given in self._given(headers)):
                return _refuse("Open the address that `kata web` printed.")
        if len(scope["path"]) > LONGEST_PATH:
            return _refuse("There is no such page.", 404)
        try:
            size = int(headers.get("content-length", "0"))
        except ValueError:
            return _refuse("This is no request.", 400)
        return _refuse("This is too large.", 413) if size > LIMIT_BYTES else None

    def _given(self, headers: Headers) -> list[str]:
        """What bears our cookie's name, among cookies of whatever else is served on 127.0.0.1: a
        browser sends them to all ports, and not all are well-formed."""
        pairs = [pair.strip().partition("=") for pair in headers.get("cookie", "").split(";")]
        return [value for name, _, value in pairs if name == self._cookie]

    def _entry(self, scope: Scope) -> ASGIApp:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])
        known = _same(given[0], self._token) or given[0] in self._once
        self._once.discard(given[0])
        if scope["method"] != "GET" or not known:
            return _refuse("Open the address that `kata web` printed.")
        # A page and no redirect: a browser leaves a Strict cookie out of a redirect that began
        # elsewhere, in a file or a mail.
        response = HTMLResponse(_ENTERED)
        response.set_cookie(self._cookie, self._session, httponly=True, samesite="strict")
        return response


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), right.encode())


def _refuse(text: str, status: int = 403) -> ASGIApp:
    return PlainTextResponse(f"{text}\n", status)


def _bounded(receive: Receive) -> Receive:
    """The body as it comes, whatever length it claims; no more of it than LIMIT_BYTES."""
    came = 0

    async def take() -> Message:
        nonlocal came
        message = await receive()
        came += len(message.get("body", b""))
        if came > LIMIT_BYTES:
            raise HTTPException(413, "This is too large.")
        return message

    return take
