"""Names of people and files as others made them, fit to be shown and stored."""

import unicodedata

from grader.harmless import harmless

_CHARS = 120


def plain(name: str) -> str:
    """One line without escapes, in the form in which equal names are equal; long ones are cut."""
    text = harmless(unicodedata.normalize("NFC", name)).replace("\n", "\\n").replace("\t", "\\t")
    text = text.strip()
    return text if len(text) <= _CHARS else f"{text[: _CHARS - 1]}…"
