"""Where an array differs from what is right, on a terminal: in words, and as maps of blocks."""

from grader.exam.verdict import Difference, Maps
from grader.views.plain import paint, wrapped

_VALUES, _OFF, _ODD = "▁▂▃▄▅▆▇█", "·░▒▓█", "×"
_HEAD = "  differs:  "
_VALUE_SIGNS = {**{str(at): sign for at, sign in enumerate(_VALUES)}, "x": _ODD, " ": " "}
_OFF_SIGNS = {**{str(at): sign for at, sign in enumerate(_OFF)}, "x": _ODD, " ": " "}
_TITLES = ("expected", "got", "difference")
_ROOMY = 40
_GAP, _SPACIOUS = "  ", 8  # columns of cells that are few enough to be drawn twice as wide


def lines(difference: Difference, width: int, colour: bool) -> list[str]:
    """The finding; below, expected, got and what is off, side by side where there is room. Without
    colour they say the same."""
    first, *rest = wrapped(" ".join(difference.words), width, _HEAD)
    found = [paint(_HEAD, "cyan", colour) + first.removeprefix(_HEAD), *rest]
    if difference.maps is None:
        return found
    indent = " " * len(_HEAD) if width >= _ROOMY else _GAP
    for text in (where(difference), _legend(difference.maps)):
        found += [paint(line, "dim", colour) for line in wrapped(text, width, indent)]
    return [*found, *_maps(difference.maps, width, colour)]


def where(difference: Difference) -> str:
    """Which part of which array the maps show, and where the largest difference is."""
    maps = difference.maps
    size = " x ".join(map(str, difference.expected_shape))
    words = f"{difference.what} ({size})"
    if maps is None:
        return words
    names = [name for name, _ in maps.worst]
    places = [f"{name} {index}" for name, index in maps.worst]
    ways = f"{names[-2]} down, {names[-1]} across" if len(names) > 1 else f"{names[0]}, in lines"
    pooled = f"; a cell is the worst of {maps.cell[0]} x {maps.cell[1]}" * (max(maps.cell) > 1)
    row, column = maps.peak
    most = f"largest difference {number(maps.largest)}"
    if maps.off[row][column] == "x":
        most = "the first that is not finite"
    at = ", ".join(places[-2:])
    return f"{', '.join([words, *places[:-2]])}: {ways}{pooled}; {most} at {at}"


def number(value: float) -> str:
    return f"{value:.3g}"


def _legend(maps: Maps) -> str:
    low, high, none, most = _VALUES[0], _VALUES[-1], _OFF[0], _OFF[-1]
    said = f"{low} is {number(maps.low)}, {high} is {number(maps.high)}; difference: {none} none"
    if maps.largest:
        said += f", {most} is {number(maps.largest)}"
    if any("x" in row for row in (*maps.got, *maps.expected)):
        said += f"; {_ODD} not finite"
    return said


def _maps(maps: Maps, width: int, colour: bool) -> list[str]:
    down, across = maps.starts
    edge = len(_GAP) + len(str(down[-1]))
    wide = 2 if len(across) <= _SPACIOUS and width >= edge + 3 * (len(_GAP) + 2 * _SPACIOUS) else 1
    inside = max(wide * len(across), len(_TITLES[-1]))
    beside = max((width - edge) // (len(_GAP) + inside), 1)
    numbers = [] if maps.cell[1] > 1 else ["".join(str(at % 10).ljust(wide) for at in across)]
    columns = [
        [title, *numbers, *("".join(signs[level] * wide for level in row) for row in rows)]
        for title, rows, signs in zip(
            _TITLES, (maps.expected, maps.got, maps.off), (_VALUE_SIGNS, _VALUE_SIGNS, _OFF_SIGNS)
        )
    ]
    edges = ["", *("" for _ in numbers), *map(str, down)]
    lines = []
    for first in range(0, len(columns), beside):
        for at, (start, *cells) in enumerate(zip(edges, *columns[first : first + beside])):
            line = f"{start:>{edge}}" + "".join(f"{_GAP}{cell:{inside}}" for cell in cells)
            head = at <= len(numbers)
            lines.append(paint(line.rstrip(), "dim" if head else "", colour))
    return lines
