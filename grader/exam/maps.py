"""An array beside what is right as small maps: the last two axes where the largest difference is,
in at most 16 by 16 cells."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from grader.exam.verdict import Maps

_SIDE = 16
_LEVELS, _SHADES = 8, 4


def of(got: Tensor, want: Tensor, wrong: Tensor, axes: tuple[str, ...]) -> Maps:
    """Of two float64 arrays of a shape with one entry or more, some of them `wrong`; axes: their
    names."""
    off = torch.where(wrong, (got - want).abs(), 0.0)
    off = torch.where(torch.isfinite(off), off, math.inf)
    worst = [int(index) for index in torch.unravel_index(off.argmax(), off.shape)]
    plane = [t[tuple(worst[:-2])] for t in (off, got, want, wrong.double())]
    vector = got.ndim == 1
    if vector:
        plane = [t[None] for t in plane]
        cell = 1, math.ceil(got.shape[0] / _SIDE**2)
    else:
        cell = math.ceil(got.shape[-2] / _SIDE), math.ceil(got.shape[-1] / _SIDE)
    off, came, right, amiss = _folded(_pooled(plane, cell)) if vector else _pooled(plane, cell)
    there = off >= 0
    shown = torch.cat([came[there], right[there]])
    shown = shown[torch.isfinite(shown)]
    low, high = (float(shown.min()), float(shown.max())) if len(shown) else (0.0, 0.0)
    largest = float(torch.where(torch.isfinite(off), off, 0.0).max().clamp(min=0.0))
    return Maps(
        expected=_signs(_levels(right, low, high), there),
        got=_signs(_levels(came, low, high), there),
        off=_signs(_shades(off, amiss, largest), there),
        low=low,
        high=high,
        largest=largest,
        worst=tuple(zip(axes, worst)),
        cell=cell,
    )


def _pooled(plane: Sequence[Tensor], cell: tuple[int, int]) -> list[Tensor]:
    """Of each cell's entries the one that is furthest off; the first of these arrays is how far."""
    down, across = cell
    rows, columns = (math.ceil(n / c) for n, c in zip(plane[0].shape, cell))
    pad = (0, columns * across - plane[0].shape[1], 0, rows * down - plane[0].shape[0])
    cells = [
        F.pad(t, pad, value=-1.0)
        .view(rows, down, columns, across)
        .transpose(1, 2)
        .reshape(rows, columns, -1)
        for t in plane
    ]
    chosen = cells[0].argmax(-1, keepdim=True)
    return [t.gather(-1, chosen)[..., 0] for t in cells]


def _folded(cells: Sequence[Tensor]) -> list[Tensor]:
    """One row as rows of so many cells; in the last there may be none (-1)."""
    if cells[0].shape[1] <= _SIDE:
        return list(cells)
    return [F.pad(t, (0, -t.shape[1] % _SIDE), value=-1.0).view(-1, _SIDE) for t in cells]


def _levels(values: Tensor, low: float, high: float) -> Tensor:
    """0 for low to 7 for high; -1 for what is not finite."""
    top = max(abs(low), abs(high)) or 1.0  # what is divided by may be tiny, or its double too large
    low, high = low / top, high / top
    share = (values / top - low) / (high - low) if high > low else torch.full_like(values, 0.5)
    level = (share * _LEVELS).nan_to_num(nan=0.0).floor().clamp(0, _LEVELS - 1)
    return torch.where(torch.isfinite(values), level, -1.0)


def _shades(off: Tensor, amiss: Tensor, largest: float) -> Tensor:
    """0 for what is right, 1 to 4 for how far off; -1 for what is not finite."""
    shade = (off / (largest or 1.0) * _SHADES).nan_to_num(posinf=0.0).ceil().clamp(1, _SHADES)
    return torch.where(torch.isfinite(off), torch.where(amiss > 0, shade, 0.0), -1.0)


def _signs(levels: Tensor, there: Tensor) -> tuple[str, ...]:
    rows = torch.where(there, levels, -2.0).int().tolist()
    return tuple("".join({-1: "x", -2: " "}.get(v, str(v)) for v in row) for row in rows)
