"""Where an array differs from what is right: true in words, and to be seen in maps."""

import itertools
import json
import random
import re
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
import torch
from html_page import Page
from torch import Tensor

from grader import catalog, content
from grader.exam import difference
from grader.exam.checks import TOLERANCE, CheckFailed, Compared, close, near
from grader.exam.examiner import Examiner
from grader.exam.verdict import Difference, Maps, Verdict
from grader.practice.grading import Graded
from grader.views import difference as lines
from grader.views import difference_html
from grader.web import pages

Kata = Callable[..., "subprocess.CompletedProcess[str]"]
RTOL, ATOL = TOLERANCE[torch.float32]


def _compared(got: Tensor, want: Tensor, what: str = "the output") -> Difference | None:
    """What `near` would hand over."""
    with pytest.raises(CheckFailed) as failed:
        near(got, want, what=what, dtype=None)
    assert failed.value.compared is not None
    return difference.of(failed.value.compared)


def _words(got: Tensor, want: Tensor, what: str = "the output") -> str:
    found = _compared(got, want, what)
    assert found is not None
    return " ".join(found.words)


def _drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Words

WANT = _drawn(2, 5, 12)
FLAT = _drawn(6, 8, seed=1)
KNOWN = {
    "scale left out": (WANT / 2, WANT, "It is 0.5 times what is expected: one factor for all"),
    "sign flipped": (-WANT, WANT, "It has the wrong sign and the right size."),
    "constant": (WANT - 0.75, WANT, "It is 0.75 less than expected: one number for all"),
    "nothing there": (WANT * 0, WANT, "All 120 values differ. It is 0."),
    "zero expected": (WANT, WANT * 0, "All 120 values differ. It should be 0."),
    "bias missing": (
        WANT - _drawn(12, seed=2),
        WANT,
        "The difference is the same for every batch and token: it depends on feature alone.",
    ),
    "one head": (
        torch.cat([WANT[..., :4], 2 * WANT[..., 4:8], WANT[..., 8:]], -1),
        WANT,
        "40 of 120 values differ: just those of features 4 to 7 (of 12). "
        "What differs is 2 times what is expected: one factor for all of it.",
    ),
    "first token": (
        torch.cat([WANT[:, :1] + _drawn(2, 1, 12, seed=3), WANT[:, 1:]], 1),
        WANT,
        "24 of 120 values differ: just those of token 0 (of 5).",
    ),
    "one row of one batch": (
        WANT.index_put((torch.tensor(1), torch.tensor(2)), _drawn(12, seed=4)),
        WANT,
        "just those of batch 1 (of 2) and token 2 (of 5).",
    ),
    "rows turned": (FLAT.flip(0), FLAT, "with its rows in another order, the last first."),
    "rows shifted": (FLAT.roll(-2, 0), FLAT, "in another order: 2 comes first, and so on around."),
    "neighbours swapped": (
        FLAT[:, [1, 0, 3, 2, 5, 4, 7, 6]],
        FLAT,
        "with its features in another order, each two neighbours swapped.",
    ),
    "rows mixed": (FLAT[[3, 0, 1, 2, 5, 4]], FLAT, "another order: 3, 0, 1, 2, 5, 4."),
    "square transposed": (FLAT[:, :6].T, FLAT[:, :6], "It is what is expected, transposed."),
    "transposed": (FLAT.T, FLAT, "is (8, 6), expected (6, 8). It is what is expected, transposed."),
    "swapped": (
        WANT.transpose(1, 2),
        WANT,
        "It is what is expected, with token and feature swapped.",
    ),
    "flattened": (WANT.flatten(0, 1), WANT, "Its values are right and in the right order."),
    "each row": (
        FLAT * torch.tensor([0.5, 2, 3, 4, 5, 6.0])[:, None],
        FLAT,
        "Each row is off by a factor of its own, 0.5 to 6.",
    ),
    "NaN": (
        WANT.index_fill(1, torch.tensor(3), torch.nan),
        WANT,
        "just those of token 3 (of 5). What differs is NaN.",
    ),
    "infinite": (
        FLAT.index_put((torch.tensor(1), torch.tensor(1)), torch.tensor(torch.inf).double()) + 1,
        FLAT,
        "All 48 values differ. 1 of them is infinite.",
    ),
    "mask": (FLAT > 9, FLAT > 0, "There it is False."),
    "codes": (
        (FLAT * 4).round().long() + torch.tensor([1, -1] * 4),
        (FLAT * 4).round().long(),
        "None is off by more than 1.",
    ),
}


