"""The words a suite is written in: parts, draws, comparisons, and names for mistakes."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from grader.exam.verdict import Part
from grader.exam.wire import Foreign

F = TypeVar("F", bound=Callable[..., Any])
Value = Tensor | float | Callable[[], Tensor]

# (rtol, atol) by dtype. rtol is taken of the largest expected magnitude, so that one small
# entry among large ones is not held to more than its rounding allows.
TOLERANCE = {
    torch.float32: (1e-4, 1e-5),
    torch.float64: (1e-9, 1e-9),
    torch.bfloat16: (4e-2, 4e-2),
    torch.float16: (4e-3, 4e-3),
}


@dataclass(frozen=True)
class Compared:
    """Two arrays that were held against each other: what messages call them, what came, what is
    right, how far off an entry may be, and what the axes of the right one are, where its name and
    shape do not tell (`exam/difference.py`)."""

    what: str
    got: Tensor
    want: Tensor
    off: float = 0.0
    axes: tuple[str, ...] = ()


class CheckFailed(Exception):
    """A rule of the contract is broken; `bug` is the catalogue id of the mistake, if known.
    `compared` are the values that differ, where values were compared."""

    def __init__(
        self,
        message: str,
        bug: str | None = None,
        *,
        started: bool = True,
        compared: Compared | None = None,
    ) -> None:
        super().__init__(message)
        self.bug, self.started, self.compared = bug, started, compared


class LearnerRaised(CheckFailed):
    """The submission raised where it should have answered. `types` are the qualified names
    of the exception's class and its bases; `unwritten`: it is the stub's NotImplementedError."""

    def __init__(self, types: list[str], text: str, story: str, unwritten: bool) -> None:
        self.types, self.text = types, text
        super().__init__("Not started yet." if unwritten else story, started=not unwritten)


class SuiteFault(Exception):
    """A check of ours is wrong: it cannot tell a known mistake from what is right."""


@dataclass(frozen=True)
class Raised:
    """An exception that a probe met: qualified class names, its text, whether it is the stub's
    NotImplementedError (one without a text is taken for it), and whether a `raise` of the
    submission's own made it, not an operation that failed."""

    types: list[str]
    text: str
    unwritten: bool = False
    deliberate: bool = False


def part(name: str) -> Callable[[F], F]:
    """Mark a check with the part it belongs to."""

    def mark(check: F) -> F:
        check.__dict__.update(kata_part=Part(name))
        return check

    return mark


