"""How an array differs from what is right, for a learner's own file: in words, and as maps.

Words say what holds of all that differs and could be no accident of the draw: a pattern may leave
open a hundredth of the largest difference, and no more than the check allows.
"""

import itertools
import re
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from grader.exam import maps
from grader.exam.checks import Compared
from grader.exam.verdict import Difference
from grader.harmless import harmless

_FEW, _SOME = 4, 16  # places that are named one by one: where it differs, in what order it came
_ENOUGH = 3  # entries that a factor or an offset must explain
_MATCHED = 1 << 20  # differences that the search for another order may take
_WORDS_CHARS = 200

# What the axes are called, by the first word of what a check calls an array, and how many it has.
_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "output": (("feature",), ("row", "feature"), ("batch", "token", "feature")),
    "weight": (("out",), ("out", "in")),
    "bias": (("out",),),
    "mask": (("token",), ("batch", "token")),
    "prompt": (("feature",), ("token", "feature")),
    "prefix_k": ((), (), ("head", "token", "feature")),
    "lora_A": ((), ("rank", "in"), ("adapter", "rank", "in")),
    "lora_B": ((), ("out", "rank"), ("adapter", "out", "rank")),
    "lora_E": (("rank",), ("rank", "column")),
    "magnitude": (("out",), ("out", "column")),
    "scale": (("out",),),
    "changes": ((), (), ("step", "out", "in")),
    "path": ((), ("step", "value")),
    "codes": (("value",),),
    "nf4_codebook": (("level",),),
    "absmax": (("block",),),
}
_ALIKE = {
    **dict.fromkeys(
        ("input", "x", "update", "content", "embeds", "delta", "forward_delta"), "output"
    ),
    **dict.fromkeys(("delta_weight", "merged", "get_merged_delta", "base"), "weight"),
    **{"shared_A": "lora_A", "shared_B": "lora_B", "vera_d": "lora_E", "vera_b": "bias"},
    **{"lora_P": "lora_B", "lora_Q": "lora_A"},
    **{"prefix": "prompt", "prefix_v": "prefix_k", "A": "lora_A", "B": "lora_B"},
    **{"dA": "lora_A", "dB": "lora_B", "down_proj": "weight", "up_proj": "weight"},
}
_NOUNS = {"in": "input", "out": "output"}
_PLURALS = {"batch": "batches", "index": "indices"}
_LEADING = re.compile(
    r"^(?:(?:the|a|an)\s+)?(?:gradient\s+(?:of|to|that .* gives)\s+)?(?:(?:the|a|an)\s+)?"
    r"(?:(?:\w+ )?layer's\s+|decoded\s+)?"
)


def of(values: Compared) -> Difference | None:
    """How `got` differs from `want`; None of single values and complex ones, and where nothing
    differs."""
    got, want = values.got.detach(), values.want.detach()
    if got.numel() == want.numel() == 1 or got.is_complex() or want.is_complex():
        return None
    axes, drawn = _axes(values, want.ndim), None
    if got.shape == want.shape:
        wrong = _wrong(got.double(), want.double(), values.off)
        if not bool(wrong.any()):
            return None
        words = [_extent(wrong, axes), *_how(got, want, wrong, values.off, axes)]
        drawn = maps.of(got.double(), want.double(), wrong, axes)
    else:
        words = [f"The shape is {tuple(got.shape)}, expected {tuple(want.shape)}."]
        words += _of_another_shape(got.double(), want.double(), values.off, axes)
    return Difference(
        what=harmless(values.what)[:_WORDS_CHARS],
        shape=tuple(got.shape),
        expected_shape=tuple(want.shape),
        words=tuple(words),
        maps=drawn,
    )


def _axes(values: Compared, ndim: int) -> tuple[str, ...]:
    if len(values.axes) == ndim:
        return values.axes
    text = _LEADING.sub("", values.what)
    first = re.match(r"`?([\w.]+)", text)
    word = first[1].rpartition(".")[2] if first else ""
    known = _NAMES.get(_ALIKE.get(word, word), ())
    if 0 < ndim <= len(known) and known[ndim - 1]:
        return known[ndim - 1]
    if known is _NAMES["output"] and ndim:
        return *(f"dim {at}" for at in range(ndim - 1)), "feature"
    plain = {1: ("index",), 2: ("row", "column")}
    return plain.get(ndim, tuple(f"dim {at}" for at in range(ndim)))


def _wrong(got: Tensor, want: Tensor, off: float) -> Tensor:
    return (got != want) & ~((got - want).abs() <= off)  # NaN is wrong