@pytest.mark.parametrize("case", KNOWN)
def test_what_is_known_is_said(case: str) -> None:
    """Each pattern in its words."""
    got, want, said = KNOWN[case]
    assert said in _words(got, want)


def test_nothing_is_said_without_evidence() -> None:
    """Two numbers have a factor, alike rows an order, noise a little of everything."""
    other = _drawn(2, 5, 12, seed=9)
    assert _words(other, WANT) == "All 120 values differ."
    assert _words(WANT[0, 0, :2] * 2, WANT[0, 0, :2]) == "All 2 values differ."
    alike = torch.ones(4, 6).double()
    assert "order" not in _words(alike * 2, alike)
    assert _words(torch.zeros(3, 4), torch.zeros(4, 3)) == "The shape is (3, 4), expected (4, 3)."
    near_by = WANT / 2 + 0.02 * other  # a factor, within 2%: a hundredth has to be explained
    assert _words(near_by, WANT) in ("All 120 values differ.", "119 of 120 values differ.")


def test_single_values_and_dtypes_have_no_difference() -> None:
    """A number's message says all; of a dtype that alone is wrong the values are right."""
    assert _compared(torch.tensor(1.0), torch.tensor(2.0)) is None
    with pytest.raises(CheckFailed) as failed:
        near(WANT, WANT, dtype=torch.float32)
    assert failed.value.compared is None


def _mistakes(want: Tensor, draw: random.Random) -> Iterator[Tensor]:
    """`want` with mistakes of many kinds, some in a part of it alone, and two at once."""
    noise = _drawn(*want.shape, seed=draw.randrange(999))
    axis = draw.randrange(want.ndim)
    size = want.shape[axis]
    order = torch.tensor(draw.sample(range(size), size))
    part = torch.zeros(size, dtype=torch.bool)
    part[draw.sample(range(size), draw.randint(1, size))] = True
    part = part.view(-1, *[1] * (want.ndim - axis - 1))
    whole = [
        want * draw.choice([0, -1, 0.5, 3, -2.5, 1e-3]),
        want + draw.choice([-1, 0.25, 1e3]),
        want.index_select(axis, order),
        want + noise * draw.choice([0.01, 1]),
        want + noise.narrow(axis, 0, 1),
        want * (noise.narrow(axis, 0, 1) + 3),
        want.abs(),
        want.relu(),
        noise,
        want.masked_fill(noise > 1, draw.choice([0, torch.nan, torch.inf])),
        want.round(),
    ]
    if want.ndim > 1:
        whole.append(want.transpose(-1, -2).reshape(want.shape))
    for wrong in whole:
        yield wrong
        yield torch.where(part, wrong, want)
        yield torch.where(part, wrong, want) * draw.choice([1, -1, 2])


NUMBER = r"(-?[\d.]+(?:e[-+]\d+)?)"


