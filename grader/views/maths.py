"""Markdown with LaTeX between $ signs, as lines for a terminal."""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from grader.views import formula
from grader.views.plain import paint

_CODE_INDENT = "    "
_BREAK = "\n"
_CLOSE = {"list_item_close", "bullet_list_close", "ordered_list_close", "blockquote_close"}


@dataclass(frozen=True)
class _Run:
    """Text in one style: "" is plain, else as `paint` names it."""

    text: str
    style: str = ""


@dataclass
class _Place:
    """Where a block stands: what begins its first line, and what its other lines."""

    first: str = ""
    rest: str = ""
    number: int | None = None  # of the next item, in an ordered list
    tight: bool = False
    used: bool = field(default=False)  # `first` was written


def markdown(text: str, width: int, colour: bool) -> list[str]:
    """The text as lines no wider than `width` (code and tables alone may be), without a line
    end. Formulas become Unicode; without colour nothing but plain characters is left."""
    page = _Page(width, colour)
    page.blocks(parser().parse(text))
    return page.lines


def line(text: str, colour: bool) -> str:
    """A short Markdown text as one line, however long."""
    return " ".join(part for part in markdown(text, 1_000_000, colour) if part)


def columns(text: str) -> int:
    """How many columns a text takes: accents none, wide characters two."""
    wide = 0
    for character in text:
        if unicodedata.category(character) not in ("Mn", "Me", "Cf"):
            wide += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return wide


@cache
def parser() -> Any:
    """The terminal's own; see `new_parser`."""
    return new_parser()


def new_parser() -> Any:
    """markdown-it for the questions: formulas become tokens `formula`, HTML stays text."""
    from markdown_it import MarkdownIt

    made = MarkdownIt("commonmark", {"html": False}).enable("table").disable("code")
    made.inline.ruler.after("escape", "formula", _formula)
    return made


def _formula(state: Any, silent: bool) -> bool:
    """markdown-it's rule for $…$ and $$…$$. A sum of money is none: `$5 and $6`."""
    source, begin = state.src, state.pos
    if source[begin] != "$":
        return False
    fence = "$$" if source.startswith("$$", begin) else "$"
    start = begin + len(fence)
    end = source.find(fence, start)
    while end > 0 and source[end - 1] == "\\":
        end = source.find(fence, end + 1)
    inner = source[start:end]
    if end < 0 or not inner.strip():
        return False
    if fence == "$" and (
        inner[0].isspace() or inner[-1].isspace() or source[end + 1 : end + 2].isdigit()
    ):
        return False
    if not silent:
        token = state.push("formula", "", 0)
        token.content, token.markup = inner, fence
    state.pos = end + len(fence)
    return True


class _Page:
    def __init__(self, width: int, colour: bool) -> None:
        self.width, self.colour = width, colour
        self.lines: list[str] = []
        self.places: list[_Place] = []

    # Blocks

    def blocks(self, tokens: list[Any]) -> None:
        inside = iter(tokens)
        for token in inside:
            kind = token.type
            if kind == "inline":
                self._paragraph(_runs(token.children))
            elif kind in ("fence", "code_block"):
                self._gap()
                self._code(token.content)
            elif kind == "heading_open":
                self._gap()
                self._paragraph([_Run(r.text, "bold") for r in _runs(next(inside).children)])
            elif kind == "paragraph_open":
                if not token.hidden:
                    self._gap()
            elif kind in ("bullet_list_open", "ordered_list_open"):
                if not (self.places and self.places[-1].tight):
                    self._gap()
                number = int(token.attrs.get("start", 1)) if kind[0] == "o" else None
                self.places.append(_Place(number=number))
            elif kind == "list_item_open":
                self._item(tight=_tight(tokens, token))
            elif kind == "blockquote_open":
                self._gap()
                self.places.append(_Place("> ", "> "))
            elif kind in _CLOSE:
                self.places.pop()
            elif kind == "table_open":
                self._gap()
                self._table(inside)

    def _item(self, tight: bool) -> None:
        above = self.places[-1]
        sign = "- " if above.number is None else f"{above.number}. "
        if above.number is not None:
            above.number += 1
        if above.used and not tight:
            self._gap()
        above.used = True
        self.places.append(_Place(sign, " " * len(sign), tight=tight))

    def _gap(self) -> None:
        """An empty line, except at the start of the page or of an item."""
        if self.lines and not any(p.first and not p.used for p in self.places[-1:]):
            self.lines.append("".join(p.rest for p in self.places).rstrip())

    def _indents(self) -> tuple[str, str]:
        first = "".join(p.rest if p.used else p.first for p in self.places)
        for place in self.places:
            place.used = place.used or bool(place.first)
        return first, "".join(p.rest for p in self.places)

    def _paragraph(self, runs: list[_Run]) -> None:
        first, rest = self._indents()
        for number, part in enumerate(_parts(runs)):
            indent = first if number == 0 else rest
            self.lines += _filled(part, self.width, indent, rest, self.colour)

    def _code(self, text: str) -> None:
        first, rest = self._indents()
        for number, code in enumerate(text.rstrip("\n").split("\n")):
            indent = first if number == 0 else rest
            shown = paint(code, "cyan", self.colour) if code else ""
            self.lines.append((indent + _CODE_INDENT + shown).rstrip())

    def _table(self, tokens: Iterator[Any]) -> None:
        rows: list[list[str]] = []
        for token in tokens:
            if token.type == "table_close":
                break
            if token.type == "tr_open":
                rows.append([])
            elif token.type == "inline":
                rows[-1].append(_plain(_runs(token.children)))
        wide = [max(columns(cell) for cell in column) for column in zip(*rows, strict=False)]
        _, rest = self._indents()
        fits = len(rest) + sum(wide) + 2 * (len(wide) - 1) <= self.width
        for number, row in enumerate(rows):
            style = "bold" if number == 0 else ""
            if fits:
                cells = (cell + " " * (w - columns(cell)) for cell, w in zip(row, wide))
                text = "  ".join(cells).rstrip()
                text = text.replace("\u00a0", " ")
                self.lines.append(rest + (paint(text, style, self.colour) if style else text))
            else:
                run = _Run(" · ".join(cell for cell in row if cell), style)
                self.lines += _filled([run], self.width, rest, rest + "  ", self.colour)