def _extent(wrong: Tensor, axes: Sequence[str]) -> str:
    """How many entries differ, and where, if that is in a part of the array alone."""
    total, number = wrong.numel(), int(wrong.sum())
    if number == total:
        return f"All {total} values differ."
    parts, size = [], 1
    for axis, name in enumerate(axes):
        others = [a for a in range(wrong.ndim) if a != axis]
        here = wrong.any(dim=others) if others else wrong
        places = here.nonzero().reshape(-1).tolist()
        said = "" if len(places) == len(here) else _places(places, len(here), name)
        parts += [said] if said else []
        size *= len(places) if said else len(here)
    said = f"{number} of {total} values {'differs' if number == 1 else 'differ'}"
    if not parts:
        return f"{said}."
    which = ": just those of" if size == number else ", all of them in"
    return f"{said}{which} {' and '.join(parts)}."


def _places(places: list[int], size: int, axis: str) -> str:
    """These of so many along an axis, or nothing where they follow no rule."""
    noun, nouns, of = _noun(axis), _nouns(axis), f"(of {size})"
    if axis.startswith("dim "):
        noun, nouns, of = "index", "indices", f"(of {size}) in {axis}"
    first, last = places[0], places[-1]
    if len(places) == 1:
        return f"{noun} {first} {of}"
    if last - first == len(places) - 1:
        return f"{nouns} {first} to {last} {of}"
    if len(places) > 2 and {b - a for a, b in itertools.pairwise(places)} == {2}:
        return f"every second {noun} from {first} to {last} {of}"
    if len(places) <= _FEW:
        return f"{nouns} {', '.join(map(str, places[:-1]))} and {last} {of}"
    left = sorted(set(range(size)) - set(places))
    return f"all but {noun} {left[0]} {of}" if len(left) == 1 else ""


def _noun(axis: str) -> str:
    return f"index of {axis}" if axis.startswith("dim ") else _NOUNS.get(axis, axis)


def _nouns(axis: str) -> str:
    if axis.startswith("dim "):
        return f"indices of {axis}"
    return _PLURALS.get(axis) or f"{_noun(axis)}s"


def _how(got: Tensor, want: Tensor, wrong: Tensor, off: float, axes: Sequence[str]) -> list[str]:
    """What relation what differs has to what is right, if it is one that we know."""
    if got.dtype == torch.bool and want.dtype == torch.bool:
        there = got[wrong]
        return [f"There it is {bool(there[0])}."] if bool((there == there[0]).all()) else []
    whole = not got.dtype.is_floating_point and not want.dtype.is_floating_point
    got, want = got.double(), want.double()
    finite = torch.isfinite(got)
    if not bool(finite.all()):
        return [_not_finite(got[wrong], "It" if bool(wrong.all()) else "What differs")]
    if not bool(torch.isfinite(want).all()):
        return []
    sharp = _Sharp(got, want, wrong, off)
    for said in (
        _of_values(got[wrong], want[wrong], sharp, bool(wrong.all())),
        _in_steps(got[wrong] - want[wrong]) if whole else "",
        _swapped(got, want, sharp, axes),
        _in_another_order(got, want, sharp, axes),
        _alike_along(got - want, sharp, axes),
        _factor_of_each(got, want, sharp, axes),
    ):
        if said:
            return [said]
    return []


class _Sharp:
    """When two arrays count as one: closer than is allowed, and than a hundredth of what is off."""

    def __init__(self, got: Tensor, want: Tensor, wrong: Tensor, off: float) -> None:
        self.largest = float((got - want)[wrong].abs().max())
        self.off = min(max(off, 1e-6 * float(want.abs().max())), 0.01 * self.largest)

    def __call__(self, one: Tensor, other: Tensor | float) -> bool:
        return bool(((one - other).abs() <= self.off).all())


def _not_finite(there: Tensor, it: str) -> str:
    nan, infinite = int(there.isnan().sum()), int(there.isinf().sum())
    kinds = "NaN" if not infinite else "infinite" if not nan else "NaN or infinite"
    if nan + infinite == len(there):
        return f"{it} is {kinds}."
    return f"{nan + infinite} of them {'is' if nan + infinite == 1 else 'are'} {kinds}."


def _of_values(got: Tensor, want: Tensor, sharp: _Sharp, everywhere: bool) -> str:
    """What holds of each entry that differs alike."""
    it = "It" if everywhere else "What differs"
    if sharp(got, 0.0):
        return f"{it} is 0."
    if sharp(want, 0.0):
        return f"{it} should be 0."
    if len(got) < _ENOUGH:
        return ""
    factor = float(got @ want / (want @ want))
    if factor and sharp(got, factor * want):
        if abs(factor + 1) < 1e-3:
            return f"{it} has the wrong sign and the right size."
        times = _number(factor)
        return f"{it} is {times} times what is expected: one factor for all of it."
    shift = float((got - want).mean())
    if sharp(got, want + shift):
        more = "more" if shift > 0 else "less"
        return f"{it} is {_number(abs(shift))} {more} than expected: one number for all of it."
    return ""