def _holds(sentence: str, got: Tensor, want: Tensor, axes: tuple[str, ...]) -> bool:
    """Whether a sentence is true of these arrays, looked at entry by entry."""
    allowed = ATOL + RTOL * float(want.abs().max())
    off = got - want
    wrong = ~(off.abs() <= allowed)
    there, right = got[wrong], want[wrong]
    scale = float(off[wrong].nan_to_num(posinf=0, neginf=0).abs().max())

    def alike(one: Tensor, other: Tensor | float, digits: float = 0.0) -> bool:
        return bool(((one - other).abs() <= 0.011 * scale + digits).all())

    if said := re.fullmatch(r"All (\d+) values? differ\.", sentence):
        return int(said[1]) == want.numel() == int(wrong.sum())
    if said := re.fullmatch(r"(\d+) of (\d+) values differs?(.*)\.", sentence):
        if (int(said[1]), int(said[2])) != (int(wrong.sum()), want.numel()):
            return False
        return not said[3] or _places(said[3], wrong, axes)
    if said := re.fullmatch(rf"(?:It|What differs) is {NUMBER} times .*", sentence):
        return alike(there, float(said[1]) * right, 1e-3 * float(there.abs().max()))
    if said := re.fullmatch(rf"(?:It|What differs) is {NUMBER} (more|less) than .*", sentence):
        shift = float(said[1]) * (1 if said[2] == "more" else -1)
        return alike(there, right + shift, 1e-3 * abs(shift))
    if sentence.endswith(" has the wrong sign and the right size."):
        return alike(there, -right)
    if re.fullmatch(r"(It|What differs) is 0\.", sentence):
        return alike(there, 0.0)
    if re.fullmatch(r"(It|What differs) should be 0\.", sentence):
        return alike(right, 0.0)
    if said := re.fullmatch(
        r"The difference is the same for every (.*): it .* (.*) alone\.", sentence
    ):
        along = [_axis(name, axes) for name in said[1].split(" and ")]
        return all(alike(off, off.mean(axis, keepdim=True)) for axis in along)
    if said := re.fullmatch(rf"Each (.*) is off by .* own, {NUMBER} to {NUMBER}\.", sentence):
        axis = _axis(said[1], axes)
        came, wants = (t.movedim(axis, 0).flatten(1) for t in (got, want))
        factors = [float(a @ b / (b @ b)) for a, b in zip(came, wants)]
        ends = (
            torch.tensor([min(factors), max(factors)]),
            torch.tensor([float(said[2]), float(said[3])]),
        )
        return torch.allclose(*ends, 1e-2, 1e-3) and all(
            alike(a, f * b) for a, f, b in zip(came, factors, wants)
        )
    if sentence == "It is what is expected, transposed.":
        return alike(got, want.T)
    if said := re.fullmatch(r"It is what is expected with (.*) and (.*) swapped\.", sentence):
        return alike(got, want.transpose(axes.index(said[1]), axes.index(said[2])))
    if said := re.fullmatch(
        r"It is what is expected with its (.*?) in another order(.*)\.", sentence
    ):
        axis = _axis(said[1], axes)
        return alike(got, want.index_select(axis, _order(said[2], got, want, axis)))
    if said := re.fullmatch(r"(\d+) of them (?:is|are) (NaN|infinite|NaN or infinite)\.", sentence):
        return int(said[1]) == int((~torch.isfinite(there)).sum()) < len(there)
    if re.fullmatch(r"(?:It|What differs) is (NaN|infinite|NaN or infinite)\.", sentence):
        return not bool(torch.isfinite(there).any())
    raise AssertionError(f"a sentence that no test knows: {sentence}")


def _axis(noun: str, axes: tuple[str, ...]) -> int:
    """Which axis a noun, or its plural, stands for."""
    name = re.sub("^ind(ex|ices) of ", "", noun)
    return axes.index({"batches": "batch", "indices": "index"}.get(name, name.removesuffix("s")))


def _order(said: str, got: Tensor, want: Tensor, axis: int) -> Tensor:
    size = want.shape[axis]
    if said == ", the last first":
        return torch.arange(size).flip(0)
    if said == ", each two neighbours swapped":
        return torch.arange(size) ^ 1
    if shift := re.fullmatch(r": (\d+) comes first, and so on around", said):
        return (torch.arange(size) + int(shift[1])) % size
    if said:
        return torch.tensor([int(at) for at in said.removeprefix(": ").split(", ")])
    came, right = (t.movedim(axis, 0).reshape(size, -1) for t in (got, want))
    return torch.cdist(came, right).argmin(1)


def _places(said: str, wrong: Tensor, axes: tuple[str, ...]) -> bool:
    """Whether what differs is all in these places, and is all of them where that is said."""
    inside = torch.ones_like(wrong)
    for one in re.split(
        r"(?<=\)) and |(?<= dim \d) and ",
        said.partition(" those of ")[2] or said.partition(" in ")[2],
    ):
        words = re.fullmatch(r"(.*) \(of (\d+)\)(?: in (dim \d))?", one)
        assert words is not None, said
        noun = re.match(r"(?:all but |every second )?(\w+)", words[1])
        assert noun is not None, said
        axis = _axis(words[3] or noun[1], axes)
        size = wrong.shape[axis]
        assert int(words[2]) == size
        numbers = [int(n) for n in re.findall(r"\b\d+\b", words[1])]
        if "all but" in words[1]:
            numbers = [at for at in range(size) if at not in numbers]
        elif " to " in words[1]:
            step = 2 if "every second" in words[1] else 1
            numbers = list(range(numbers[0], numbers[1] + 1, step))
        here = torch.zeros(size, dtype=torch.bool)
        here[numbers] = True
        others = [a for a in range(wrong.ndim) if a != axis]
        if here.tolist() != (wrong.any(dim=others) if others else wrong).tolist():
            return False
        inside &= here.view(-1, *[1] * (wrong.ndim - axis - 1))
    exactly = "just those of" in said
    return (
        bool((wrong == inside).all())
        if exactly
        else bool((inside | ~wrong).all()) and not bool((wrong == inside).all())
    )


