"""The question bank as a text file for Anki: File, Import.

The first column is the note's GUID, our own id: importing a newer export changes the notes that
are there and leaves their scheduling alone.
Source: Anki manual, "Text Files", section "File Headers".
"""

import html
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from grader.recall.bank import CORE, FRONTIER, Question
from grader.views import maths

_HEADERS = (
    "#separator:tab",
    "#html:true",
    "#notetype:Basic",
    "#columns:GUID\tFront\tBack\tTags\tDeck",
    "#guid column:1",
    "#tags column:4",
    "#deck column:5",
)
_DECKS = {CORE: "LoRA interview", FRONTIER: "LoRA interview::Frontier"}


def text(questions: Iterable[Question]) -> str:
    """The file. Numeric questions come with their numbers filled in already."""
    rows = (_row(question) for question in questions)
    return "\n".join((*_HEADERS, *("\t".join(map(_cell, row)) for row in rows))) + "\n"


def _row(question: Question) -> tuple[str, ...]:
    back = [
        as_html(question.answer),
        "<hr>",
        "<b>A good answer says</b>",
        _list(map(as_html_inline, question.points)),
        "<b>Follow-ups</b>",
        _list(
            f"{as_html(ask.prompt)}<details><summary>Answer</summary>{as_html(ask.answer)}</details>"
            for ask in question.followups
        ),
        f"<small>{html.escape('; '.join(question.sources))}</small>",
    ]
    tags = " ".join(f"lora-kata::{tag}" for tag in (question.topic, question.kind, question.deck))
    front = as_html(question.prompt)
    return (f"lora-kata:{question.id}", front, "".join(back), tags, _DECKS[question.deck])


def as_html(markdown: str) -> str:
    """Markdown with LaTeX between $ signs as HTML with MathJax's \\( \\) and \\[ \\]."""
    return str(_parser().render(markdown))


def as_html_inline(markdown: str) -> str:
    """The same for one line: no paragraph around it."""
    return str(_parser().renderInline(markdown))


@cache
def _parser() -> Any:
    parser = maths.parser()
    parser.add_render_rule("formula", _formula)
    return parser


def _formula(_: Any, tokens: Sequence[Any], place: int, *__: Any) -> str:
    token = tokens[place]
    opening, closing = ("\\[", "\\]") if token.markup == "$$" else ("\\(", "\\)")
    return f"{opening}{html.escape(token.content)}{closing}"


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _cell(value: str) -> str:
    """A field that may hold tabs, quotes and line ends: quoted as in CSV."""
    return '"' + value.replace('"', '""') + '"'
