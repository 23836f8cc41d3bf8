"""Text that is safe and readable on any terminal: colours, odd characters, wrapping, times."""

import codecs
import itertools
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

CODES = {"bold": 1, "dim": 2, "italic": 3, "red": 31, "green": 32, "yellow": 33, "cyan": 36}
_ASCII = {
    **{"✓": "+", "✗": "x", "·": "-", "–": "-", "—": "-", "×": "x", "…": "~", "’": "'", "‘": "'"},
    **{"─": "-", "“": '"', "”": '"', "\u00a0": " ", "−": "-", "⋅": "*", "≈": "~=", "≤": "<="},
    **{"≥": ">=", "≠": "!=", "≪": "<<", "≫": ">>", "→": "->", "←": "<-", "⇒": "=>", "∈": "in"},
    **{"√": "sqrt ", "∑": "sum", "∏": "prod", "∂": "d", "∇": "grad ", "∞": "inf", "‖": "||"},
    **{"∼": "~", "′": "'", "⊤": "T", "⊙": "o", "±": "+-", "⌊": "floor(", "⌋": ")"},
    **{"⌈": "ceil(", "⌉": ")", "µ": "u", "↪": "\\"},
}
_ASCII |= {block: str(1 + at) for at, block in enumerate("▁▂▃▄▅▆▇")}
_ASCII |= {"░": ".", "▒": "o", "▓": "O", "█": "#", "│": "|", "◂": "<"}

ENCODING_ERRORS = "kata-ascii"
CUT = "  ↪ "  # before what goes on of a line of code that is wider than the screen
_ROOM = 18  # columns that what is wrapped has at least beside its indent
_LEAD = re.compile(r"[-+ ]*(?:↪ )?")  # behind which no line is broken: of a diff, or broken before
_PAINT, _PLAIN = re.compile(r"(\x1b\[[\d;]*m)"), "\x1b[0m"


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
    return f"\x1b[{codes}m{text}{_PLAIN}"


def wrapped(text: str, width: int, first: str = "", rest: str | None = None) -> list[str]:
    """Lines no wider than `width`, the first after `first`, the others after `rest`, or two
    columns in where that leaves them no room. Words stay whole."""
    indent = " " * len(first) if rest is None else rest
    if len(indent) > max(width - _ROOM, 0):
        indent = "  "
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return lines or [first.rstrip()]


def folded(line: str, width: int, mark: str = "  ") -> list[str]:
    """A line, painted or not, broken between words where it is wider; what goes on stands behind
    its indent and `mark`."""
    signs = list(_signs(line))
    text = "".join(sign for sign, _ in signs).rstrip()
    if len(text) <= width:
        return [line]
    lead = _LEAD.match(text)
    indent = len(lead[0]) if lead else 0
    hang = " " * min(indent, max(width - _ROOM, 0)) + mark
    lines, start, end = [], 0, width
    while len(text) > end:
        cut = text.rfind(" ", max(start, indent) + 1, end + 1)
        if cut < 0:
            cut = text.find(" ", end)
        if cut < 0:
            break
        lines.append(_written(signs[start:cut]))
        start = cut + len(text[cut:]) - len(text[cut:].lstrip())
        end = start + max(width - len(hang), 1)
    lines.append(_written(signs[start : len(text)]))
    return [hang + line if number else line for number, line in enumerate(lines)]


def _signs(line: str) -> Iterator[tuple[str, str]]:
    """The characters of a line, each with its paint."""
    paint = ""
    for at, piece in enumerate(_PAINT.split(line)):
        if at % 2:
            paint = "" if piece == _PLAIN else piece
        else:
            yield from ((sign, paint) for sign in piece)


def _written(signs: Sequence[tuple[str, str]]) -> str:
    text = ""
    for paint, some in itertools.groupby(signs, key=lambda sign: sign[1]):
        word = "".join(sign for sign, _ in some)
        text += f"{paint}{word}{_PLAIN}" if paint else word
    return text.rstrip()


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
