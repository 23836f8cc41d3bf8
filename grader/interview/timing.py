"""The interview's own clock: it counts seconds of the sitting, and pauses stop it."""

from collections.abc import Callable, Collection

WARNINGS = (5, 1, 0)  # minutes left; 0: time is up


class Keeper:
    """A stopwatch that goes on from `base_s`. `seconds` is any steady count of seconds."""

    def __init__(self, base_s: float, seconds: Callable[[], float]) -> None:
        self._base_s, self._seconds = base_s, seconds
        self._since: float | None = None

    def start(self) -> None:
        if self._since is None:
            self._since = self._seconds()

    def stop(self) -> None:
        self._base_s, self._since = self.elapsed(), None

    @property
    def runs(self) -> bool:
        return self._since is not None

    def elapsed(self) -> float:
        """Seconds counted; never fewer than before, though the clock behind it be set back."""
        if self._since is None:
            return self._base_s
        now = self._seconds()
        self._base_s += max(0.0, now - self._since)
        self._since = now
        return self._base_s


def left_s(minutes: int, used_s: float) -> float:
    """Seconds left of a round; negative is over-time."""
    return 60.0 * minutes - used_s


def over_s(minutes: int, used_s: float) -> float:
    """Seconds of over-time; less than a second is none."""
    over = used_s - 60.0 * minutes
    return over if over >= 1.0 else 0.0


def due_warning(minutes: int, used_s: float, warned: Collection[int]) -> int | None:
    """The warning to give now, or None. One that is overtaken by a nearer one is left out, as
    are those that the round is too short for."""
    left = left_s(minutes, used_s)
    passed = [mark for mark in WARNINGS if left <= 60 * mark and mark < minutes]
    nearest = min(passed, default=None)
    return None if nearest is None or min(warned, default=99) <= nearest else nearest