def _tight(tokens: list[Any], item: Any) -> bool:
    """Whether an item's text follows the one before without an empty line."""
    at = next(number for number, token in enumerate(tokens) if token is item)
    return any(t.hidden for t in tokens[at + 1 : at + 2] if t.type == "paragraph_open")


def _runs(children: Iterable[Any]) -> list[_Run]:
    """Inline tokens as runs; a run of "\\n" ends a line."""
    runs: list[_Run] = []
    styles: list[str] = []
    target = ""
    for token in children:
        kind = token.type
        if kind == "text":
            runs.append(_Run(token.content, _style(styles)))
        elif kind == "softbreak":
            runs.append(_Run(" ", _style(styles)))
        elif kind == "hardbreak":
            runs.append(_Run(_BREAK))
        elif kind == "code_inline":
            runs.append(_Run(token.content, "code"))
        elif kind == "formula":
            text = formula.unicode(token.content)
            if token.markup == "$$":
                runs += [_Run(_BREAK), _Run(_CODE_INDENT), _Run(text), _Run(_BREAK)]
            else:
                runs.append(_Run(text, _style(styles)))
        elif kind in ("strong_open", "em_open"):
            styles.append("bold" if kind == "strong_open" else "italic")
        elif kind in ("strong_close", "em_close"):
            styles.pop()
        elif kind == "link_open":
            target = str(token.attrs.get("href", ""))
        elif kind == "link_close":
            runs.append(_Run(f" ({target})" if runs and runs[-1].text != target else ""))
        else:
            runs.append(_Run(token.content))
    return runs


def _style(styles: list[str]) -> str:
    return "bold" if "bold" in styles else "italic" if styles else ""


def _plain(runs: Iterable[_Run]) -> str:
    return "".join(f"`{r.text}`" if r.style == "code" else r.text for r in runs)


def _parts(runs: Iterable[_Run]) -> list[list[_Run]]:
    """The runs of each line that must end."""
    parts: list[list[_Run]] = [[]]
    for run in runs:
        if run.text == _BREAK:
            parts.append([])
        else:
            parts[-1].append(run)
    return [part for part in parts if any(run.text.strip() for run in part)]


def _filled(runs: list[_Run], width: int, first: str, rest: str, colour: bool) -> list[str]:
    """Runs wrapped at their spaces; a word that is wider than a line is cut."""
    if runs and runs[0].text == _CODE_INDENT:
        first, rest, runs = first + _CODE_INDENT, rest + _CODE_INDENT, runs[1:]
    room = max(width - columns(rest), 20)
    lines: list[list[_Run]] = [[]]
    used = 0
    for word in _words(runs):
        for piece in _cut(word, room):
            wide = sum(columns(run.text) for run in piece)
            if used and used + 1 + wide > room:
                lines.append([])
                used = 0
            if used:
                # A space between two words of one style belongs to that style.
                same = lines[-1][-1].style == piece[0].style != "code"
                lines[-1].append(_Run(" ", piece[0].style if same else ""))
                used += 1
            lines[-1] += piece
            used += wide
    indents = [first] + [rest] * (len(lines) - 1)
    return [i + _painted(line, colour) for i, line in zip(indents, lines)]


def _words(runs: list[_Run]) -> Iterator[list[_Run]]:
    """Runs cut at ordinary spaces."""
    word: list[_Run] = []
    for run in runs:
        text = run.text
        if run.style == "code" and len(text) <= 24:
            text = text.replace(" ", "\u00a0")
        if run.style == "code":
            text = f"`{text}`"
        for number, piece in enumerate(text.split(" ")):
            if number and word:
                yield word
                word = []
            if piece:
                word.append(_Run(piece, run.style))
    if word:
        yield word


def _cut(word: list[_Run], room: int) -> Iterator[list[_Run]]:
    """A word in pieces that fit."""
    if sum(columns(run.text) for run in word) <= room:
        yield word
        return
    piece: list[_Run] = []
    used = 0
    for run in word:
        for character in run.text:
            wide = columns(character)
            if used + wide > room:
                yield piece
                piece, used = [], 0
            piece.append(_Run(character, run.style))
            used += wide
    if piece:
        yield piece


def _painted(runs: list[_Run], colour: bool) -> str:
    out, text, style = "", "", ""
    for run in [*runs, _Run("", "end")]:
        if run.style != style:
            ink = "cyan" if style == "code" else style
            text = text.replace("`", "") if colour and style == "code" else text
            out += paint(text, ink, colour) if text and ink else text
            text, style = "", run.style
        text += run.text
    return out.replace("\u00a0", " ")
