"""Where the files that ship with the program are: in a clone at its top level, in an
installed package inside it."""

from pathlib import Path

_PACKAGE = Path(__file__).parent
_CLONE = _PACKAGE.parent

SUITES = _PACKAGE / "suites"


def clone() -> Path | None:
    """The clone this program runs from, or None when it was installed without one."""
    return _CLONE if (_CLONE / "solutions").is_dir() and (_CLONE / "katas").is_dir() else None


def solutions() -> Path:
    """The folder of reference solutions."""
    return (clone() or _PACKAGE / "_content") / "solutions"


def questions() -> Path:
    """The folder of the recall bank."""
    return (clone() or _PACKAGE / "_content") / "questions"


def solution(slug: str) -> Path:
    return solutions() / f"{slug}.py"


def suite(slug: str) -> Path:
    return SUITES / f"test_{slug}.py"
