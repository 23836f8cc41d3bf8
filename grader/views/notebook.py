"""A page of the terminal for a notebook: the same words, as HTML and as plain text."""

import re
from collections.abc import Sequence

from grader.views import html as pages
from grader.views.plain import CODES

_PAINTED = re.compile(r"\x1b\[([\d;]+)m(.*?)\x1b\[0m", re.DOTALL)
# About as far from white as from black: a notebook does not say which its paper is.
_CSS = {
    "bold": "font-weight:bold",
    "dim": "opacity:.7",
    "italic": "font-style:italic",
    "red": "color:#dd4040",
    "green": "color:#268a3e",
    "yellow": "color:#a07000",
    "cyan": "color:#0f8599",
}
_STYLES = {str(code): _CSS[word] for word, code in CODES.items()}


def plain(lines: Sequence[str]) -> str:
    """The lines without their paint."""
    return _PAINTED.sub(r"\2", "\n".join(lines))


def html(lines: Sequence[str]) -> str:
    """The lines as one element. All text is escaped, whoever wrote it."""
    pieces = []
    at, text = 0, "\n".join(lines)
    for match in _PAINTED.finditer(text):
        style = ";".join(_STYLES[code] for code in match[1].split(";"))
        pieces += [("", text[at : match.start()]), (style, match[2])]
        at = match.end()
    return pages.render("notebook.html", pieces=[*pieces, ("", text[at:])])
