"""What `hatch_build.py` has built from npm: the editor and the font of formulas. Where it could
not, pages have a plain editor, and formulas a font of the machine."""

import hashlib
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "assets"
_EDITOR, _FONT = "editor.js", "stix-two-math.woff2"


@cache
def files() -> dict[str, bytes]:
    """By name; empty where nothing was built."""
    try:
        return {name: (_FOLDER / name).read_bytes() for name in (_EDITOR, _FONT)}
    except OSError:
        return {}


def editor() -> str | None:
    """The address of the script that puts the editor over a textarea."""
    return _address(_EDITOR)


def style() -> str:
    """The rules that bring the font of formulas, whose letters are small, and need no slanting;
    "" without it."""
    address = _address(_FONT)
    if address is None:
        return ""
    return (
        '@font-face { font-family: "STIX Two Math"; font-display: swap;'
        f' src: url("{address}") format("woff2"); }}\n'
        "math { font-size: 1.1em; }\n"
        "mi { text-transform: math-auto; font-style: normal; }\n"
        "mi[mathvariant=normal] { text-transform: none; }\n"
    )


def _address(name: str) -> str | None:
    """Another for other content: a browser keeps what it has."""
    content = files().get(name)
    if content is None:
        return None
    return f"/static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"