@pytest.mark.parametrize("seed", range(25))
def test_what_is_said_is_true(seed: int) -> None:
    """Of arrays of any shape with mistakes of any kind."""
    draw = random.Random(seed)
    axes_ = draw.randint(1, 4)
    shape = [draw.choice([1, 2, 3, 4, 5, 7, 12, 20][: 9 - axes_]) for _ in range(axes_)]
    want = _drawn(*shape, seed=seed)
    if draw.random() < 0.2:
        want = want.round()
    for got in _mistakes(want, draw):
        off = ATOL + RTOL * float(want.abs().max())
        found = difference.of(Compared("values", got, want, off))
        if found is None:  # nothing differs, or the mistake has hit a single value
            assert close(got, want, RTOL, ATOL) or want.numel() == 1
            continue
        assert found.maps is not None
        axes = tuple(name for name, _ in found.maps.worst)
        for sentence in found.words:
            assert _holds(sentence, got, want, axes), (seed, sentence)
        _agrees(found.maps, got, want, off)


# Maps


def _agrees(maps: Maps, got: Tensor, want: Tensor, allowed: float) -> None:
    """The maps show the plane with the largest difference, and of each cell the worst entry."""
    wrong = ~((got - want).abs() <= allowed)
    off = torch.where(wrong, (got - want).abs(), 0.0)
    off = torch.where(off.isnan(), torch.inf, off)
    worst = tuple(at for _, at in maps.worst)
    assert off[worst] == off.max()
    planes = [t[worst[:-2]] if t.ndim > 1 else t for t in (got, want, off, wrong)]
    down, across = maps.starts
    assert max(len(down), len(across)) <= 16
    span = maps.cell
    for y, x in itertools.product(range(len(down)), range(len(across))):
        if got.ndim == 1:
            at = (slice(down[y] + across[x], down[y] + across[x] + span[1]),)
        else:
            at = slice(down[y], down[y] + span[0]), slice(across[x], across[x] + span[1])  # type: ignore[assignment]
        came, right, far, amiss = (plane[at].reshape(-1) for plane in planes)
        signs = maps.got[y][x], maps.expected[y][x], maps.off[y][x]
        if not len(far):
            assert signs == (" ", " ", " ")
            continue
        chosen = int(far.argmax())
        assert (signs[2] == "0") == (not bool(amiss.any()))
        assert (signs[2] == "x") == bool(far[chosen].isinf())
        for sign, value in ((signs[0], float(came[chosen])), (signs[1], float(right[chosen]))):
            assert sign == "x" or maps.low <= value <= maps.high
            if sign != "x" and maps.high > maps.low:
                share = (value - maps.low) / (maps.high - maps.low)
                assert abs(share - (int(sign) + 0.5) / 8) <= 0.51 / 8
        if signs[2] in "1234":
            assert float(far[chosen]) <= int(signs[2]) / 4 * maps.largest * (1 + 1e-9)
    row, column = maps.peak
    assert maps.off[row][column] in "4x"


@pytest.mark.parametrize(
    "shape", [(2,), (16,), (17,), (256,), (257,), (5000,), (1, 2), (16, 17), (40, 3), (700, 900)]
)
def test_maps_are_small_and_show_the_worst(shape: tuple[int, ...]) -> None:
    """Of arrays of any size: at most 16 by 16 cells, two kilobytes."""
    want = _drawn(*shape)
    got = want.clone()
    got.view(-1)[want.numel() * 2 // 3] += 5
    found = difference.of(Compared("the output", got, want))
    assert found is not None
    assert found.maps is not None
    _agrees(found.maps, got, want, 0.0)
    assert len(msgspec.json.encode(found)) < 2048
    assert sum(row.count("4") for row in found.maps.off) == 1


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e300])
def test_maps_of_any_size_of_number(size: float) -> None:
    want = WANT[0] * size
    found = difference.of(Compared("the output", -want, want))
    assert found is not None
    assert found.maps is not None
    _agrees(found.maps, -want, want, 0.0)


