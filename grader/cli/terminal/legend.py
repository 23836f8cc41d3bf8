"""The keys of the conversations, quiz and mock interview alike: named, read and explained here.

A key is a line of its own. Where a text may be meant, as in an answer that is begun or at a yes or
no, it is told by a / before it, which makes it a key anywhere.
"""

from collections.abc import Collection
from dataclasses import dataclass

from grader.views.plain import wrapped


@dataclass(frozen=True)
class Key:
    """`word` is its name, which may be typed after a / as well."""

    letter: str
    word: str
    about: str


ANSWER = Key("Enter", "", "on an empty line ends the answer; alone: you said it aloud")
GRADE = Key("Enter", "grades", "grades the file; every save does, too")
FOLLOW_UP = Key("f", "follow-up", "a follow-up question, once the answer is shown")
TICK = Key("t", "tick", "tick the points again, before you rate")
UNDO = Key("u", "undo", "take the last rating of this quiz back, and give another")
HINT = Key("h", "hint", "the next hint, which is noted")
EDIT = Key("e", "edit", "the file in VISUAL or EDITOR")
NEXT = Key("n", "next", "move on: to the next question or round, past the rest of the debrief")
PAUSE = Key("p", "pause", "stop the clock; what stands after it is the reason")
LEAVE = Key("q", "quit", "leave (also Ctrl-D); what you gave is stored")
HELP = Key("?", "keys", "this help")

QUIZ = (ANSWER, FOLLOW_UP, TICK, UNDO, LEAVE, HELP)
ASKED = (ANSWER, NEXT, PAUSE, LEAVE, HELP)
AT_WORK = (GRADE, HINT, EDIT, NEXT, PAUSE, LEAVE, HELP)
PROMPTED = (GRADE, HINT, NEXT, PAUSE, HELP)  # as many as a narrow prompt has room for
ALWAYS = (LEAVE, HELP)  # never meant as a text


def read(line: str, keys: Collection[Key], bare: Collection[Key]) -> tuple[Key, str] | None:
    """The key that a line is, one of `keys`, and what stands after it; None if it is a text.

    bare: those that need no /. One word after a / that is no key is a call for help.
    """
    text = line.strip()
    word, _, rest = text.removeprefix("/").partition(" ")
    low = word.lower()
    if not text.startswith("/"):
        found = [key for key in bare if low == key.letter and not rest]
        return (found[0], "") if found else None
    found = [key for key in keys if low in (key.letter, key.word) and low]
    if found:
        return found[0], rest.strip()
    return None if rest else (HELP, "")


def short(keys: Collection[Key]) -> str:
    """The keys in a line."""
    return " · ".join(f"{key.letter} {key.word}" for key in keys if key.word)


def page(keys: Collection[Key], width: int) -> list[str]:
    """What may be typed."""
    lines = [""]
    for key in keys:
        lines += wrapped(key.about, width, f"  {key.letter:5}  ")
    told = "In the middle of an answer, and at a yes or no, with / before it: /q."
    return [*lines, *wrapped(told, width, "  "), ""]
