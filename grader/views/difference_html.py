"""Where an array differs from what is right, as pictures for a browser: expected, got and what is
off, each a small map of the same cells that carries its own scale."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from markupsafe import Markup

from grader.exam.verdict import Difference, Maps
from grader.views.difference import number, where
from grader.views.html import shape, text

_CELL, _LARGEST_CELL, _MAP = 11, 22, 176
_TOP, _LINE, _SIGN, _EDGE = 50, 14, 7, 8  # above the cells; a line of text, and a sign of it
_SCALE, _LEVELS, _SHADES = 9, 8, 4

Draw = Callable[[int, int, int], str]  # the path of a cell at x, y of this size


def maps(difference: Difference) -> list[Markup]:
    """Expected, got and difference, where both arrays have one shape. The label of the last says in
    words what there is to see."""
    found = difference.maps
    if found is None:
        return []
    ends = number(found.low), number(found.high)
    values: list[tuple[str, Draw]] = [(f"level-{level}", _filled) for level in range(_LEVELS)]
    off: list[tuple[str, Draw]] = [("right", _dotted)]
    off += [(f"heat-{shade}", _filled) for shade in range(1, _SHADES + 1)]
    most = "none", number(found.largest) if found.largest else ""
    about = f"from {ends[0]}, dark, to {ends[1]}, light"
    said = f"{' '.join(difference.words)} {where(difference)}."
    return [
        _map("expected", f"What is expected, {about}.", found.expected, found, values, ends),
        _map("got", f"What came, {about}.", found.got, found, values, ends),
        _map("difference", said, found.off, found, off, most, True),
    ]


def _map(
    title: str,
    label: str,
    rows: Sequence[str],
    found: Maps,
    kinds: Sequence[tuple[str, Draw]],
    ends: tuple[str, str],
    peak: bool = False,
) -> Markup:
    """One map: title and indices around it, its scale below. kinds: class and form of a cell of
    each level; ends: what the first and the last mean; peak: mark the largest difference."""
    down, across = found.starts
    cell = max(_CELL, min(_LARGEST_CELL, _MAP // max(len(down), len(across))))
    left, high = _SIGN * len(str(down[-1])) + _EDGE, cell * len(down)
    paths: dict[str, list[str]] = defaultdict(list)
    for y, row in zip(range(_TOP, _TOP + high, cell), rows):
        for x, sign in zip(range(left, left + cell * len(across), cell), row):
            if sign != " ":
                kind, draw = ("odd", _crossed) if sign == "x" else kinds[int(sign)]
                paths[kind].append(draw(x, y, cell))
    names = [name for name, _ in found.worst]
    axes = f"{names[-2]} ↓  {names[-1]} →" if len(names) > 1 else f"{names[0]} →"
    shapes = [text(left, _LINE - 2, title), text(left, 2 * _LINE - 2, axes, "soft")]
    shapes += [*_indices(down, across, cell, left)]
    shapes += [shape("path", d="".join(drawn), class_=kind) for kind, drawn in paths.items()]
    if peak:
        row_, column = found.peak
        x, y, side = left + cell * column - 1, _TOP + cell * row_ - 1, cell + 1
        shapes.append(shape("rect", x=x, y=y, width=side, height=side, class_="peak"))
    bottom = _TOP + high + 2 * _EDGE
    shapes += _scale(left, bottom, kinds, ends)
    scale = _SIGN * len("".join(ends)) + _SCALE * len(kinds) + 2 * _EDGE
    wide = max(cell * len(across), scale, _SIGN * len(axes))
    width, height = left + wide, bottom + _SCALE + 3
    size: dict[str, float] = {"width": width, "height": height}
    box = f"0 0 {width} {height}"
    return shape("svg", *shapes, **size, viewBox=box, role="img", aria_label=label)


def _indices(down: Sequence[int], across: Sequence[int], cell: int, left: int) -> Iterator[Markup]:
    """Where rows and columns begin, as many as there is room for."""
    for at in range(0, len(down), -(-_LINE // cell)):
        y = _TOP + cell * at + cell // 2 + 4
        yield text(left - 4, y, str(down[at]), "soft", "end")
    for at in range(0, len(across), -(-_SIGN * (len(str(across[-1])) + 1) // cell)):
        yield text(left + cell * at + cell // 2, _TOP - 5, str(across[at]), "soft", "middle")


def _scale(
    left: int, top: int, kinds: Sequence[tuple[str, Draw]], ends: tuple[str, str]
) -> Iterator[Markup]:
    """Every kind of cell between what the first and the last mean."""
    first, last = ends
    x = left + _SIGN * len(first) + _EDGE
    yield text(left, top + _SCALE, first, "soft")
    for at, (kind, draw) in enumerate(kinds):
        yield shape("path", d=draw(x + _SCALE * at, top, _SCALE), class_=kind)
    yield text(x + _SCALE * len(kinds) + _EDGE, top + _SCALE, last, "soft")


def _filled(x: int, y: int, cell: int) -> str:
    return f"M{x} {y}h{cell - 1}v{cell - 1}h-{cell - 1}z"


def _dotted(x: int, y: int, cell: int) -> str:
    """A small square, so that what is right is told from the rest without colours."""
    side = cell // 4
    at = (cell - 1 - side) // 2
    return f"M{x + at} {y + at}h{side}v{side}h-{side}z"


def _crossed(x: int, y: int, cell: int) -> str:
    side = cell - 5
    return f"M{x + 2} {y + 2}l{side} {side}m0-{side}l-{side} {side}"