@pytest.mark.parametrize("seed", range(10))
def test_arrays_of_every_kind_are_shown(seed: int) -> None:
    """Empty, of other shapes, of any dtype, NaN where it is expected: each page is made, and what
    is stored is read again."""
    draw = random.Random(seed)

    def drawn(shape: list[int]) -> Tensor:
        values = _drawn(*shape, seed=draw.randrange(99)) * draw.choice([0, 1e-30, 1, 50, 1e38])
        odd = _drawn(*shape, seed=draw.randrange(99)) > draw.choice([1, 9])
        values = values.masked_fill(odd, draw.choice([torch.nan, torch.inf, -torch.inf]))
        whole = torch.int8, torch.uint8, torch.int64, torch.bool
        if (dtype := draw.choice([torch.float16, torch.bfloat16, torch.float64, *whole])) in whole:
            values = values.nan_to_num(0, 0, 0).clamp(0, 100)
        return values.to(dtype)

    for _ in range(40):
        shapes = [[draw.choice([0, 1, 2, 3, 17]) for _ in range(draw.randint(0, 4))] for _ in "ab"]
        got, want = drawn(shapes[0]), drawn(shapes[draw.random() < 0.2])
        what = draw.choice(["the output", "", "`a.weight` of \x1b[31m"])
        found = difference.of(Compared(what, got, want, draw.choice([0, 1e-3])))
        if found is not None:
            assert msgspec.json.decode(msgspec.json.encode(found), type=Difference) == found
            assert "\x1b" not in "".join(lines.lines(found, 60, False))
            assert len(difference_html.maps(found)) == (0 if found.maps is None else 3)
    assert difference.of(Compared("it", WANT, WANT * 1j)) is None


def test_axes_have_names() -> None:
    """By what the check calls the array, and how many there are."""

    def names(what: str, *shape: int) -> list[str]:
        found = difference.of(Compared(what, _drawn(*shape) + 1, _drawn(*shape)))
        assert found is not None
        assert found.maps is not None
        return [name for name, _ in found.maps.worst]

    assert names("the output for x (2, 3)", 2, 3, 4) == ["batch", "token", "feature"]
    assert names("the gradient of lora_A (train mode)", 3, 4) == ["rank", "in"]
    assert names("the gradient to the input", 3, 4) == ["row", "feature"]
    assert names("`base.weight` after to_linear()", 3, 4) == ["out", "in"]
    assert names("the output", 2, 2, 3, 4) == ["dim 0", "dim 1", "dim 2", "feature"]
    assert names("something", 2, 3) == ["row", "column"]
    given = Compared("codes", _drawn(2, 3) + 1, _drawn(2, 3), axes=("block", "value"))
    found = difference.of(given)
    assert found is not None
    assert "block down, value across" in lines.where(found)


# In a verdict


@pytest.fixture(scope="module")
def examiner() -> Iterator[Examiner]:
    with Examiner(differences=True) as made:
        yield made


@cache
def _wrong(slug: str, bug: str) -> bytes:
    known = catalog.entry(slug).known(bug)
    assert known is not None
    return catalog.planted(slug, known, content.solution(slug).read_text()).encode()


SHOWN = {
    ("lora_linear", "scale-missing"): ["All 60 values differ.", "row down, feature across"],
    ("numpy_lora", "merged-delta-transposed"): ["It is what is expected, transposed."],
    ("ia3_linear", "bias-dropped"): ["The difference is the same for every row"],
    ("nf4_quantize", "nibbles-swapped"): [
        "each two neighbours swapped",
        "block down, value across",
    ],
    ("prefix_tuning", "causal-ignored"): ["all of them in tokens 0 to 5 (of 7)", "token down"],
    ("learnable_prefix", "prefix-after-content"): ["in another order: ", "comes first"],
    ("multi_lora_batch", "minus-one-drops-base"): ["What differs is 0."],
    ("segmented_lora", "order-inverted"): ["token, in lines"],
}


