"""Names of people and files as others made them, fit to be shown and stored."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256

from grader.harmless import harmless

_CHARS = 120
_FILE_CHARS = 60
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # of Windows


def plain(name: str) -> str:
    """One line without escapes, in the form in which equal names are equal; long ones are cut."""
    name = name[: 4 * _CHARS]  # it may be as long as an archive
    text = harmless(unicodedata.normalize("NFC", name)).replace("\n", "\\n").replace("\t", "\\t")
    text = text.strip()
    return text if len(text) <= _CHARS else f"{text[: _CHARS - 1]}…"


def file_names(people: Sequence[str]) -> dict[str, str]:
    """For each of these a name that is fit for a file on any system, no two alike whatever the
    case. Who had to be changed, or is told from another by case alone, gets a part of its hash."""
    said = {who: _for_files(who) for who in people}
    alike = Counter(name.casefold() for name in said.values())
    return {
        who: name
        if name == who and alike[name.casefold()] == 1
        else f"{name}-{sha256(who.encode(errors='replace')).hexdigest()[:8]}"
        for who, name in said.items()
    }


def _for_files(who: str) -> str:
    name = re.sub(r"[^\w.@+ -]+", "_", who)[:_FILE_CHARS].strip("._ ")
    return "person" if not name or _DEVICES.fullmatch(name) else name
