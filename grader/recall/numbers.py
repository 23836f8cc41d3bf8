"""Numeric questions: numbers drawn anew each time, the answer computed, what was typed judged."""

import itertools
import math
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NamedTuple

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
_LONGEST = 200  # characters of a typed answer that are looked at
_EXACTLY, _CLOSELY = 0.001, 0.005  # relative: four digits are right, and three
_DECIMAL = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
_BINARY = {"ki": 2.0**10, "mi": 2.0**20, "gi": 2.0**30, "ti": 2.0**40}
_WORDS = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_ABOUT = re.compile(
    r"(?:[=~≈]|about|approximately|approx\.?|roughly|circa|ca\.?)\s*", re.IGNORECASE
)
_TIMES = re.compile(r"(?<=[\d)])\s*[x×·]\s*(?=[\d(])")
# 16777216, 16,777,216, 16 777 216 or 16_777_216, and what may follow a number's digits.
_NUMBER = re.compile(
    r"(?<![\d.,])(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+(?:_\d+)*)(?:\.\d*)?(?:[eE][+-]?\d+)?"
    r"(?![\d,])"
)
_SPELT = re.compile(r"^(kilo|mega|giga|tera|kibi|mebi|gibi|tebi)-?(?=b)", re.IGNORECASE)
_ROOT = re.compile(r"√\s*(\d+(?:\.\d+)?)")
_BEFORE_ROOT = re.compile(r"(?<=[\d)])\s*(?=sqrt)")
_ARITHMETIC = re.compile(r"(?:[\d.eE+\-*/() ]|sqrt *(?=\())+")


class _Unit(NamedTuple):
    """What may be typed after a number, lower case, beside nothing; examples, which are the
    figures and the formula of no question; and how the unit is written after a number."""

    names: tuple[str, ...]
    examples: str
    sign: str


_UNITS = {
    "parameters": _Unit(
        ("params", "param", "parameter", "parameters", "weights", "numbers"),
        "1234, 1.2k or (12-3)*4**2",
        " parameters",
    ),
    "bytes": _Unit(("b", "byte", "bytes"), "1.5 kB, 12 KiB or 2*345", " bytes"),
    "bits": _Unit(("b", "bit", "bits"), "2.5 or 0.3", " bits"),
    "percent": _Unit(("%", "percent", "per cent"), "12.3 or 12.3 %", " %"),
    "times": _Unit(("x", "×", "times", "-fold", "fold"), "3.4 or 3.4x", "×"),
    "ms": _Unit(("ms", "milliseconds", "millisecond"), "12.3 or 0.0123 s", " ms"),
    "steps": _Unit(("step", "steps"), "1234 or 1.7k", " steps"),
    "tokens": _Unit(("token", "tokens"), "1234 or 1.7k", " tokens"),
    "GPUs": _Unit(("gpu", "gpus"), "1.7", " GPUs"),
    "1": _Unit((), "1.7 or 17/10", ""),
}
UNITS = tuple(_UNITS)


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
    evaluator = _evaluator()
    evaluator.names = dict(names)
    try:
        found: Any = evaluator.eval(expression, previously_parsed=_parsed(expression))
    except Exception as error:  # whatever the expression provokes
        raise ValueError(f"`{expression}` cannot be computed: {error}") from error
    try:
        finite = not isinstance(found, bool) and math.isfinite(found)
    except (TypeError, OverflowError):
        finite = False
    if not finite:
        raise ValueError(f"`{expression}` is no finite number")
    return found  # type: ignore[no-any-return]


@cache
def _evaluator() -> Any:
    import simpleeval

    return simpleeval.SimpleEval(functions=_FUNCTIONS)


@lru_cache(1024)
def _parsed(expression: str) -> Any:
    return _evaluator().parse(expression)


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


