"""Text that is safe and readable on any terminal: colours, odd characters, wrapping, times."""

import codecs
import itertools
import textwrap
import unicodedata
from collections.abc import Iterable
from datetime import datetime

CODES = {"bold": 1, "dim": 2, "italic": 3, "red": 31, "green": 32, "yellow": 33, "cyan": 36}
_ASCII = {
    **{"✓": "+", "✗": "x", "·": "-", "–": "-", "—": "-", "×": "x", "…": "~", "’": "'", "‘": "'"},
    **{"─": "-", "“": '"', "”": '"', "\u00a0": " ", "−": "-", "⋅": "*", "≈": "~=", "≤": "<="},
    **{"≥": ">=", "≠": "!=", "≪": "<<", "≫": ">>", "→": "->", "←": "<-", "⇒": "=>", "∈": "in"},
    **{"√": "sqrt ", "∑": "sum", "∏": "prod", "∂": "d", "∇": "grad ", "∞": "inf", "‖": "||"},
    **{"∼": "~", "′": "'", "⊤": "T", "⊙": "o", "±": "+-", "⌊": "floor(", "⌋": ")"},
    **{"⌈": "ceil(", "⌉": ")", "µ": "u"},
}
_ASCII |= {"░": ".", "▒": "o", "▓": "O", "█": "#", "│": "|", "◂": "<"}

ENCODING_ERRORS = "kata-ascii"


def _nearest(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    out = ""
    for sign, some in itertools.groupby(map(_spelt, text), key=lambda pair: pair[0]):
        words = "".join(word for _, word in some)
        out += f"{sign}({words})" if sign and len(words) > 1 else sign + words
    return out, error.end


def _spelt(character: str) -> tuple[str, str]:
    """A character in ASCII, after the sign of a script: ("_", "0"), ("^", "2"), ("", "alpha")."""
    kind, _, codes = unicodedata.decomposition(character).partition("> ")
    if kind in ("<super", "<sub", "<font") and " " not in codes:
        return {"<super": "^", "<sub": "_"}.get(kind, ""), _spelt(chr(int(codes, 16)))[1]
    if character in _ASCII or character.isascii():
        return "", _ASCII.get(character, character)
    name = unicodedata.name(character, "")
    if name.startswith("GREEK") and "LETTER" in name:
        word = name.split()[-1].lower()
        return "", word.capitalize() if character.isupper() else word
    return "", "" if unicodedata.combining(character) else "?"


# The streams' error handler: a sign that a terminal lacks becomes its nearest in ASCII.
codecs.register_error(ENCODING_ERRORS, _nearest)


def paint(text: str, style: str, colour: bool) -> str:
    """The text in a style such as "bold red", or as it is."""
    if not colour or not style:
        return text
    codes = ";".join(str(CODES[word]) for word in style.split())
    return f"\x1b[{codes}m{text}\x1b[0m"


def wrapped(text: str, width: int, first: str = "", rest: str | None = None) -> list[str]:
    """Lines no wider than `width`, the first after `first`, the others after `rest`."""
    indent = " " * len(first) if rest is None else rest
    wide = max(width, len(indent) + 20)
    lines = textwrap.wrap(
        text, wide, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False
    )
    return lines or [first.rstrip()]


def painted(
    text: str, style: str, width: int, colour: bool, first: str = "", rest: str | None = None
) -> list[str]:
    """Wrapped lines, each in the style."""
    return [paint(line, style, colour) for line in wrapped(text, width, first, rest)]


def paragraphs(text: str, width: int, indent: str = "") -> list[str]:
    """Each line of the text wrapped for itself; its own indents stay."""
    lines: list[str] = []
    for line in text.splitlines():
        own = indent + line[: len(line) - len(line.lstrip())]
        lines += wrapped(line.strip(), width, own) if line.strip() else [""]
    return lines


def clock(seconds: float) -> str:
    """A duration as a clock shows it: 4:05, 1:04:05, 3 days."""
    whole = int(seconds)
    if whole >= 2 * 86_400:
        return f"{whole // 86_400} days"
    hours, minutes = whole // 3600, whole % 3600 // 60
    short = f"{minutes:02d}:{whole % 60:02d}"
    return f"{hours}:{short}" if hours else short.removeprefix("0")


def when(due: datetime, now: datetime) -> str:
    """When something is due, seen from now: in 10 minutes, tomorrow, on 12 March (in 5 days).
    Days are those of the local calendar."""
    seconds = (due - now).total_seconds()
    if seconds <= 0:
        return "now"
    if seconds < 12 * 3600:
        minutes = max(round(seconds / 60), 1)
        return (
            f"in {counted(minutes, 'minute') if minutes < 120 else counted(minutes // 60, 'hour')}"
        )
    day, today = due.astimezone().date(), now.astimezone().date()
    days = (day - today).days
    if days < 2:
        return "tomorrow" if days else "today"
    year = f" {day.year}" if day.year != today.year else ""
    return f"on {day.day} {day:%B}{year} (in {days} days)"


def counted(number: int, thing: str) -> str:
    """1 kata, 2 katas."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def columns(rows: Iterable[tuple[str, ...]], right: frozenset[int] = frozenset()) -> list[str]:
    """Rows as a table: two spaces between columns, those in `right` set to the right."""
    table = list(rows)
    wide = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.rjust(wide[i]) if i in right else cell.ljust(wide[i]) for i, cell in enumerate(row)
        ).rstrip()
        for row in table
    ]
