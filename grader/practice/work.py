"""Time on task: for how long a kata or a hunt was worked on, without lunch.

It counts while the file changes or the tool is used. What is seen of that: `start`, every `run`,
every save that `watch` or `edit` sees, otherwise the last save before a command (the time of the
file), `hint`, `show`, `debug`, `edit`, `solution`, and the steps of a hunt. The time between two of
these counts in full up to five minutes; of a longer one five minutes count, and half a minute more
for each new line of a save that ends it, for those who write in one go and save at the end (par
gives a line about a minute). In a hunt, where reading is the work and leaves no trace, its par
counts instead of the five minutes.

That one number is the time shown after a pass, the best time, what is held against par and rated,
and what a plan's day is filled with. A mock interview has its own clock. Attempts made before this
was measured keep the time that the clock showed.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from grader.practice import clock, schedule
from grader.store import Store
from grader.store.memory import Memory
from grader.store.work import Stretch

IDLE_S = 300.0
LINE_S = 30.0


def note(
    store: Store,
    key: str,
    now: datetime,
    begun: datetime | None,
    *,
    saved: datetime | None = None,
    lines: int = 0,
    idle_s: float = IDLE_S,
) -> None:
    """The tool is used `now`, by whoever works on the thing with that key since it was begun.

    saved: when its file was saved last, with so many new lines.
    """
    with store.transaction():
        last = store.work.last(key, begun)
        for at, limit_s in ((saved, idle_s + lines * LINE_S), (now, idle_s)):
            if at is None or (at is saved and (last is None or not last < at <= now)):
                continue
            gap_s = 0.0 if last is None else (at - last).total_seconds()
            store.work.add(key, at, max(0.0, min(gap_s, limit_s)))
            last = at


def on_kata(
    store: Store, slug: str, now: datetime, *, saved: datetime | None = None, lines: int = 0
) -> None:
    """The tool is used for a kata that was begun; nothing is noted of any other."""
    begun = store.attempts.begun(slug)
    if begun is not None:
        note(store, f"kata:{slug}", now, begun, saved=saved, lines=lines)


def saved(path: Path, now: datetime) -> datetime | None:
    """When a file was saved, by our clock and not after `now`; None if it is not there."""
    try:
        return min(clock.at(path.stat().st_mtime), now)
    except OSError:
        return None


def new_lines(before: bytes, after: bytes) -> int:
    """How many lines of `after`, blank ones aside, are not in `before`."""
    old, new = (Counter(map(bytes.strip, text.splitlines())) for text in (before, after))
    return sum(number for line, number in (new - old).items() if line)


def done_minutes(memory: Memory, now: datetime) -> float:
    """The minutes practised in the study day of `now` (in the learner's own time zone)."""
    since = schedule.day_end(now) - timedelta(days=1)
    return _united_s(map(_counted, memory.work.stretches(since)), since, now) / 60


def _counted(stretch: Stretch) -> tuple[datetime, datetime]:
    """Begin and end, without a lunch before the end."""
    if stretch.lines is None:
        return stretch.begin, stretch.end
    longest = timedelta(seconds=IDLE_S + stretch.lines * LINE_S)
    return max(stretch.begin, stretch.end - longest), stretch.end


def _united_s(spans: Iterable[tuple[datetime, datetime]], since: datetime, now: datetime) -> float:
    """The seconds between `since` and `now` that lie in any of the spans."""
    total, reached = 0.0, since
    for begin, end in sorted(spans):
        begin, end = max(begin, reached), min(end, now)
        if end > begin:
            total += (end - begin).total_seconds()
            reached = end
    return total
