"""The points of a rubric that an answer said, as people type them."""

import re


def said(text: str, count: int) -> tuple[int, ...]:
    """The indices, from 0, of the points meant by "1 3 4", "1-3", "134", "all" or nothing.

    Raises ValueError, saying what would be understood.
    """
    low = text.strip().lower()
    if low in ("", "0", "none"):
        return ()
    if low in ("all", "a"):
        return tuple(range(count))
    found: set[int] = set()
    for word in re.split(r"[\s,;+&]+|and", low):
        between = re.fullmatch(r"(\d+)-(\d+)", word)
        if between:
            found |= set(range(int(between[1]), min(int(between[2]), count + 1) + 1))
        elif word.isdecimal() and int(word) > count:
            found |= set(map(int, word))  # 134: there are at most nine points
        elif word.isdecimal():
            found.add(int(word))
        elif word:
            found.add(0)
    if not found or not found <= set(range(1, count + 1)):
        raise ValueError(f"`{text}`: numbers from 1 to {count} are wanted, `all`, or nothing.")
    return tuple(sorted(number - 1 for number in found))