class Draw:
    """Numbers for one check, from its seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, std: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
        """Gaussian values of mean 0; in float64 with all its digits."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        values = torch.randn(shape, generator=self.generator, dtype=wide)
        return (values if std == 1.0 else values.mul_(std)).to(dtype)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """int64 values in low..high-1."""
        return torch.randint(low, high, shape, generator=self.generator)

    def orthonormal(self, rows: int, columns: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A matrix (rows, columns) whose shorter side is orthonormal."""
        wide = torch.randn(max(rows, columns), min(rows, columns), generator=self.generator)
        q: Tensor = torch.linalg.qr(wide.double())[0].to(dtype)
        return q if rows >= columns else q.T.contiguous()


def fail(message: str, bug: str | None = None, compared: Compared | None = None) -> None:
    raise CheckFailed(message, bug, compared=compared)


def require(condition: Any, message: str, bug: str | None = None) -> None:
    """Fail with this message unless the condition holds."""
    if not condition:
        raise CheckFailed(message, bug)


@contextlib.contextmanager
def blame(bug: str | None, *texts: str) -> Iterator[None]:
    """Name the mistake when the submission raises inside (with one of `texts`, if given).

    Only for a call whose simpler neighbour has just succeeded, so that what raises is known.
    """
    try:
        yield
    except LearnerRaised as error:
        named = not texts or any(text in error.text for text in texts)
        if named and error.started and error.bug is None:
            error.bug = bug
        raise


def rejects(
    outcome: Any,
    error: str,
    names: str | tuple[str, ...] = (),
    *,
    what: str,
    bug: str | None = None,
) -> None:
    """The attempt must have ended in exception `error` with a message naming one of `names`.

    bug: the mistake "this is not checked". It is named where nothing was raised or an operation
    failed further on. A `raise` of the submission's own shows that it was checked: then what is
    wrong is `other-exception` or `error-without-name`, which the catalogue of every suite that
    asks this has.
    """
    if not isinstance(outcome, Raised):
        raise CheckFailed(f"{what} must raise {error}; nothing was raised.", bug)
    if unwritten(outcome):
        raise CheckFailed("Not started yet.", started=False)
    wanted = (names,) if isinstance(names, str) else names
    named = any(name in outcome.text for name in wanted)
    said = outcome.text or "its message is empty"
    if f"builtins.{error}" not in outcome.types:
        got = outcome.types[0].rpartition(".")[2]
        text = f"{what} must raise {error}, not {got}: {said}"
        if outcome.deliberate:
            raise CheckFailed(text, OTHER_EXCEPTION)
        raise CheckFailed(text, None if named else bug)
    if wanted and not named:
        text = f"{what} raises {error}, but its message does not name `{wanted[0]}`: {said}"
        raise CheckFailed(text, ERROR_WITHOUT_NAME if outcome.deliberate else None)


OTHER_EXCEPTION, ERROR_WITHOUT_NAME = "other-exception", "error-without-name"


def unwritten(outcome: Any) -> bool:
    """Whether a probe met the stub's NotImplementedError, or one without a text."""
    return isinstance(outcome, Raised) and (
        outcome.unwritten or ("builtins.NotImplementedError" in outcome.types and not outcome.text)
    )


def tensor(got: Any, what: str = "the output") -> Tensor:
    """`got` if it is a tensor; fails otherwise."""
    if isinstance(got, Tensor):
        return got
    kind = got.type if isinstance(got, Foreign) else type(got).__name__
    raise CheckFailed(f"{what} should be a tensor, not {kind}")


def close(got: Tensor, want: Tensor, rtol: float, atol: float) -> bool:
    """Same shape, real, and no entry further off than atol + rtol * max |want|."""
    if got.shape != want.shape or got.is_complex():
        return False
    if not want.numel():
        return True
    got, want = got.double(), want.double()
    off = (got - want).abs().max().item()
    return off <= _allowed(want, rtol, atol)  # NaN compares false


def _allowed(want: Tensor, rtol: float, atol: float) -> float:
    """How far off an entry may be."""
    return atol + rtol * float(want.double().abs().max()) if want.numel() else atol


def near(
    got: Any,
    want: Tensor | float,
    *,
    what: str = "the output",
    dtype: torch.dtype | None = torch.float32,
    rtol: float | None = None,
    atol: float | None = None,
    unless: Mapping[str, Value] | Callable[[], Mapping[str, Value]] | None = None,
    bug: str | None = None,
    axes: tuple[str, ...] = (),
) -> None:
    """Fail unless `got` is `want`, naming the known mistake whose value it is.

    want: what is right, computed by the examiner (float64 where it can be).
    dtype: what `got`'s dtype must be; sets the tolerance, whatever came. None: any real one, held
    to the tolerance of float32. unless: bug id -> the value that mistake gives, or what tells that
    if the value is wrong; not asked in half precisions, whose tolerance takes one mistake for
    another. bug: the mistake to name when the value is wrong and none of them matches. axes: see
    `Compared`.
    """
    expected = torch.as_tensor(want)
    if isinstance(got, (int, float)) and expected.ndim == 0:
        got = torch.tensor(float(got), dtype=dtype)
    got = tensor(got, what)
    tolerance = TOLERANCE.get(dtype or torch.float32, TOLERANCE[torch.float32])
    rtol = tolerance[0] if rtol is None else rtol
    atol = tolerance[1] if atol is None else atol
    wanted = dtype or torch.float32
    if got.is_complex():
        raise CheckFailed(f"{what} is {_name(got.dtype)}, expected {_name(wanted)}")
    right = close(got, expected, rtol, atol)
    same_kind = dtype is None or got.dtype == dtype
    if wanted in _HALF:
        unless = None
    if right and same_kind and not (_strict and unless):
        return
    unless = unless() if callable(unless) else unless
    values = {
        name: torch.as_tensor(v() if callable(v) else v) for name, v in (unless or {}).items()
    }
    for name, value in values.items():
        if _strict and close(value, expected, rtol, atol):
            raise SuiteFault(f"{what}: the value of '{name}' is within tolerance of what is right")
    if not same_kind and (right or close(got, expected, *TOLERANCE.get(got.dtype, (rtol, atol)))):
        raise CheckFailed(f"{what} is {_name(got.dtype)}, expected {_name(wanted)}")
    if right:
        return
    # Among several that match the nearest is meant.
    matching = {n: v for n, v in values.items() if close(got, v, rtol, atol)}
    if matching:
        off = {n: float((got.double() - v.double()).abs().sum()) for n, v in matching.items()}
        bug = min(off, key=lambda n: off[n])
    compared = Compared(what, got, expected, _allowed(expected, rtol, atol), axes)
    raise CheckFailed(_difference(got, expected, what), bug, compared=compared)


_HALF = (torch.bfloat16, torch.float16)
_strict = False


@contextlib.contextmanager
def strict() -> Iterator[None]:
    """While inside, near() also holds each known mistake apart from what is right."""
    global _strict
    _strict = True
    try:
        yield
    finally:
        _strict = False


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _difference(got: Tensor, want: Tensor, what: str) -> str:
    if got.shape != want.shape:
        return f"{what} has shape {tuple(got.shape)}, expected {tuple(want.shape)}"
    shape = f"shape {tuple(got.shape)}" if got.ndim else "a single value"
    if not bool(torch.isfinite(got.double()).all()):
        bad = int((~torch.isfinite(got.double())).sum())
        return f"{what} ({shape}) holds {counted(bad, 'value')} not finite (NaN or infinity)"
    off = (got.double() - want.double()).abs()
    at = int(off.argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(at), got.shape))
    largest, scale = float(off.max()), float(want.double().abs().max())
    relative = f" ({_number(largest / scale)} of the largest expected)" if scale else ""
    place = f" at index {index}" if index else ""
    expected, found = digits(float(want.reshape(-1)[at]), float(got.reshape(-1)[at]))
    return (
        f"{what} is not what it should be ({shape}): the largest difference is "
        f"{_number(largest)}{relative if got.ndim else ''}{place}: expected {expected}, got {found}"
    )


