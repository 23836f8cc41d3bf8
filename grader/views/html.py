"""Pages for a browser: each is one file without script that loads nothing, light and dark.

The templates escape all that they are given but Markup, which only `shape` and `svg` make here.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: object) -> str:
    """The template filled with these values."""
    return environment().get_template(template).render(values)


def style() -> str:
    """The style sheet of all pages."""
    return (_TEMPLATES / "style.css").read_text(encoding="utf-8")


@cache
def environment(*folders: Path) -> Environment:
    """What fills templates: those of these folders, and ours."""
    return Environment(
        loader=FileSystemLoader([*folders, _TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def code(words: str) -> Markup:
    """Words in which what stands between backticks is code."""
    pieces = words.split("`")
    if len(pieces) % 2 == 0:
        return escape(words)
    set_ = (
        Markup("<code>{}</code>").format(p) if at % 2 else escape(p) for at, p in enumerate(pieces)
    )
    return Markup("").join(set_)


def svg(width: float, height: float, shapes: Iterable[str], label: str) -> Markup:
    """A chart of these shapes, with what it shows in words."""
    box = f"0 0 {width:g} {height:g}"
    return shape("svg", *shapes, viewBox=box, role="img", aria_label=label)


def shape(element: str, *inside: str, **attributes: float | str) -> Markup:
    """An SVG element. In names of attributes `_` stands for `-`, `class_` for `class`; numbers
    are rounded to tenths."""
    written = (
        Markup(' {}="{}"').format(
            name.rstrip("_").replace("_", "-"),
            value if isinstance(value, str) else f"{round(value, 1):g}",
        )
        for name, value in attributes.items()
    )
    join = Markup("").join
    return Markup("<{0}{1}>{2}</{0}>").format(element, join(written), join(inside))


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> Markup:
    """Words in a chart."""
    return shape("text", words, x=x, y=y, class_=kind, text_anchor=anchor)


def rect(x: float, y: float, wide: float, high: float, kind: str, title: str = "") -> Markup:
    """A rounded rectangle; `title` is shown when it is pointed at."""
    about = (shape("title", title),) if title else ()
    size = {"width": max(0.0, wide), "height": high}
    return shape("rect", *about, x=x, y=y, **size, rx=2, class_=kind)


def circle(x: float, y: float, kind: str, title: str = "") -> Markup:
    """A point of a curve."""
    about = (shape("title", title),) if title else ()
    return shape("circle", *about, cx=x, cy=y, r=4, class_=kind)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return shape("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)
