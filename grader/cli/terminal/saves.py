"""When a file was saved. It is found by looking at the file, which is cheap for one, and works
alike on every disk: a network's, a container's, one that another system shares.
"""

import time
from pathlib import Path

_REST_S, _EMPTY_REST_S = 0.05, 0.2  # an editor may empty the file before it writes

_Signature = tuple[int, int, int]


class Saves:
    """The saves of one file from now on. It may be missing, and come later."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = _signature(path)

    def came(self) -> bool:
        """Whether it has changed, by whatever way an editor saves, and is at rest again."""
        now = _signature(self.path)
        if now is None or now == self._seen:
            return False
        time.sleep(_REST_S if now[1] else _EMPTY_REST_S)
        if _signature(self.path) != now:
            return False
        self._seen = now
        return True


def _signature(path: Path) -> _Signature | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
