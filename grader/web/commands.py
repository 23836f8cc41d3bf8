"""The commands that texts of the engines name, as links to the pages that do the same."""

import re

from markupsafe import Markup

from grader.views import html

_PAGES = (  # the first that fits
    (r"quiz --ask ([\w-]+)", "/quiz?ask={}"),
    (r"quiz( --deck \w+)?", "/quiz"),
    (r"(?:start|show|edit|run|hint) ([a-z]\w*)", "/katas/{}"),
    (r"solution ([a-z]\w*)", "/katas/{}/solution"),
    (r"history ([a-z]\w*)", "/katas/{}/history"),
    (r"(?:list|next|start SLUG)", "/katas"),
    (r"bug ([a-z]\w*)", "/bugs/{}"),
    (r"bug( --random| SLUG)?", "/bugs"),
    (r"mock --minutes (\d+)", "/mock?minutes={}"),
    (r"mock --report (\d+)", "/mock/{}/report"),
    (r"mock( --(?:resume|list|level \w+))?", "/mock"),
    (r"plan", "/plan"),
    (r"today", "/"),
    (r"stats", "/stats"),
)


def page(command: str) -> str | None:
    """The address of the page that does what a command does; None if there is none."""
    for pattern, address in _PAGES:
        if found := re.fullmatch(f"kata {pattern}", command, re.ASCII):
            return address.format(*found.groups())
    return None


def linked(words: str) -> Markup:
    """As `html.code`, with links at the commands."""
    pieces = re.split(r"(`[^`]*`)", words) if words.count("`") % 2 == 0 else [words]
    return Markup("").join(_link(piece) for piece in pieces)


def _link(piece: str) -> Markup:
    at = page(piece.strip("`")) if piece.startswith("`") else None
    shown = html.code(piece)
    return shown if at is None else Markup('<a href="{}">{}</a>').format(at, shown)
