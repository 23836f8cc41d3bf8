"""web: the practice in a browser."""

import os
import secrets
import sys
import webbrowser
from pathlib import Path

import click

from grader.cli import common, terminal
from grader.errors import UsageFault

_EXTRA = "The pages need their extra: pip install 'lora-kata[web]'"


@click.command("web")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Listen there (any free).")
@click.option("--no-browser", is_flag=True, help="Say the address alone.")
@common.in_workspace
def web_command(port: int, no_browser: bool, workspace: Path | None) -> None:
    """The practice in a browser, on this machine alone. Ctrl-C ends it.

    The address holds a key that lets in whoever has it.
    """
    try:
        from grader.web import server
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("grader"):
            raise
        raise UsageFault(f"{_EXTRA} ({error.name} is missing).") from None
    space = common.find_workspace(workspace)
    try:
        sock = server.listen(port)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UsageFault(f"Port {port} cannot be listened to: {reason}.") from error
    with sock:
        token = secrets.token_urlsafe(32)
        terminal.say("Open in a browser; Ctrl-C ends it:", server.address(sock, token))
        if sys.stdout is not None:
            sys.stdout.flush()  # for whoever reads the address from a pipe
        opens = not no_browser and sys.stdout is not None and sys.stdout.isatty() and _graphical()
        server.serve(sock, space, token, webbrowser.open if opens else None)


def _graphical() -> bool:
    """Whether a browser would open in a window, and not in this terminal."""
    return sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