@pytest.mark.slow
@pytest.mark.parametrize(("slug", "bug"), SHOWN)
def test_a_verdict_shows_where_it_differs(examiner: Examiner, slug: str, bug: str) -> None:
    """Of katas of all kinds: the first failures, and the page in the browser with them."""
    verdict = examiner.grade(slug, _wrong(slug, bug), seed=7)
    shown = [check for check in verdict.checks if check.difference is not None]
    assert shown
    assert len(shown) <= 4
    text = " ".join(
        " ".join([*check.difference.words, lines.where(check.difference)])
        for check in shown
        if check.difference is not None
    )
    for words in SHOWN[slug, bug]:
        assert words in text
    kept = msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict)
    assert kept == verdict
    _is_drawn(verdict)


def _is_drawn(verdict: Verdict) -> None:
    """Each difference in the browser: three maps, whose label is the finding."""
    html = pages.verdict(Graded(verdict))
    page = Page(html)
    assert not page.open
    assert not any("style" in attributes for _, attributes in page.tags)
    shown = [check.difference for check in verdict.checks if check.difference is not None]
    figures = re.findall(r"<figure .*?</figure>", html, re.DOTALL)
    assert len(figures) == len(shown)
    for figure in figures:
        root = ElementTree.fromstring(figure)
        caption = root.find("figcaption")
        assert caption is not None
        found = next(d for d in shown if " ".join(d.words) == (caption.text or "").strip())
        maps = [*root.iter("svg")]
        assert len(maps) == (0 if found.maps is None else 3)
        if found.maps is None:
            continue
        for drawn, rows in zip(maps, (found.maps.expected, found.maps.got, found.maps.off)):
            cells = "".join(path.get("d", "") for path in drawn.iter("path")).count("M")
            scale = 5 if drawn is maps[-1] else 8
            assert cells == sum(len(row.replace(" ", "")) for row in rows) + scale
            assert drawn.get("role") == "img"
        assert " ".join(found.words) in (maps[-1].get("aria-label") or "")
        assert len(figure) < 40_000


def test_others_files_show_none() -> None:
    """An examiner that is not asked for it, as that of `kata grade` is not, tells no value."""
    with Examiner() as examiner:
        verdict = examiner.grade("lora_linear", _wrong("lora_linear", "scale-missing"), seed=7)
    assert all(check.difference is None for check in verdict.checks)
    assert b"difference" not in verdict.as_json().replace(b"largest difference", b"")


def test_verdicts_of_before_are_read() -> None:
    """What was stored without differences loads as it is."""
    old = {"name": "a", "part": "forward", "outcome": "failed", "message": "no", "bug": None}
    stored = {"slug": "s", "seed": 1, "seconds": 0.5, "checks": [old]}
    verdict = msgspec.json.decode(json.dumps(stored), type=Verdict)
    assert verdict.checks[0].difference is None
    assert "difference" not in json.loads(verdict.as_json())["checks"][0]


# Through the command


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str, str], str]:
    def make(slug: str, bug: str) -> str:
        path = tmp_path / f"{bug}.py"
        path.write_bytes(_wrong(slug, bug))
        return str(path)

    return make


@pytest.mark.slow
@pytest.mark.parametrize(("columns", "terminal"), [("60", "xterm"), ("80", "dumb")])
def test_more_shows_maps(
    kata: Kata, file: Callable[[str, str], str], columns: str, terminal: str
) -> None:
    """In 60 columns as in 80, without a terminal, colours or Unicode."""
    path = file("nf4_quantize", "sign-lost")
    asked = ("run", "nf4_quantize", "--file", path, "--seed", "7", "--check", "any_shape", "--more")
    done = kata(*asked, COLUMNS=columns, TERM=terminal, NO_COLOR="1")
    assert done.returncode == 1
    page = done.stdout
    assert "\x1b" not in page
    assert all(len(line) <= int(columns) for line in page.splitlines())
    signs = "▁▂▃▄▅▆▇█·░▒▓" if terminal == "xterm" else "1234567#-.oO"
    if terminal == "dumb":
        assert page.isascii()
    assert re.search("expected +got +difference\n", page)
    rows = re.findall(
        rf"^ +\d+  ([{signs}]{{16}})  ([{signs}]{{16}})  ([{signs}]{{16}})$", page, re.M
    )
    assert len(rows) == 16
    assert all((a == b) == (c in "·-") for row in rows for a, b, c in zip(*row))
