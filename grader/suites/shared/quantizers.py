"""What holds of quantizers in blocks: values become codes and scales of blocks, and come back.

A suite says how its two functions are called on the stage and how it judges what they return:
a `Quantizer`. Its expected values are formulas on the helpers below, in float64.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from grader.exam.checks import CheckFailed, Compared, blame, near, require, same, tensor

# Formulas

# The levels of NF4: QLoRA (Dettmers et al. 2023), appendix E.
_BELOW: tuple[float, ...] = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453)
_BELOW += (-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0)
_ABOVE = (0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224)
_ABOVE += (0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)
LEVELS = torch.tensor(_BELOW + _ABOVE, dtype=torch.float64)
MIDDLES = (LEVELS[1:] + LEVELS[:-1]) / 2


def nearest(values: Tensor) -> Tensor:
    """The index of the NF4 level that each value, -1 to 1, is nearest to."""
    return torch.bucketize(values, MIDDLES)


def in_blocks(flat: Tensor, size: int) -> Tensor:
    """(n,) as (blocks, size); the last one is filled with zeros."""
    return F.pad(flat, (0, -len(flat) % size)).view(-1, size)


def largest(blocks: Tensor) -> Tensor:
    return blocks.abs().amax(1)


def overall(blocks: Tensor) -> Tensor:
    """One maximum for all blocks: a mistake."""
    return blocks.abs().max().expand(len(blocks))


def scaled(flat: Tensor, size: int, top: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Each value over the maximum of its block (those that fill the last block too), and maxima."""
    blocks = in_blocks(flat, size)
    tops = top(blocks)
    return (blocks / torch.where(tops == 0, 1.0, tops)[:, None]).reshape(-1), tops


def per_value(scales: Tensor, size: int, n: int) -> Tensor:
    """(n,): each block's scale at each of its values, float64."""
    return scales.double().repeat_interleave(size)[:n]


