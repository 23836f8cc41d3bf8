"""What `kata import` does: the record of another machine, joined to this one's.

See `store/records.py` for how two records are joined. Cards are not taken over: the reviews of both
are, and each card becomes what its reviews say in the order in which they were given.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from grader.errors import KataError, UsageFault
from grader.practice import repetition
from grader.recall.export import FORMAT
from grader.store import Store
from grader.store.backups import Backup
from grader.store.database import newest_schema
from grader.store.records import TABLES, Rows

# What holds the stored paper of a mock and what happened in it, kind and fields, against what is
# possible; it may raise whatever it likes.
Check = Callable[[str, Sequence[tuple[float, str, dict[str, Any]]]], object]


class Joined(msgspec.Struct, frozen=True):
    """What came in: new rows by table, and how many rows went further. `backup` is the copy of
    what was stored before; None where nothing was, or nothing has changed."""

    new: Counter[str]
    changed: int
    backup: Backup | None


class _Export(msgspec.Struct, frozen=True):
    """What is read of an export's object; of an older or newer one perhaps not all is there."""

    format: int
    schema: int = 0
    record: dict[str, list[Any]] | None = None


def read(content: bytes) -> Rows:
    """The record in an export. Raises UsageFault if there is none that can be joined."""
    try:
        found = msgspec.json.decode(content, type=_Export)
    except msgspec.ValidationError as error:
        raise UsageFault(f"it is no export of kata: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageFault(f"it is no JSON: {error}.") from error
    if found.format > FORMAT or found.schema > newest_schema():
        raise UsageFault(
            "it was written by a newer kata.\nUpdate this one first: pip install -U lora-kata."
        )
    if found.format < FORMAT or found.record is None:
        raise UsageFault(
            "an older kata wrote it, which left out most.\n"
            "Update that one, then export anew there: kata export json FILE."
        )
    if strange := sorted(set(found.record) - set(TABLES)):
        raise UsageFault(f"it holds what this kata does not know: {strange[0]}.")
    return found.record


def join(store: Store, record: Rows, check: Check, interviews: Path) -> Joined:
    """Join a record to the store, all or nothing. Files of its interviews would belong into
    `interviews`. Raises UsageFault, naming the row and what is wrong with it."""
    with store.transaction():
        changes = store.records.compare(record)
        _check_mocks(record, check)
        there = any(store.records.all().values())
        backup = store.back_up() if changes and there else None
        new = store.records.join(changes, interviews)
        for key in store.memory.rated():
            repetition.replay(store.memory, key)
    return Joined(new, sum(not change.new for change in changes), backup)


def _check_mocks(record: Rows, check: Check) -> None:
    events: dict[str, list[tuple[float, str, dict[str, Any]]]] = {}
    for row in sorted(record.get("interview_events", ()), key=lambda row: row["uid"]):
        data = msgspec.json.decode(row["data"])
        if "snapshot" in data:  # in a record by name, here a number
            data["snapshot"] = None
        events.setdefault(row["interview"], []).append((row["clock_s"], row["kind"], data))
    for place, row in enumerate(record.get("interviews", ())):
        try:
            check(row["plan"], events.get(row["uid"], []))
        except (KataError, LookupError, TypeError, ValueError) as error:
            at = datetime.fromisoformat(row["at"]).astimezone()
            raise UsageFault(
                f"interviews[{place}], the mock of {at:%Y-%m-%d %H:%M}, cannot be read."
            ) from error
