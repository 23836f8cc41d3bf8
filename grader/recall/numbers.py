"""Numeric questions: numbers drawn anew each time, the answer computed, what was typed judged."""

import itertools
import math
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

Drawn = Mapping[str, int | float]

_FUNCTIONS = {
    "min": min,
    "max": max,
    "ceil": math.ceil,
    "floor": math.floor,
    "sqrt": math.sqrt,
    "log2": math.log2,
    "abs": abs,
    "round": round,
}
_FIELD = re.compile(r"\[\[(.+?)\]\]")
_DECIMAL = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
_BINARY = {"ki": 2.0**10, "mi": 2.0**20, "gi": 2.0**30, "ti": 2.0**40}
_WORDS = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_NUMBER = re.compile(r"[+-]?(\d[\d_, ]*\d|\d)?(\.\d+)?([eE][+-]?\d+)?")
# What may be typed after a number in each unit, beside nothing; lower case.
_NAMES = {
    "parameters": ("", "params", "param", "parameter", "parameters", "weights", "numbers"),
    "bytes": ("", "b", "byte", "bytes"),
    "bits": ("", "b", "bit", "bits"),
    "percent": ("", "%", "percent", "per cent"),
    "times": ("", "x", "×", "times", "-fold", "fold"),
    "ms": ("", "ms", "milliseconds"),
    "steps": ("", "step", "steps"),
    "tokens": ("", "token", "tokens"),
    "GPUs": ("", "gpu", "gpus"),
    "1": ("",),
}
UNITS = tuple(_NAMES)


class Slip(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A common mistake by the number that it gives."""

    value: str
    why: str


class Numeric(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What makes a question numeric. `draw` gives each name its choices; `answer` and the slips
    are arithmetic over the names; `tolerance` is relative."""

    draw: dict[str, tuple[int | float, ...]]
    answer: str
    unit: str
    tolerance: float
    slips: tuple[Slip, ...]


class BadNumber(Exception):
    """What was typed is no number in the question's unit; the text says what would be."""


@dataclass(frozen=True)
class Judged:
    """An answer judged. `why` names the slip that gives the number typed, if one does."""

    correct: bool
    typed: float
    expected: float
    why: str | None = None


def value(expression: str, names: Drawn) -> float:
    """The value of an arithmetic expression. Raises ValueError, saying why it has none."""
    import simpleeval

    try:
        found: Any = simpleeval.simple_eval(expression, functions=_FUNCTIONS, names=dict(names))
    except Exception as error:  # whatever the expression provokes
        raise ValueError(f"`{expression}` cannot be computed: {error}") from error
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not math.isfinite(found):
        raise ValueError(f"`{expression}` is no finite number")
    return found


def all_draws(numeric: Numeric) -> Iterator[dict[str, int | float]]:
    """Every combination of the choices."""
    for chosen in itertools.product(*numeric.draw.values()):
        yield dict(zip(numeric.draw, chosen))


def drawn(numeric: Numeric, seed: int) -> dict[str, int | float]:
    """One choice for each name; the same seed gives the same."""
    generator = random.Random(seed)
    return {name: generator.choice(choices) for name, choices in numeric.draw.items()}


def filled(text: str, names: Drawn) -> str:
    """The text with every `[[expression]]` replaced by its value."""
    return _FIELD.sub(lambda match: shown(value(match[1], names)), text)


def shown(number: float) -> str:
    """As people write it: 16,777,216 and 0.391, four significant digits for what is not whole."""
    if float(number).is_integer() and abs(number) < 1e15:
        return f"{int(number):,}" if abs(number) >= 10_000 else str(int(number))
    if abs(number) >= 10_000:
        return f"{number:,.0f}"
    return f"{number:.4g}"


def judge(numeric: Numeric, names: Drawn, typed: str) -> Judged:
    """Whether what was typed is the answer, and if not, by which slip. Raises BadNumber."""
    got, want = read(typed, numeric.unit), value(numeric.answer, names)
    if close(got, want, numeric.tolerance):
        return Judged(True, got, want)
    for slip in numeric.slips:
        if close(got, value(slip.value, names), numeric.tolerance):
            return Judged(False, got, want, filled(slip.why, names))
    return Judged(False, got, want, _general(got, want, numeric))


def _general(got: float, want: float, numeric: Numeric) -> str | None:
    """Mistakes that any question knows: a wrong unit or power."""
    ratios = [(1000.0, "That is off by a factor of 1000: check the prefix of the unit.")]
    if numeric.unit in ("bytes", "bits"):
        ratios.append((8.0, "That is off by a factor of 8: bits and bytes."))
    if numeric.unit == "percent":
        ratios.append((100.0, "That is off by a factor of 100: a fraction is no percentage."))
    for ratio, why in ratios:
        if any(close(got, want * r, numeric.tolerance) for r in (ratio, 1 / ratio)):
            return why
    if close(got, -want, numeric.tolerance):
        return "The sign is wrong."
    return None


def close(got: float, want: float, tolerance: float) -> bool:
    """Within the relative tolerance."""
    return math.isclose(got, want, rel_tol=tolerance, abs_tol=1e-12)


def read(typed: str, unit: str) -> float:
    """The number typed, in `unit`: "37.7 MB", "18.9M", "0.4 %", "2**16", "8*(4096+768)".

    k, M, G (or B, billion) and T are decimal, Ki, Mi, Gi and Ti binary. Raises BadNumber.
    """
    text = " ".join(typed.strip().replace("^", "**").replace("−", "-").split()).lstrip("=~≈ ")
    match = _NUMBER.match(text)
    number, rest = (match[0], text[match.end() :]) if match else ("", text)
    plain = re.sub(r"[_, ]", "", number)
    if plain.strip("+-."):
        try:
            return float(plain) * _scale(rest.strip(), unit)
        except BadNumber:
            if not set(rest) & set("*/+-("):
                raise
    try:
        return value(text.replace(",", "").replace("×", "*"), {})
    except ValueError:
        kind = "" if unit == "1" else f" of {unit}"
        raise BadNumber(f"That is no number{kind} that I can read.") from None


def _scale(suffix: str, unit: str) -> float:
    """What a number with this after it is multiplied by."""
    names = _NAMES[unit]
    low = suffix.lower()
    for word, factor in _WORDS.items():
        if low.startswith(word) and low.removeprefix(word).strip() in names:
            return factor
    if unit in ("bytes", "bits"):
        return _storage(suffix, unit)
    if low in names:
        return 1.0
    prefix, _, word = low.partition(" ")
    if prefix in _DECIMAL and word.strip() in names:
        return _DECIMAL[prefix]
    wanted = f"a number of {unit}" if unit != "1" else "a plain number"
    raise BadNumber(f"`{suffix}` is not understood after the number; {wanted} is asked for.")


def _storage(suffix: str, unit: str) -> float:
    """Bytes and bits: MB and MiB, Mbit; a bare `b` is what the question asks for."""
    match = re.fullmatch(r"([kKmMgGtT]i?)?\s*(bits?|bytes?|B|b)?", suffix)
    if match is None:
        raise BadNumber(f"`{suffix}` is not understood; try MB, MiB, GB or {unit}.")
    prefix, word = (match[1] or "").lower(), match[2] or unit
    factor = _BINARY.get(prefix) or _DECIMAL[prefix]
    given = "bits" if word.startswith("bit") else "bytes" if word != "b" else unit
    if given != unit:
        factor *= 8.0 if unit == "bits" else 0.125
    return factor