def _in_steps(off: Tensor) -> str:
    """Of whole numbers: all of them hardly off."""
    return "None is off by more than 1." if bool((off.abs() == 1).all()) else ""


def _swapped(got: Tensor, want: Tensor, sharp: _Sharp, axes: Sequence[str]) -> str:
    for one, other in itertools.combinations(range(want.ndim), 2):
        turned = want.transpose(one, other)
        if got.shape == turned.shape and sharp(got, turned):
            if want.ndim == 2:
                return "It is what is expected, transposed."
            return f"It is what is expected with {axes[one]} and {axes[other]} swapped."
    return ""


def _in_another_order(got: Tensor, want: Tensor, sharp: _Sharp, axes: Sequence[str]) -> str:
    """The right slices along an axis in wrong places; each of them is like one alone."""
    for axis, name in enumerate(axes):
        number = want.shape[axis]
        if number < 2 or number * want.numel() > _MATCHED:
            continue
        came, right = (t.movedim(axis, 0).reshape(number, -1) for t in (got, want))
        apart = (came[:, None] - right[None]).abs().amax(-1) <= sharp.off
        if not bool((apart.sum(0) == 1).all() and (apart.sum(1) == 1).all()):
            continue
        order = apart.double().argmax(1).tolist()
        return f"It is what is expected with its {_nouns(name)} in another order{_order(order)}."
    return ""


def _order(order: list[int]) -> str:
    number = len(order)
    if order == list(range(number))[::-1] and number > 2:
        return ", the last first"
    shift = order[0]
    if number > 2 and order == [(at + shift) % number for at in range(number)]:
        return f": {shift} comes first, and so on around"
    if number > 3 and order == [at ^ 1 for at in range(number)]:
        return ", each two neighbours swapped"
    if number <= _SOME:
        return f": {', '.join(map(str, order))}"
    return ""


def _alike_along(off: Tensor, sharp: _Sharp, axes: Sequence[str]) -> str:
    """A difference that is the same all along some axes, as that of a vector left out is."""
    along = [a for a in range(off.ndim) if off.shape[a] > 1 and sharp(off, off.narrow(a, 0, 1))]
    depends = [axes[a] for a in range(off.ndim) if a not in along and off.shape[a] > 1]
    if not along or not depends:
        return ""
    each = " and ".join(_noun(axes[a]) for a in along)
    return (
        f"The difference is the same for every {each}: it depends on {' and '.join(depends)} alone."
    )


def _factor_of_each(got: Tensor, want: Tensor, sharp: _Sharp, axes: Sequence[str]) -> str:
    """Each slice along an axis is off by a factor of its own."""
    for axis, name in enumerate(axes):
        came, right = (t.movedim(axis, 0).flatten(1) if t.ndim > 1 else t for t in (got, want))
        if came.ndim < 2 or came.shape[0] < 2 or came.shape[1] < _ENOUGH:
            continue
        squares = (right * right).sum(1)
        if bool((squares == 0).any()):
            continue
        factors = (came * right).sum(1) / squares
        if sharp(came, factors[:, None] * right):
            low, high = (_number(round(float(f), 4) + 0.0) for f in factors.aminmax())
            return f"Each {_noun(name)} is off by a factor of its own, {low} to {high}."
    return ""


def _of_another_shape(got: Tensor, want: Tensor, off: float, axes: Sequence[str]) -> Iterator[str]:
    """What an array of another shape has in common with the right one."""
    if got.numel() != want.numel() or not bool(torch.isfinite(got).all()):
        return
    if not got.numel() or float(want.std(correction=0)) <= 100 * off:  # all alike: fits anything
        return
    for one, other in itertools.combinations(range(want.ndim), 2):
        turned = want.transpose(one, other)
        if got.shape == turned.shape and not bool(_wrong(got, turned, off).any()):
            swap = "transposed" if want.ndim == 2 else f"with {axes[one]} and {axes[other]} swapped"
            yield f"It is what is expected, {swap}."
            return
    if not bool(_wrong(got.reshape(-1), want.reshape(-1), off).any()):
        yield "Its values are right and in the right order."


def _number(value: float) -> str:
    return f"{value:.4g}"
