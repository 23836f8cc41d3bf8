"""What time it is, and how many seconds have passed.

`KATA_CLOCK` puts another clock in place of the system's, for tests and for trying long sittings
in a short time:

    2026-03-01T09:00:00+00:00        the process begins at this time, which then passes as usual
    2026-03-01T09:00:00+00:00 x60    sixty times as fast; x0 stands still
    @/path/of/a/file                 the file holds one of the above; its time is that at which
                                     the file was written (its mtime)

The file is read at every look at the clock: several processes share one time through it, also
one after another, and whoever writes it moves them all.
"""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from grader.errors import UsageFault

_BEGAN = time.monotonic()


def now() -> datetime:
    """The present time, UTC. Raises UsageFault if KATA_CLOCK cannot be read."""
    text = os.environ.get("KATA_CLOCK")
    return _told(text) if text else datetime.now(UTC)


def seconds() -> float:
    """Seconds since some fixed moment: for durations. A system clock that is set has no effect."""
    text = os.environ.get("KATA_CLOCK")
    return _told(text).timestamp() if text else time.monotonic()


def at(system_s: float) -> datetime:
    """The time, UTC, at which the system's clock showed so many seconds since 1970: of files."""
    text = os.environ.get("KATA_CLOCK")
    return _told(text, time.time() - system_s) if text else datetime.fromtimestamp(system_s, UTC)


def _told(text: str, ago_s: float = 0.0) -> datetime:
    try:
        if text.startswith("@"):
            path = Path(text[1:])
            passed = time.time() - path.stat().st_mtime
            text = path.read_text(encoding="utf-8")
        else:
            passed = time.monotonic() - _BEGAN
        start, _, speed = text.strip().partition(" x")
        begun = datetime.fromisoformat(start)
        if begun.tzinfo is None:
            raise ValueError("the time has no zone")
        return begun.astimezone(UTC) + timedelta(seconds=(passed - ago_s) * float(speed or 1))
    except (OSError, ValueError, OverflowError) as error:
        raise UsageFault(f"KATA_CLOCK cannot be read: {error}.") from error
