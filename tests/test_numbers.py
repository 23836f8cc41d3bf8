"""Numeric questions: reading what is typed, judging it, naming the slip."""

import pytest

from grader.recall import numbers
from grader.recall.numbers import BadNumber, Numeric, Slip

READ = [
    ("37.7 MB", "bytes", 37.7e6),
    ("36MiB", "bytes", 36 * 2**20),
    ("1.2 GB", "bytes", 1.2e9),
    ("300 Mbit", "bytes", 300e6 / 8),
    ("3 gigabytes", "bytes", 3e9),
    ("3 Gigabytes", "bytes", 3e9),
    ("1 gigabyte", "bytes", 1e9),
    ("1.5 gibibytes", "bytes", 1.5 * 2**30),
    ("36 mebibytes", "bytes", 36 * 2**20),
    ("37.7 megabytes", "bytes", 37.7e6),
    ("2 kilobytes", "bytes", 2000),
    ("5 kB", "bytes", 5000),
    ("3 terabytes", "bytes", 3e12),
    ("8 megabits", "bytes", 1e6),
    ("3 billion bytes", "bytes", 3e9),
    ("1e9", "bytes", 1e9),
    ("1e9 bytes", "bytes", 1e9),
    ("18,874,368", "bytes", 18_874_368),
    ("18 874 368 bytes", "bytes", 18_874_368),
    ("18\u202f874\u202f368", "parameters", 18_874_368),
    ("18.9 million parameters", "parameters", 18.9e6),
    ("65 thousand", "parameters", 65_000),
    ("0.5 %", "percent", 0.5),
    ("0.5 percent", "percent", 0.5),
    ("4 MB", "bits", 32e6),
    ("18.9M", "parameters", 18.9e6),
    ("1.5 billion", "parameters", 1.5e9),
    ("16,777,216 params", "parameters", 16_777_216),
    ("16 777 216", "parameters", 16_777_216),
    ("16_777_216", "parameters", 16_777_216),
    ("8*(4096+768)", "parameters", 38_912),
    ("8*sqrt(16)", "1", 32),
    ("8 √16", "1", 32),
    ("√(9+7)/2", "1", 2),
    ("4096 x 16", "parameters", 65_536),
    ("2^16", "parameters", 65_536),
    ("2e9", "parameters", 2e9),
    ("0.39%", "percent", 0.39),
    ("0.39 per cent", "percent", 0.39),
    ("256x", "times", 256),
    ("256-fold", "times", 256),
    ("1/256", "times", 1 / 256),
    ("0.02 s", "ms", 20),
    ("about 3 GPUs", "GPUs", 3),
    ("12k tokens", "tokens", 12_000),
    ("≈ −0.5", "1", -0.5),
    (".5", "1", 0.5),
]


@pytest.mark.parametrize(("typed", "unit", "number"), READ)
def test_read(typed: str, unit: str, number: float) -> None:
    """Prefixes, units, thousands and arithmetic are read as they are meant."""
    assert numbers.read(typed, unit) == pytest.approx(number)


@pytest.mark.parametrize(
    ("typed", "unit", "words"),
    [
        ("1,5 GB", "bytes", "`1,5` may be read in two ways"),
        ("4096 768", "parameters", "`4096 768` is no number"),
        ("many", "parameters", "`many` holds no number"),
        ("5 apples", "parameters", "`apples` is not understood"),
        ("5 MB", "parameters", "`MB` is not understood"),
        ("5 gigaparameters", "bytes", "`gigaparameters` is not understood"),
        ("5 megs", "bytes", "`megs` is not understood"),
        ("", "1", "holds no number"),
        ("1/0", "1", "is no number"),
        ("sqrt(-1)", "1", "is no number"),
        ("9**9**9", "1", "is no number"),
        ("9**99999", "1", "is no number"),
        ("__import__('os')1", "1", "is no number"),
        ("(" * 5000 + "1", "1", "no number"),
    ],
)
def test_unreadable(typed: str, unit: str, words: str) -> None:
    """What cannot be read is told, with what can; nothing is guessed."""
    with pytest.raises(BadNumber) as caught:
        numbers.read(typed, unit)
    assert words in str(caught.value)
    assert "such as" in str(caught.value)


MEMORY = Numeric(
    draw={"d": (1024, 2048), "r": (8, 16)},
    answer="2 * r * d * 2",
    unit="bytes",
    tolerance=0.01,
    slips=(
        Slip("r * d * 2", "Only one of the two factors, [[r * d]] numbers, is counted."),
        Slip("2 * r * d * 4", "That is four bytes per number."),
    ),
)
NAMES = {"d": 1024, "r": 8}  # 32,768 bytes


@pytest.mark.parametrize(
    ("typed", "correct", "why"),
    [
        ("32768", True, None),
        ("32.8 kB", True, None),
        ("32 KiB", True, None),
        ("16384", False, "Only one of the two factors, 8192 numbers, is counted."),
        ("65.5 kB", False, "That is four bytes per number."),
        ("66.5 kB", False, None),  # beside that slip, and within the tolerance of it
        ("131072", False, "That is off by a factor of 4: check the bytes per number."),
        ("262144", False, "That is off by a factor of 8: bits and bytes."),
        ("32.8 MB", False, "That is off by a factor of 1,000: check the prefix."),
        ("32 kB", False, "That is off by the ratio of a binary to a decimal prefix"),
        ("33500", False, None),  # near the binary prefix, which gives 33,554
        ("-32768", False, "The sign is wrong."),
        ("50000", False, None),
    ],
)
def test_judge(typed: str, correct: bool, why: str | None) -> None:
    """A wrong number is explained by the slip that gives it."""
    judged = numbers.judge(MEMORY, NAMES, typed)
    assert judged.correct == correct
    assert judged.expected == 32_768
    assert (judged.why or "").startswith(why or "")
    assert (judged.why is None) == (why is None)


def test_draws() -> None:
    """A seed gives the same numbers again; all combinations come up."""
    assert numbers.drawn(MEMORY, 5) == numbers.drawn(MEMORY, 5)
    drawn = {tuple(numbers.drawn(MEMORY, seed).values()) for seed in range(50)}
    assert drawn == {tuple(names.values()) for names in numbers.all_draws(MEMORY)}


def test_shown() -> None:
    """Numbers are written as people write them."""
    assert numbers.filled("[[d * d]] and [[r / 3]]", {"d": 4096, "r": 1}) == "16,777,216 and 0.3333"
    assert numbers.quantity(37_748_736, "bytes") == "37.75 MB (37,748,736 bytes)"
    assert numbers.quantity(0.390625, "percent") == "0.3906 %"
    assert numbers.quantity(256, "times") == "256×"


@pytest.mark.parametrize("expression", ["x", "1 == 1", "[1]", "'a'", "a.b", "1/0", "2 +"])
def test_bad_expression(expression: str) -> None:
    """An expression without a value is an error that names it."""
    with pytest.raises(ValueError, match="`"):
        numbers.value(expression, {"a": 1})
