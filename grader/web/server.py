"""The server: one socket on 127.0.0.1, until Ctrl-C."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable

import uvicorn

from grader.practice.workspace import Workspace
from grader.web.app import Web
from grader.web.guard import ENTRY

_HOST = "127.0.0.1"
_PATIENCE_S = 2  # for requests that are being answered when it is to end


def listen(port: int) -> socket.socket:
    """A socket on this machine's own address; 0 is any free port. Raises OSError."""
    return socket.create_server((_HOST, port))


def address(sock: socket.socket, token: str) -> str:
    """What is to be opened."""
    return f"http://{_HOST}:{sock.getsockname()[1]}{ENTRY}?token={token}"


def serve(
    sock: socket.socket, space: Workspace, token: str, opener: Callable[[str], object] | None
) -> None:
    """Serve until SIGINT or SIGTERM; `opener` gets an address, in a thread, once it is served."""
    web = Web(space, sock.getsockname()[1], token)
    config = uvicorn.Config(
        web.app,
        access_log=False,
        log_level="error" if os.environ.get("KATA_DEBUG") else "critical",
        server_header=False,
        date_header=False,
        ws="none",
        timeout_graceful_shutdown=_PATIENCE_S,
    )

    def opens() -> None:
        if opener is not None:
            opener(address(sock, web.app.once()))

    server = _Server(config, web, opens)
    with contextlib.suppress(KeyboardInterrupt):  # it was asked to end, and has
        server.run([sock])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, web: Web, opens: Callable[[], object]) -> None:
        super().__init__(config)
        self._web, self._opens = web, opens

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            threading.Thread(target=self._opens, daemon=True).start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._web.streams.end()  # it waits for what is open
        await super().shutdown(sockets)
