"""LaTeX as MathML, and Markdown with LaTeX as HTML, for pages in a browser."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from functools import cache
from html import escape
from typing import Any
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert
from markupsafe import Markup

from grader.views import maths

_SPACE = "http://www.w3.org/1998/Math/MathML"
_UPRIGHT = {"∂", "∇", *"ΓΔΘΛΞΠΣΥΦΨΩ"}  # TeX sets these upright, MathML Core slants them
_NAMES = {"min", "max", "log", "exp", "det"}
_TIGHT = {"/", "|", "‖"}  # bars of norms and slashes: neither as high as what is beside, nor apart
_SIGNS = {"−", "-"}
_ENDS = {")", "]", "|", "‖", "!"}  # a sign behind one of these subtracts


def mathml(tex: str, *, display: bool = False) -> str:
    """The formula as a `math` element, with the typography that TeX would give it.

    Raises what latex2mathml does where it cannot read the formula.
    """
    ElementTree.register_namespace("", _SPACE)
    tree = ElementTree.fromstring(convert(tex, display="block" if display else "inline"))
    for element in tree.iter():
        _set(element)
    for parent in tree.iter():
        before: Element | None = None
        for element in parent:
            if _is_prefix(element, before):
                element.attrib |= {"form": "prefix", "lspace": "0", "rspace": "0"}
            before = element
    return ElementTree.tostring(tree, encoding="unicode")


def _set(element: Element) -> None:
    kind, text = element.tag.rpartition("}")[2], element.text or ""
    if kind in ("mi", "mo") and text in _UPRIGHT:
        element.tag = f"{{{_SPACE}}}mi"
        element.set("mathvariant", "normal")
    elif kind == "mo" and text in _NAMES:
        element.tag = f"{{{_SPACE}}}mi"
        element.attrib.clear()
    elif kind == "mo" and text in _TIGHT:
        element.attrib |= {"stretchy": "false", "lspace": "0", "rspace": "0"}
    elif kind == "mrow" and len(element) == 1 and element[0].text == ",":  # of 18{,}874
        element[0].attrib |= {"lspace": "0", "rspace": "0"}


def _is_prefix(element: Element, before: Element | None) -> bool:
    """Whether this is the minus of a negative number, which stands close to it."""
    if not element.tag.endswith("}mo") or (element.text or "") not in _SIGNS:
        return False
    return before is None or (before.tag.endswith("}mo") and (before.text or "") not in _ENDS)


def markdown(text: str) -> Markup:
    """The text as HTML; what is HTML in it stays text."""
    return Markup(_parser().render(text))


def inline(text: str) -> Markup:
    """A line of text, as a piece of a paragraph."""
    return Markup(_parser().renderInline(text))


@cache
def _parser() -> Any:
    made = maths.new_parser()
    made.add_render_rule("formula", _formula)
    return made


def _formula(_: Any, tokens: Sequence[Any], at: int, *__: Any) -> str:
    token = tokens[at]
    try:
        return mathml(token.content, display=token.markup == "$$")
    except Exception:  # of its own kinds; what it cannot read is shown as it is written
        return f"<code>{escape(token.content)}</code>"
