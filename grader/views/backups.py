"""What `kata backup` shows."""

from collections.abc import Sequence

from grader.store.backups import Backup, Restored
from grader.views.plain import columns, paint

_HEAD = ("name", "made", "KiB", "by")
_BY = {"itself": "the day's first write", "hand": "hand", "restore": "a restore, put aside"}


def listing(found: Sequence[Backup], colour: bool) -> list[str]:
    """A row for each copy, oldest first."""
    if not found:
        return [
            "There is no backup yet: the first write of a day makes one, `kata backup` another."
        ]
    rows = [(b.name, f"{b.at:%Y-%m-%d %H:%M}", str(-(-b.bytes >> 10)), _BY[b.by]) for b in found]
    head, *table = columns([_HEAD, *rows], right=frozenset({2}))
    lines = [paint(head, "dim", colour), *table, ""]
    return [*lines, "`kata backup --restore NAME` brings one back; what is there now is kept."]


def made(backup: Backup) -> list[str]:
    return [
        f"Copied to {backup.path}",
        f"`kata backup --restore {backup.name}` brings this state back.",
    ]


def restored(done: Restored) -> list[str]:
    lines = [
        f"{backup.name} is damaged and was passed over; it is still there."
        for backup in done.passed_over
    ]
    lines.append(f"All that is stored is as it was on {done.backup.at:%Y-%m-%d at %H:%M}.")
    if done.aside is not None:
        lines.append(f"What was there is kept as {done.aside.path}")
    return lines