def quantity(number: float, unit: str) -> str:
    """A number with its unit: 65,536 parameters, 0.39 %, 37.75 MB (37,748,736 bytes)."""
    text = shown(number) + _UNITS[unit].sign
    if unit in ("bytes", "bits") and abs(number) >= 1e4:
        power = min(int(math.log10(abs(number)) // 3), 4)
        short = f"{number / 1000**power:.4g} {'?kMGT'[power]}{'B' if unit == 'bytes' else 'bit'}"
        return f"{short} ({text})"
    return text


def wanted(unit: str) -> str:
    """What an answer in this unit is, and how it may be typed."""
    kinds = {"percent": "a percentage", "times": "a ratio", "ms": "milliseconds", "1": "a number"}
    return f"{kinds.get(unit, f'a number of {unit}')}, such as {_UNITS[unit].examples}"


def first(answer: str) -> str:
    """The number in the text of an answer to a numeric question: its first line, which is empty
    where none was given. What follows is the rest of the answer."""
    return answer.partition("\n")[0].strip()


def judge(numeric: Numeric, names: Drawn, typed: str) -> Judged:
    """Whether what was typed is the answer, and if not, which slip gives it, if one does to three
    digits. Raises BadNumber."""
    got, want = read(typed, numeric.unit), value(numeric.answer, names)
    if close(got, want, numeric.tolerance):
        return Judged(True, got, want)
    nearest = min(numeric.slips, key=lambda slip: abs(value(slip.value, names) - got), default=None)
    told = min(numeric.tolerance, _CLOSELY)
    if nearest is not None and close(got, value(nearest.value, names), told):
        return Judged(False, got, want, filled(nearest.why, names))
    return Judged(False, got, want, _general(got, want, numeric))


def _general(got: float, want: float, numeric: Numeric) -> str | None:
    """Mistakes that any question knows: a wrong unit, prefix or sign, a ratio upside down. Those
    that lie near the answer are told only of a number that they give almost exactly, since most
    numbers near an answer come from other mistakes."""
    usual = numeric.tolerance
    slips: list[tuple[float, float, str]] = []
    if numeric.unit in ("bytes", "bits"):
        slips.append((8.0, usual, "That is off by a factor of 8: bits and bytes."))
        slips += [
            (r, _EXACTLY, "That is off by the ratio of a binary to a decimal prefix (MiB and MB).")
            for r in (1.024, 1.024**2, 1.024**3)
        ]
    if numeric.unit == "bytes":
        slips += [
            (r, _CLOSELY, f"That is off by a factor of {r:.0f}: check the bytes per number.")
            for r in (2.0, 4.0)
        ]
    if numeric.unit == "percent":
        slips.append((100.0, usual, "That is off by a factor of 100: a fraction is no percentage."))
    for factor in (1000, 10**6, 10**9):
        slips.append((factor, usual, f"That is off by a factor of {factor:,}: check the prefix."))
    for ratio, tolerance, why in slips:
        if any(close(got, want * r, tolerance) for r in (ratio, 1 / ratio)):
            return why
    if close(got, -want, usual):
        return "The sign is wrong."
    if numeric.unit == "times" and want and close(got, 1 / want, usual):
        return "That is the ratio upside down."
    return None


def close(got: float, want: float, tolerance: float) -> bool:
    """Within the relative tolerance."""
    return math.isclose(got, want, rel_tol=tolerance, abs_tol=1e-12)


def read(typed: str, unit: str) -> float:
    """The number typed, in `unit`: "37.7 MB", "18.9M", "0.4 %", "2**16", "8*(4096+768)",
    "8*sqrt(128)".

    k, M, G (or B, billion) and T are decimal, Ki, Mi, Gi and Ti binary. Raises BadNumber, saying
    what can be read.
    """
    text = " ".join(typed[:_LONGEST].replace("−", "-").replace("^", "**").split())
    text = _TIMES.sub("*", _ABOUT.sub("", text, count=1) if _ABOUT.match(text) else text)
    text = _BEFORE_ROOT.sub("*", _ROOT.sub(r"sqrt(\1)", text).replace("√(", "sqrt("))
    match = re.fullmatch(r"(.*[\d)])\.?([^\d)]*)", text)
    if match is None:
        raise _bad(f"`{typed[:40]}` holds no number", unit)
    arithmetic, suffix = match[1].strip(), match[2].strip()
    plain = _NUMBER.sub(lambda number: re.sub("[,_ ]", "", number[0]), arithmetic)
    if "," in plain:
        raise _bad(f"`{arithmetic}` may be read in two ways (a point separates decimals)", unit)
    factor = _factor(suffix, unit)
    try:
        if not _ARITHMETIC.fullmatch(plain):
            raise ValueError
        return value(plain, {}) * factor
    except ValueError:
        raise _bad(f"`{arithmetic}` is no number", unit) from None


def _bad(text: str, unit: str) -> BadNumber:
    return BadNumber(f"{text}. Wanted is {wanted(unit)}.")


def _factor(suffix: str, unit: str) -> float:
    """What a number with this after it is multiplied by."""
    names = ("", *_UNITS[unit].names)
    low = suffix.lower()
    for word, factor in _WORDS.items():
        if low.startswith(word) and low.removeprefix(word).strip() in names:
            return factor
    if unit in ("bytes", "bits"):
        return _storage(suffix, unit)
    if low in names:
        return 1.0
    if unit == "ms" and low in ("s", "sec", "seconds", "us", "µs"):
        return 1e3 if low[0] == "s" else 1e-3
    if low[0] in _DECIMAL and low[1:].strip() in names:
        return _DECIMAL[low[0]]
    raise _bad(f"`{suffix}` is not understood after a number", unit)


def _storage(suffix: str, unit: str) -> float:
    """Bytes and bits: MB, MiB, Mbit, megabytes and mebibytes; a bare `b` is what the question
    asks for."""
    short = _SPELT.sub(lambda long: long[1][0] + "i" * (long[1][2:].lower() == "bi"), suffix)
    match = re.fullmatch(r"([kKmMgGtT][iI]?)?\s*([bB]its?|[bB]ytes?|B|b)?", short)
    if match is None:
        raise _bad(f"`{suffix}` is not understood after a number", unit)
    prefix, word = (match[1] or "").lower(), match[2] or unit
    factor = _BINARY.get(prefix) or _DECIMAL[prefix]
    given = unit if word == "b" else "bits" if word.lower().startswith("bit") else "bytes"
    if given != unit:
        factor *= 8.0 if unit == "bits" else 0.125
    return factor
