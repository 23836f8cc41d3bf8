"""What `kata import` shows."""

from pathlib import Path
from typing import TYPE_CHECKING

from grader.views.plain import counted

if TYPE_CHECKING:
    from grader.recall.joined import Joined

_THINGS = {
    "attempts": "attempt",
    "snapshots": "kept version",
    "answers": "answer",
    "reviews": "rating",
    "interviews": "mock interview",
}


def page(path: Path, done: "Joined") -> list[str]:
    if not done.new.total() and not done.changed:
        return [f"All that {path} holds was here already."]
    found = [counted(done.new[key], thing) for key, thing in _THINGS.items() if done.new[key]]
    *most, last = found or ["some small things"]
    lines = [f"New from {path}: {', '.join(most)}{' and ' if most else ''}{last}."]
    if done.backup is not None:
        lines.append(f"`kata backup --restore {done.backup.name}` undoes this.")
    return lines
