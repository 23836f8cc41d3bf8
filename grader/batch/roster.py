"""Who is to hand in what: a CSV file.

The first column says who, the others name katas, one or several to a cell (separated by blanks or
semicolons); who has none there is asked every kata of the run. A first line whose first cell is a
heading such as `who` or `name` is one.
"""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from grader import catalog
from grader.batch.names import plain
from grader.errors import UnknownSlug, UsageFault

_HEADINGS = {"who", "name", "names", "student", "person", "candidate", "id", "user", "login"}
_LIMIT_BYTES = 16 << 20


@dataclass(frozen=True)
class Roster:
    """By person, in the file's order, the slugs asked of them; empty for all of the run."""

    asked: dict[str, tuple[str, ...]]

    def meant(self, name: str) -> str | None:
        """The person of that name, whatever its case, if the roster has one."""
        if name in self.asked:
            return name
        near = [who for who in self.asked if who.casefold() == name.casefold()]
        return near[0] if len(near) == 1 else None


def read(path: Path) -> Roster:
    """Raises UsageFault, which names every line that is wrong."""
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UsageFault(f"The roster {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageFault(
            f"The roster {path} is not UTF-8 text (line {line}). Save it as CSV in UTF-8."
        ) from error
    if len(data) > _LIMIT_BYTES:
        raise UsageFault(f"The roster {path} is larger than {_LIMIT_BYTES >> 20} MiB.")
    head = text.partition("\n")[0]
    delimiter = next((d for d in (",", ";", "\t") if d in head), ",")
    asked: dict[str, tuple[str, ...]] = {}
    wrong: list[str] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for number, cells in enumerate(reader):
            who = plain(cells[0]) if cells else ""
            katas = [word for cell in cells[1:] for word in re.split(r"[\s;,]+", cell) if word]
            if number == 0 and who.casefold() in _HEADINGS:
                continue
            if not who:
                if katas:
                    wrong.append(f"line {reader.line_num}: katas, but nobody's name")
                continue
            slugs = []
            for word in katas:
                try:
                    slugs.append(catalog.find(word))
                except UnknownSlug as error:
                    wrong.append(f"line {reader.line_num}: {error}")
            asked[who] = tuple(dict.fromkeys((*asked.get(who, ()), *slugs)))
    except csv.Error as error:
        wrong.append(f"line {reader.line_num}: {error}")
    if wrong:
        raise UsageFault("\n".join([f"The roster {path} cannot be used:", *wrong]))
    if not asked:
        raise UsageFault(f"The roster {path} names nobody.")
    return Roster(asked)
