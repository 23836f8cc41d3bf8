"""LaTeX as MathML, and Markdown with LaTeX as HTML, for pages in a browser."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from functools import cache
from html import escape
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from latex2mathml.converter import convert
from markupsafe import Markup

from grader.views import maths

_TOKENS = {"mi", "mn", "mo", "mtext", "mspace"}
_ROWS = {"mrow", "msqrt", "mtd"}
_SLANTED = re.compile("[A-Za-zα-ωϵϑϕϖϱ]")  # TeX sets all other letters and signs upright
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")  # as in 16,777,216; `{,}` for LaTeX
_LETTER = re.compile(r"\\mathrm\{([A-Za-z])\}")  # which latex2mathml slants
_LETTERS = "∂∇∞∅%#$&_"  # which are none, and no operators either
_FIXED = {*"⌊⌋⌈⌉⟨⟩/|‖"}  # no higher than a letter, but with \left and \right
_TIGHT = {*"/|‖"}  # not apart from what is beside
_BARS = {*"|‖"}
_SIGNS = {*"−-+±∓"}
_ENDS = {*")]}!⌋⌉⟩"}  # a sign behind one of these adds or subtracts
_THIN = "0.167em"  # beside the name of a function
_OPENS, _CLOSES = {*"([{⌊⌈⟨"}, {*")]}⌋⌉⟩"}
_BREAKS = {*"=≠≈<>≤≥≪≫∼∈←→⇒+−×·"}  # before these a long formula goes on in the next line
_PIECE = 12  # characters that stay together


def mathml(tex: str, *, display: bool = False) -> str:
    """The formula as a `math` element, with the typography that TeX would give it; a long one in
    a line of text as several, since browsers break lines between them alone.

    Raises what latex2mathml does where it cannot read the formula, ValueError where that, or a
    browser, would set it wrongly.
    """
    source = _LETTER.sub(r"\\text{\1}", _THOUSANDS.sub("{,}", tex))
    tree = ElementTree.fromstring(convert(source, display="block" if display else "inline"))
    for element in tree.iter():
        element.tag = element.tag.rpartition("}")[2]  # in HTML it goes without its namespace
    for element in tree.iter():
        if element.tag in _TOKENS:
            _set(element)
        elif element.tag == "mrow":
            _join(element)
    for parent in tree.iter():
        if parent.tag in _ROWS:
            _join_numbers(parent)
            _set_signs(parent)
            parent[:] = list(_spaced(parent))
    pieces = [list(tree)] if display else list(_pieces(tree[0]))
    return "".join(_math(piece, tree.attrib) for piece in pieces)


def _math(content: list[Element], attributes: dict[str, str]) -> str:
    made = Element("math", attributes)
    row = made if len(content) == 1 and content[0].tag == "mrow" else SubElement(made, "mrow")
    row.extend(content)
    return ElementTree.tostring(made, encoding="unicode")


def _pieces(row: Element) -> Iterator[list[Element]]:
    """Parts of a formula that each keep to a line."""
    piece: list[Element] = []
    length = depth = bars = 0
    for element in row:
        core = _core(element)
        mark = (core.text or "") if core.tag == "mo" else ""
        outside = depth == 0 and bars % 2 == 0 and element.get("form") != "prefix"
        if outside and length >= _PIECE and element.tag == "mo" and mark in _BREAKS:
            yield piece
            piece, length = [], 0
            element.set("form", "infix")  # at the beginning it would be taken for a prefix
        depth += (mark in _OPENS) - (mark in _CLOSES)
        bars += mark in _BARS
        piece.append(element)
        length += len("".join(element.itertext()))
    yield piece


def _turn(element: Element, kind: str, text: str, **attributes: str) -> None:
    element[:] = []
    element.tag, element.text, element.attrib = kind, text, attributes


def _set(element: Element) -> None:
    """A token as what it is: latex2mathml takes some signs for letters, and words for signs."""
    kind, text = element.tag, element.text or ""
    if text.startswith("\\") or element.get("mathvariant", "normal") not in ("normal", "italic"):
        raise ValueError(f"{text} cannot be set.")
    if kind == "mtext":
        element.text = text.replace(" ", "\u00a0")  # browsers drop it at the ends
    elif kind in ("mi", "mo") and (text in _LETTERS or (text.isalpha() and text != "mod")):
        slanted = _SLANTED.fullmatch(text) and element.get("mathvariant") != "normal"
        _turn(element, "mi", text, **({} if slanted else {"mathvariant": "normal"}))
    elif kind == "mi":
        _turn(element, "mo", "∼" if text == "~" else text)
    if element.tag == "mo" and element.text in _FIXED and not element.attrib:
        element.set("stretchy", "false")
    if element.tag == "mo" and element.text in _TIGHT:
        element.attrib |= {"lspace": "0", "rspace": "0"}


def _join(row: Element) -> None:
    """The upright letters of \\mathrm are one word."""
    upright = all(e.tag == "mi" and e.get("mathvariant") == "normal" for e in row)
    text = "".join(e.text or "" for e in row)
    if upright and len(row) > 1 and text.isascii() and text.isalpha():
        _turn(row, "mi", text, mathvariant="normal")


def _join_numbers(row: Element) -> None:
    """18{,}874 is one number."""
    at = 1
    while at < len(row) - 1:
        before, comma, after = row[at - 1 : at + 2]
        joins = comma.tag == "mrow" and [e.text for e in comma] == [","]
        if joins and before.tag == after.tag == "mn":
            before.text = f"{before.text},{after.text}"
            row[at : at + 2] = []
        else:
            at += 1


def _set_signs(row: Element) -> None:
    """The minus of a negative number stands close to it."""
    before: Element | None = None
    bars = 0
    for element in row:
        text = element.text or ""
        if element.tag == "mo" and text in _SIGNS and _awaits(before, bars):
            element.attrib |= {"form": "prefix", "lspace": "0", "rspace": "0"}
        core = _core(element)
        bars += core.tag == "mo" and core.text in _BARS
        before = element


def _awaits(before: Element | None, bars: int) -> bool:
    """Whether a term begins behind this; `bars` of norms were passed, every second one closes."""
    if before is None:
        return True
    if before.tag != "mo" or before.text in _ENDS:
        return False
    return before.text not in _BARS or bars % 2 == 1


def _core(element: Element) -> Element:
    """What an index or exponent is at."""
    while element.tag in ("msub", "msup", "msubsup", "munder", "mover", "munderover"):
        element = element[0]
    return element


def _spaced(row: Element) -> Iterator[Element]:
    """The parts of a row, names of functions apart from what is no sign or bracket."""
    before: Element | None = None
    for element in row:
        if before is not None and (_is_name(element) or _is_name(before)):
            stands_apart = before.tag == "mspace" or element.tag in ("mo", "mspace")
            if not stands_apart and (before.tag != "mo" or before.text in _ENDS):
                yield Element("mspace", width=_THIN)
        yield element
        before = element


def _is_name(element: Element) -> bool:
    core = _core(element)
    return core.tag == "mi" and len(core.text or "") > 1


def markdown(text: str) -> Markup:
    """The text as HTML; what is HTML in it stays text."""
    return Markup(_parser().render(text))


def line(text: str) -> Markup:
    """A text of one paragraph, without an element around it."""
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
