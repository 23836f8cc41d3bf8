"""What suites on singular values share: matrices of a chosen spectrum, and numbers in the place of
tensors, of which the mistake is named that all of them show.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from grader.exam.checks import (
    ERROR_WITHOUT_NAME,
    Raised,
    described,
    digits,
    fail,
    rejects,
    require,
)

Forms = Mapping[str, Sequence[Callable[..., float]]]  # bug id -> what it computes, in each form


def falling(count: int, ratio: float = 0.8) -> Tensor:
    """1, ratio, ratio ** 2, ...: (count,) float64."""
    return ratio ** torch.arange(count, dtype=torch.float64)


def of_spectrum(draw: Any, rows: int, columns: int, values: Tensor, **dtype: Any) -> Tensor:
    """A matrix (rows, columns) of these singular values (the rest are 0), its vectors random."""
    left, right = turned(draw, rows, len(values)), turned(draw, columns, len(values))
    return ((left * values) @ right.T).to(dtype.get("dtype", torch.float32))


def turned(draw: Any, rows: int, columns: int) -> Tensor:
    """(rows, columns) of orthonormal columns, float64."""
    q: Tensor = torch.linalg.qr(draw(rows, columns, dtype=torch.float64))[0]
    return q


def number(got: Any, what: str) -> float:
    """A number, or a tensor or array of one, as a float; fails otherwise."""
    if isinstance(got, (Tensor, np.ndarray)):
        single = math.prod(got.shape) == 1 and not torch.as_tensor(got).is_complex()
        require(single, f"{what} should be a Python float, not {described(got)}")
        return float(got)
    plain = isinstance(got, (int, float))
    require(plain, f"{what} should be a Python float, not {described(got)}")
    return float(got)


def numbers(
    got: Sequence[Any],
    cases: Sequence[tuple[Any, ...]],
    right: Callable[..., float],
    words: Callable[..., str],
    forms: Forms | None = None,
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    bug: str | None = None,
) -> None:
    """Each number is `right(*case)`. The mistake is named that alone gives all of them, where these
    are four or more (a few numbers are soon like others); `bug` where that is none."""
    values = [number(value, words(*case)) for value, case in zip(got, cases, strict=True)]

    def off(value: float, want: float) -> bool:
        return not abs(value - want) <= atol + rtol * abs(want)  # NaN is off

    for value, case in zip(values, cases):
        want = right(*case)
        if not off(value, want):
            continue
        named = [
            name
            for name, ways in (forms or {} if len(cases) > 3 else {}).items()
            if any(not any(off(v, way(*c)) for v, c in zip(values, cases)) for way in ways)
        ]
        expected, came = digits(want, value)
        text = f"{words(*case)} is {came}, expected {expected}"
        fail(text, named[0] if len(named) == 1 else bug)


def attempted(call, *args):
    """What a call gives, None if that is a ValueError."""
    try:
        return call(*args)
    except ValueError:
        return None


def under_other_state(call, *args):
    """What a call gives under no_grad, with float64 as default dtype and deterministic algorithms,
    and which of these it has left otherwise."""
    torch.set_default_dtype(torch.float64)
    torch._C._set_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.no_grad():
            came = attempted(call, *args)
            kept = {
                "grad mode": not torch.is_grad_enabled(),
                "the default dtype": torch.get_default_dtype() == torch.float64,
                "deterministic algorithms": torch._C._get_deterministic_algorithms(),
            }
    finally:
        torch.set_default_dtype(torch.float32)
        torch._C._set_deterministic_algorithms(False)
    return came, [name for name, is_kept in kept.items() if not is_kept]


def parameters(given, trains):
    """nn.Parameters of these values, not contiguous, each with a gradient of ones."""
    made = [nn.Parameter(M.T.contiguous().T, flag) for M, flag in zip(given, trains)]
    for p in made:
        p.grad = torch.ones_like(p)
    return made


def disturbed(made, given, trains):
    """What of these parameters is no more as `parameters` made them: place and words."""
    found = []
    for place, (p, M, flag) in enumerate(zip(made, given, trains)):
        kept = {
            "values": p.dtype == M.dtype and torch.equal(p, M),
            "strides": p.stride() == M.T.contiguous().T.stride(),
            "requires_grad": p.requires_grad == flag and p.is_leaf,
            ".grad": p.grad is not None and bool((p.grad == 1).all()),
        }
        found += [(place, name) for name, is_kept in kept.items() if not is_kept]
    return found


def rejects_word(outcome: Any, name: str, *, what: str, bug: str | None) -> None:
    """The attempt ended in ValueError with a message that names `name`; as a word of its own if it
    is a single letter."""
    rejects(outcome, "ValueError", what=what, bug=bug)
    assert isinstance(outcome, Raised)
    found = name in outcome.text.lower()
    if len(name) == 1:
        found = bool(re.search(rf"(?<![^\W_]){name}(?![^\W_])", outcome.text))
    text = f"{what} raises ValueError, but its message does not name `{name}`: {outcome.text}"
    require(found, text, ERROR_WITHOUT_NAME if outcome.deliberate else None)