def misplaced(
    scales: Tensor, size: int, n: int, *, block: int, tiled: str, one: str
) -> dict[str, Tensor]:
    """Bug id -> what decoders get in the place of per_value: copies of all scales in a row, those
    of blocks of the default size, the largest for all."""
    if len(scales) == 1 or size == 1:
        return {}
    wide = scales.double()
    known = {tiled: wide.repeat(size)[:n]}
    if size != block:
        known["decoding-block-size-ignored"] = wide[torch.arange(n) // block % len(scales)]
    return known | {one: wide.max().expand(n)}


# Judging


def returned(got: Any, names: tuple[str, ...], function: str) -> tuple[Tensor, ...]:
    """What a function returned: as many real tensors as there are names."""
    fits = isinstance(got, (tuple, list)) and len(got) == len(names)
    words = ", ".join(names)
    require(fits, f"{function} should return {len(names)} tensors: {words}")
    values = tuple(tensor(value, name) for value, name in zip(got, names))
    require(not any(v.is_complex() for v in values), f"{words} should be real numbers")
    return values


def lengths(what: str, n: int, bug: str | None, **wanted: tuple[Tensor, int]) -> None:
    """Each result (name: itself and how long it should be) is one-dimensional and so long."""
    for name, (value, want) in wanted.items():
        shape = tuple(value.shape)
        text = f"{what}: {name} has shape {shape}, expected ({want},) for {n} values"
        require(shape == (want,), text, bug)


def worst(off: Tensor) -> int:
    """Where it is largest; NaN counts most."""
    return int(off.nan_to_num(nan=math.inf).argmax())


def compared(what: str, got: Tensor, want: Tensor, fine: Tensor, size: int) -> Compared:
    """(n,) what came and what is right, to be shown by blocks where all are whole; of size 1 what
    there is one of for each block. fine: where what came is as good, and is taken for right."""
    came = torch.where(fine, want, got)
    if size == 1 or len(want) % size:
        return Compared(what, came, want, axes=("block" if size == 1 else "value",))
    blocks = came.view(-1, size), want.view(-1, size)
    return Compared(what, *blocks, axes=("block", "value"))


def only(found: Iterable[str]) -> str | None:
    """The bug that was found, if it is one alone."""
    distinct = set(found)
    return distinct.pop() if len(distinct) == 1 else None


@contextmanager
def naming(find: Callable[[], str | None]) -> Iterator[None]:
    """If what is inside fails without a name, the mistake is the one that `find` finds."""
    try:
        yield
    except CheckFailed as failed:
        failed.bug = failed.bug or find()
        raise


def holds(judge: Callable[..., None], *arguments: Any) -> bool:
    """Whether a judgement passes."""
    try:
        judge(*arguments)
    except CheckFailed:
        return False
    return True


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _in(size: tuple[int, ...]) -> str:
    return f"in blocks of {size[0]}" if size else "with the default block_size"


# Probes


def by_keyword(kata, function, arguments):
    return getattr(kata, function)(**arguments)


def there_and_back(kata, values, more, size, forth, back):
    return back(kata, *forth(kata, values, *size), *more, *size)


def of_views(kata, values, size, forth, views):
    return [forth(kata, view, size) for view in views(values)]


def before_and_after(kata, given, more, size, forth, back):
    values = given.clone()
    stored = forth(kata, values, size)
    kept = [value.clone() for value in stored]
    for _ in range(2):
        back(kata, *stored, *more, size)
    return values, kept, list(stored)


def decoded_repeatedly(kata, stored, other, size, forth, back):
    codes, *rest = (v.clone() if isinstance(v, torch.Tensor) else v for v in stored)
    first = back(kata, codes, *rest, size)
    kept = first.clone()
    first.zero_()
    again = back(kata, codes, *rest, size)
    codes.copy_(other)
    with torch.no_grad():
        changed = back(kata, codes, *rest, size)
        forth(kata, kept, size)
        left_on = torch.is_grad_enabled()
    return kept, again, changed, left_on


def called_in_turn(kata, values, changed, other, more, sizes, forth, back):
    small, large = sizes
    first = forth(kata, values, small)
    forth(kata, changed, small)
    back(kata, *forth(kata, other, large), *more, large)
    place = values.clone()
    forth(kata, place, small)
    place.copy_(changed)
    return first, forth(kata, place, small), forth(kata, values, small)


def on_device(kata, values, more, size, rest, device, forth, back):
    stored = forth(kata, values.to(device), size)
    made = [*stored, back(kata, *stored, *more, size, *rest)]
    return made, [value.device.type for value in made]


# Properties


@dataclass(frozen=True)
class Quantizer:
    """Two functions of a kata, and what every such pair is held to.

    noun: what is quantized, `a weight`. names: of what forth returns. forth, back: helpers of the
    suite, `forth(kata, values, *size)` and `back(kata, *stored, *size)`.
    judge: `judge(stage, got, values, size, what)`, of what forth returned; restored:
    `restored(stage, got, stored, size, what)`, of what back returned. block: the default size.
    more: `more(values)` is what back needs beside what forth returned.
    """

    noun: str
    names: tuple[str, ...]
    forth: Callable[..., Any]
    back: Callable[..., Any]
    judge: Callable[..., None]
    restored: Callable[..., None]
    block: int
    more: Callable[[Tensor], tuple[Any, ...]] = lambda values: ()

    def quantizes(self, stage, values, *size, what="", bug=None):
        """Values in blocks of this size, or the default one. bug: named if that raises."""
        with blame(bug):
            got = stage(self.forth, values, *size)
        what = what or f"{self.noun} {tuple(values.shape)} {_in(size)}"
        self.judge(stage, got, values, *(size or (self.block,)), what)

    def decodes(self, stage, stored, *size, what=""):
        """What is stored in blocks of this size, or the default one."""
        got = stage(self.back, *stored, *size)
        what = what or f"{self.noun} decoded {_in(size)}"
        self.restored(stage, got, stored, *(size or (self.block,)), what)

    def round_trip(self, stage, values, *size):
        """What comes back when values are quantized and decoded."""
        back = self._ask(stage, there_and_back, values, self.more(values), size)
        return tensor(back, f"{self.noun}, there and back,")

    def takes_views(self, stage, values, views, size, bug=None):
        """Values need not be contiguous. views: a helper that makes views of them; bug: named if
        a call raises because they are."""
        self.quantizes(stage, values, size)
        with blame(bug, "view", "contiguous"):
            made = stage(of_views, values, size, forth=self.forth, views=views)
        for got, view in zip(made, views(values)):
            what = f"{self.noun} {tuple(view.shape)} with strides {view.stride()}"
            self.judge(stage, got, view, size, what)

    def leaves_its_inputs(self, stage, values, size, bug):
        """Neither values nor what is stored of them is changed in place. bug: if values are."""
        given = values, self.more(values), size
        after, before, later = self._ask(stage, before_and_after, *given)
        same(after, values, self.noun, bug)
        for name, now, was in zip(self.names, later, before):
            same(now, tensor(was), f"{name}, given to be decoded,", "decoder-changes-its-arguments")

    def decodes_anew(self, stage, stored, other, size):
        """Each call decodes the codes of the moment (`other` in the end) into a new tensor."""
        codes, *rest = stored
        *made, left_on = self._ask(stage, decoded_repeatedly, stored, other, size)
        words = "decoded", "decoded again", "whose codes have changed"
        for got, chosen, word in zip(made, (codes, codes, other), words):
            self.restored(stage, got, (chosen, *rest), size, f"{self.noun} {word}")
        require(not left_on, "calls under no_grad() leave grad mode on")

    def keeps_nothing(self, stage, values, changed, other, sizes):
        """A call gives the same whatever was called before. changed: put in the place of values;
        other: of another shape, in blocks of the second size."""
        given = values, changed, other, self.more(other), sizes
        made = self._ask(stage, called_in_turn, *given)
        words = "the first call", "a tensor whose values have changed", "the same call later on"
        for got, right, what in zip(made, (values, changed, values), words):
            self.judge(stage, got, right, sizes[0], what)

    def accelerated(self, stage, values, size, formula, *rest, **tolerance):
        """Results stay on the accelerator and are right. formula: what they stand for,
        `formula(*stored, size)`; rest: given to the decoder after the size."""
        more = self.more(values)
        made, places = self._ask(stage, on_device, values, more, size, rest, stage.device)
        for name, place in zip((*self.names, "what is decoded"), places):
            require(place == stage.device, f"{name}: on {place}, {self.noun} on {stage.device}")
        *stored, back = made
        self.judge(stage, tuple(stored), values, size, f"{self.noun} on {stage.device}")
        near(back, formula(*stored, *more, size), what="what is decoded", **tolerance)

    def _ask(self, stage, probe, *given):
        return stage(probe, *given, forth=self.forth, back=self.back)