def counted(number: int, noun: str) -> str:
    """`1 value`, `2 values`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _number(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:.0f}" if value < 1e5 else f"{value:.1e}"


def digits(want: float, got: float) -> tuple[str, str]:
    """Two numbers with six digits each, or as many more as tell them apart."""
    for places in (6, 9, 12, 15):
        pair = f"{want + 0.0:.{places}g}", f"{got + 0.0:.{places}g}"  # + 0.0: never "-0"
        if pair[0] != pair[1]:
            return pair
    return repr(want + 0.0), repr(got + 0.0)


def described(value: Any) -> str:
    """What came, in a few words: shape and dtype of a tensor, kind and length of others."""
    if isinstance(value, Tensor):
        where = " on meta" if value.device.type == "meta" else ""
        single = "a single value of shape ()" if not value.ndim else f"shape {tuple(value.shape)}"
        return f"a tensor, {single}, {_name(value.dtype)}{where}"
    if isinstance(value, Foreign):
        return f"an object of type {value.type}"
    if isinstance(value, (tuple, list)):
        inside = ", ".join(described(item) for item in value[:4])
        more = ", …" if len(value) > 4 else ""
        return f"a {type(value).__name__} of {len(value)} ({inside}{more})"
    if isinstance(value, dict):
        inside = ", ".join(f"{k}: {described(v)}" for k, v in list(value.items())[:6])
        return f"{inside}{', …' if len(value) > 6 else ''}"
    return "None" if value is None else f"{type(value).__name__} {str(value)[:60]}"


def same(got: Any, want: Tensor, what: str, bug: str | None = None) -> None:
    """Fail unless bit-equal (same shape, dtype and values)."""
    value = tensor(got, what)
    if value.dtype == want.dtype and torch.equal(value, want):
        return
    compared = Compared(what, value, want)
    if value.shape != want.shape or value.dtype != want.dtype:
        raise CheckFailed(
            f"{what} has changed: {tuple(value.shape)} {_name(value.dtype)}, "
            f"was {tuple(want.shape)} {_name(want.dtype)}",
            bug,
            compared=None if value.shape == want.shape else compared,
        )
    off = float((value.double() - want.double()).abs().max())
    raise CheckFailed(f"{what} has changed (by up to {off:.3g})", bug, compared=compared)
