"""What is checked of `nf4_quantize`. Contract: QLoRA (Dettmers et al. 2023), sections 2 and 3."""

import math
from functools import partial

import torch
from torch.nn import functional as F

from grader.exam.checks import (
    LearnerRaised,
    Raised,
    blame,
    fail,
    near,
    part,
    rejects,
    require,
    tensor,
)
from grader.exam.kit import count, nn
from grader.suites.shared import quantizers
from grader.suites.shared.quantizers import (
    LEVELS,
    MIDDLES,
    by_keyword,
    dtype_name,
    in_blocks,
    largest,
    naming,
    nearest,
)

HALVES = torch.bfloat16, torch.float16


# What is right, and what known mistakes give


def encode(flat, size, top=largest, pick=nearest):
    """The level's index of each value, of those that fill the last block too, and absmax."""
    values, absmax = quantizers.scaled(flat, size, top)
    return pick(values).clamp(0, 15), absmax


def packed(indices, pad=7):
    """Two indices to a byte, the earlier one high."""
    pairs = F.pad(indices, (0, len(indices) % 2), value=pad).view(-1, 2)
    return pairs[:, 0] * 16 + pairs[:, 1]


def unpack(codes, n):
    """Indices 0..15 from packed codes."""
    codes = codes.long()
    return torch.stack([codes >> 4, codes & 15], 1).reshape(-1)[:n]


def swapped(codes):
    return codes % 16 * 16 + codes // 16


def encoded(weight, size):
    """codes and absmax as they should be."""
    indices, absmax = encode(weight.double().reshape(-1), size)
    return packed(indices[: weight.numel()]).to(torch.uint8), absmax.float()


def mistakes(weight, size):
    """Bug id -> codes and absmax that it gives."""
    flat = weight.double().reshape(-1)
    n, width = len(flat), weight.shape[-1] if weight.ndim else 1
    whole, absmax = encode(flat, size)
    indices = whole[:n]
    first, second = F.pad(indices, (0, n % 2), value=7).view(2, -1)
    rows = [encode(row, size) for row in flat.view(-1, width)]
    by_rows = torch.cat([row[:width] for row, _ in rows])
    columns = weight.double().permute(tuple(range(weight.ndim))[::-1]).reshape(-1)

    def other(flat=flat, size=size, **how):
        made, top = encode(flat, size, **how)
        return packed(made[:n]), top

    return {
        "nibbles-swapped": (swapped(packed(indices)), absmax),
        "halves-packed": (first * 16 + second, absmax),
        "sign-lost": other(flat.abs()),
        "odd-value-dropped": (packed(indices[: n - n % 2]), absmax),
        "not-packed": (indices, absmax),
        "odd-tail-padded-with-zero": (packed(indices, pad=0), absmax),
        "padding-kept": (packed(whole), absmax),
        "rounds-down": other(pick=lambda v: torch.searchsorted(LEVELS, v, right=True) - 1),
        "rounds-up": other(pick=lambda v: torch.searchsorted(LEVELS, v)),
        "max-without-abs": other(top=lambda blocks: blocks.amax(1)),
        "one-absmax-for-all": other(top=quantizers.overall),
        "flattened-by-columns": other(columns),
        "flattened-as-stored": other(weight.as_strided((n,), (1,)).double()),
        "blocks-by-rows": (packed(by_rows), torch.cat([top for _, top in rows])),
        "block-size-ignored": other(size=64),
    }


def named(got, weight, size):
    """The one known mistake that gives this, or None."""
    codes, absmax = got[0].double(), got[1].double().reshape(-1)
    known = mistakes(weight, size)
    if not weight.is_contiguous():
        # It shows with contiguous weights; here it may be the same as stored.
        del known["flattened-by-columns"]
    if codes.numel() and float(codes.view(-1)[-1]) == 0:
        # The tail may have been padded with the code before it.
        del known["odd-tail-padded-with-zero"]
    if absmax.numel() == 1:
        wrong, top = known["one-absmax-for-all"]
        known["one-absmax-for-all"] = wrong, top[:1]
    return quantizers.only(
        bug
        for bug, (wrong, top) in known.items()
        if wrong.shape == codes.shape and top.shape == absmax.shape
        if torch.equal(wrong.double(), codes) and _ratio(absmax, top) < 1e-4
    )


def _ratio(got, want):
    """The largest relative difference; where zero is right anything else counts as infinite."""
    got = got.double()
    off = torch.where(got == want, 0.0, (got / want - 1).abs())
    return float(off.nan_to_num(nan=math.inf).max()) if off.numel() else 0.0


def weights(codes, absmax, shape, size):
    """What they stand for, float64."""
    n = math.prod(shape)
    return (LEVELS[unpack(codes, n)] * quantizers.per_value(absmax, size, n)).reshape(shape)


def slips(codes, absmax, shape, size):
    """What known mistakes make of the decoded weight."""
    n = math.prod(shape)
    chosen = LEVELS[unpack(codes, n)]
    known = {
        "nibbles-swapped": weights(swapped(codes), absmax, shape, size),
        "absmax-not-applied": chosen.reshape(shape),
    }
    if len(shape) != 1:
        known["decoded-flat"] = weights(codes, absmax, (n,), size)
    ids = {"tiled": "absmax-tiled", "one": "one-absmax-for-all"}
    for bug, scales in quantizers.misplaced(absmax, size, n, block=64, **ids).items():
        known[bug] = (chosen * scales).reshape(shape)
    return known


# Judging


def pair(got):
    """codes and absmax as quantize_nf4 returned them."""
    return quantizers.returned(got, ("codes", "absmax"), "quantize_nf4")


def judge(stage, got, weight, size, what):
    """codes and absmax have the right sizes and values; names a known mistake."""
    got = codes, absmax = pair(got)

    def mistake():
        _table_first(stage)
        turned = _fine((absmax, codes), weight, size)
        return "results-swapped" if turned else named(got, weight, size)

    with naming(mistake):
        _judge(codes, absmax, weight.double().reshape(-1), size, what)


def _table_first(stage):
    """Where values are wrong, the levels themselves are looked at first."""
    levels = stage.attempt(table)
    if not isinstance(levels, Raised):
        _levels_right(levels)


def _fine(got, weight, size):
    """Whether this, or what an attempt gave, is right."""
    flat = weight.double().reshape(-1)
    return quantizers.holds(lambda: _judge(*pair(got), flat, size, ""))


def _judge(codes, absmax, flat, size, what):
    n, blocks = len(flat), in_blocks(flat, size)
    pairs = math.ceil(n / 2)
    column = codes.shape == (pairs,) and absmax.shape == (len(blocks), 1)
    bug = "absmax-keeps-a-dimension" if column else None
    quantizers.lengths(what, n, bug, codes=(codes, pairs), absmax=(absmax, len(blocks)))
    top = largest(blocks)
    zeros = top == 0
    blank = absmax.double()[zeros]
    alike = len(blank) > 1 and bool((blank == blank[0]).all())  # a constant put in their place
    wrong = blank[blank != 0].tolist() or [0.0]
    require(
        wrong == [0.0],
        f"{what}: the absmax of a block of zeros is {wrong[0]:.3g}, expected 0",
        "zero-block-absmax" if alike and _ratio(absmax[~zeros], top[~zeros]) < 1e-4 else None,
    )
    off = _ratio(absmax, top)
    if not off < 1e-4:
        fine = ((absmax.double() - top).abs() < 1e-4 * top) | (absmax.double() == top)
        seen = quantizers.compared("absmax", absmax.double(), top, fine, 1)
        fail(f"{what}: absmax is off by up to {off:.2g} of its value", compared=seen)
    whole = bool(((codes.double() >= 0) & (codes.double() <= 255)).all())
    require(whole, f"{what}: codes must be bytes, 0 to 255")
    chosen, scale = LEVELS[unpack(codes, n)], quantizers.per_value(top, size, n)
    v = flat / scale.clamp(min=1e-300)
    excess = (v - chosen).abs() - (v[:, None] - LEVELS).abs().amin(1)
    excess = torch.where(scale > 0, excess, 0.0)
    at = quantizers.worst(excess)
    if not float(excess[at]) <= 1e-5:
        fine = excess <= 1e-5
        seen = quantizers.compared("the codes", unpack(codes, n), nearest(v), fine, size)
        fail(
            f"{what}: value {at} is {float(v[at]):.6f} of its block's absolute maximum and was "
            f"given level {float(chosen[at]):.6f}; {float(LEVELS[nearest(v[at])]):.6f} is nearer",
            compared=seen,
        )
    if n % 2 and bool(scale[-1] > 0):
        last = int(codes[-1].item()) & 15
        require(last == 7, f"{what}: the odd tail is padded with code {last}, expected 7 (0.0)")


def restored(stage, got, stored, size, what, **more):
    """The decoded weight is right; names a known mistake."""
    codes, absmax, shape = stored
    with naming(lambda: _table_first(stage)):
        given = codes, absmax, tuple(shape), size
        near(got, weights(*given), what=what, unless=partial(slips, *given), **more)


# Inputs


def quantized(kata, weight, *size):
    return kata.quantize_nf4(weight, *size)


def decoded(kata, codes, absmax, shape, *rest):
    return kata.dequantize_nf4(codes, absmax, shape, *rest)


NF4 = quantizers.Quantizer(
    noun="a weight",
    names=("codes", "absmax"),
    forth=quantized,
    back=decoded,
    judge=judge,
    restored=restored,
    block=64,
    more=lambda weight: (tuple(weight.shape),),
)


def spread(draw, *shape, size):
    """Values whose blocks (of `size`) have rather different absolute maxima."""
    n = math.prod(shape)
    blocks = math.ceil(n / size)
    scale = 4.0 ** draw.integers(-3, 3, blocks).float() * (1 + 0.3 * draw(blocks).abs())
    return (draw(n) * scale.repeat_interleave(size)[:n]).reshape(shape)


def hard(draw, count, scale=1.0):
    """Blocks of 64 that hold every level, and values just beside every midpoint."""
    rows = []
    for _ in range(count):
        edge = torch.cat([MIDDLES - 2e-5, MIDDLES + 2e-5, LEVELS])
        fill = draw(64 - len(edge), std=0.4, dtype=torch.float64).clamp(-1, 1)
        row = torch.cat([edge, fill])[torch.randperm(64, generator=draw.generator)]
        rows.append(row * scale * float(1 + draw(1).abs()))
    return torch.cat(rows)


def random_codes(draw, shape, size):
    """Codes of a shape, and an absmax for each block; nothing about them repeats."""
    n = math.prod(shape)
    codes = draw.integers(0, 256, math.ceil(n / 2))
    if n % 2:
        codes[-1] = codes[-1] // 16 * 16 + 7
    absmax = 2.0 ** draw.integers(-3, 4, math.ceil(n / size)).float()
    return codes.to(torch.uint8), absmax * (1 + draw(len(absmax)).abs()), shape


# shape


@part("shape")
def test_any_shape(stage, draw):
    """A weight of any shape is flattened in row order into blocks, whatever its rows are."""
    matrices = ((8, 32), 16), ((12, 24), 16), ((30, 8), 24), ((1, 96), 24), ((96, 1), 24)
    for shape, size in (*matrices, ((6, 5, 8), 24), ((2, 3, 4, 10), 24), ((96,), 32)):
        bug = "matrices-only" if len(shape) != 2 else None
        NF4.quantizes(stage, spread(draw, *shape, size=size), size, bug=bug)


@part("shape")
def test_last_block_may_be_short(stage, draw):
    """The last block may be short, and the only block too."""
    NF4.quantizes(stage, spread(draw, 8, 32, size=16), 16)
    for shape, size in (((6, 7), 16), ((5, 6), 8), ((5, 13), 16)):
        NF4.quantizes(stage, spread(draw, *shape, size=size), size, bug="short-block-fails")
    NF4.quantizes(stage, draw(6), 64)


@part("shape")
def test_odd_numbers_of_values(stage, draw):
    """Two codes share a byte also where a block's size or the number of values is odd."""
    even = ((6, 7), 16), ((6, 7), 7)
    for shape, size in (*even, ((5, 7), 16), ((3, 3, 3), 6), ((5, 7), 5), ((3, 5), 1)):
        NF4.quantizes(stage, spread(draw, *shape, size=size), size)


@part("shape")
def test_a_single_value(stage, draw):
    """A 0-dimensional weight, and a weight of one value, are one block."""
    for value in (draw(1), draw(1, 1), draw()):
        NF4.quantizes(stage, value, bug=None if value.ndim else "single-value-fails")
        back = stage(decoded, *encoded(value, 64), tuple(value.shape))
        what = f"a weight {tuple(value.shape)}, decoded"
        near(back, value.double(), what=what, rtol=1e-5)


def strided(weight):
    """Views of a weight (12, 20) that are not contiguous, and one in another memory format."""
    lines, cube, image = weight.reshape(-1), weight.view(4, 6, 10), weight.view(2, 3, 5, 8)
    turned = image.contiguous(memory_format=torch.channels_last)
    views = weight.transpose(0, 1), weight[:, ::2], cube.permute(2, 0, 1), turned
    return *views, lines[1::2], weight[3:4].expand(5, 20)


@part("shape")
def test_non_contiguous_weight(stage, draw):
    """A weight that is not contiguous is flattened in the row order of its indices."""
    for dtype in (torch.float32, torch.bfloat16):
        weight = spread(draw, 12, 20, size=8).to(dtype)
        NF4.takes_views(stage, weight, strided, 16, "view-of-strided-weight")


def decoded_to_size(kata, codes, absmax, like, *rest):
    return kata.dequantize_nf4(codes, absmax, like.shape, *rest)


@part("shape")
def test_decodes_to_any_shape(stage, draw):
    """dequantize_nf4 gives a weight of `shape`: any shape, odd sizes and short blocks too."""
    for shape, size in (((8, 32), 16), ((6, 5, 8), 24), ((6, 7), 16), ((5, 7), 5), ((3, 3, 3), 4)):
        codes, absmax, _ = random_codes(draw, shape, size)
        what = f"the decoded weight {shape} in blocks of {size}"
        for form in (shape, list(shape)):
            NF4.decodes(stage, (codes, absmax, form), size, what=what)
        got = stage(decoded_to_size, codes, absmax, torch.empty(shape), size)
        restored(stage, got, (codes, absmax, shape), size, what)


# init


def table(kata):
    return kata.nf4_codebook()


@part("init")
def test_codebook(stage):
    """nf4_codebook() is float32 (16,), ascending from -1 to 1, with an exact 0 at index 7."""
    levels = tensor(stage(table), "nf4_codebook()")
    _levels_right(levels)
    text = f"nf4_codebook() is {dtype_name(levels.dtype)}, expected float32"
    known = "codebook-not-float32" if levels.dtype == torch.float64 else None
    require(levels.dtype == torch.float32, text, known)


def _levels_right(levels):
    what = "nf4_codebook()"
    levels = tensor(levels, what)
    shape = tuple(levels.shape)
    require(shape == (16,), f"{what} has shape {shape}, expected (16,)")
    known = {
        "codebook-sides-swapped": -LEVELS.flip(0),
        "codebook-not-normalised": LEVELS * torch.special.ndtri(torch.tensor(0.9677083).double()),
    }
    values = levels.double()
    bug = _table_bug(values)
    near(levels, LEVELS, what=what, dtype=None, rtol=0.0, atol=1e-6, unless=known, bug=bug)
    require(float(values[0]) == -1, f"{what} should begin with exactly -1")
    require(float(values[15]) == 1, f"{what} should end with exactly 1")
    require(float(values[7]) == 0, f"{what} should hold exactly 0 at index 7", "zero-not-exact")


def _table_bug(values):
    """The mistake that a table shows by what it is like."""
    if not bool(torch.isfinite(values).all()):
        return None
    steps = values[1:] - values[:-1]
    if float((steps - steps.mean()).abs().max()) < 1e-3 * float(steps.mean().abs()):
        return "codebook-uniform"
    if float(values.abs().min()) > 1e-3:
        return "codebook-without-zero"
    for tail in (1 - 1 / 32, 1 - 1 / 30, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995, 0.999):
        if torch.allclose(values, _quantiles(tail), 0.0, 1e-6):
            return "codebook-other-offset"
    off = (values - LEVELS).abs() > 1e-6
    if int(off.sum()) == 1:
        return "codebook-one-level-off"
    short = torch.stack([LEVELS.round(decimals=places) for places in (2, 3, 4, 5)])
    typed = ((values - short).abs() <= 1e-6).any(0)
    return "codebook-rounded" if bool(typed[off].all()) else None


def _quantiles(offset):
    """The table with another probability at its ends."""
    low = torch.special.ndtri(torch.linspace(offset, 0.5, 8, dtype=torch.float64))
    high = torch.special.ndtri(torch.linspace(offset, 0.5, 9, dtype=torch.float64))
    return torch.cat([-low, high.flip(0)[1:]]) / high[0]


# forward


@part("forward")
def test_nearest_level(stage, draw):
    """Each value over its block's absolute maximum is given a nearest level."""
    NF4.quantizes(stage, hard(draw, 4).float().reshape(16, 16), 64)
    for top in (-3.0, 3.0):  # the largest entry has this sign in every block
        weight = draw(6, 48).clamp(-2.5, 2.5)
        weight.view(-1)[5::32] = top * (1 + draw(9).abs())
        NF4.quantizes(stage, weight, 32, what=f"a weight down or up to {top}")


@part("forward")
def test_blocks_of_every_scale(stage, draw):
    """Blocks are independent: large and small ones stand side by side."""
    scales = [1.0, 1e-6, 300.0, 1e-3, 1e-10, 1e4]
    rows = [hard(draw, 1, scale).float() for scale in scales]
    weight = torch.cat(rows).reshape(16, 24)
    got = stage(quantized, weight, 64)

    def mistake():
        codes, absmax = pair(got)
        if codes.shape != (192,) or absmax.shape != (6,):
            return None
        each = zip(codes.split(32), absmax.split(1), rows)
        right = [_fine((code, top), row, 64) for code, top, row in each]
        # The largest are right, and from some size down none is.
        ranked = [right[at] for at in sorted(range(6), key=lambda at: -scales[at])]
        falls = all(ranked[:3]) and ranked == sorted(ranked, reverse=True)
        return "absmax-with-epsilon" if falls else None

    with naming(mistake):
        judge(stage, got, weight, 64, "a weight of blocks 1e-10 to 1e4")


@part("forward")
def test_block_size(stage, draw):
    """block_size is the number of values that share one absmax, 64 by default."""
    weight = spread(draw, 12, 40, size=8)
    for size in (8, 24, 48, 64, 128):
        NF4.quantizes(stage, weight, size)
    large = spread(draw, 90, 100, size=1024)
    for size in (1024, 4096, 9000, 10**5):
        NF4.quantizes(stage, large, size)
    NF4.quantizes(stage, weight)
    got = stage(by_keyword, "quantize_nf4", {"block_size": 24, "weight": weight})
    judge(stage, got, weight, 24, "with block_size=24 by keyword")


@part("forward")
def test_many_blocks(stage, draw):
    """A weight of 2,000 blocks, there and back."""
    NF4.quantizes(stage, spread(draw, 200, 80, size=8), 8)
    NF4.decodes(stage, random_codes(draw, (200, 80), 8), 8)


def of_parameter(kata, weight, size):
    parameter = nn.Parameter(weight.clone())
    codes, absmax = kata.quantize_nf4(parameter, size)
    back = kata.dequantize_nf4(codes, absmax, parameter.shape, size)
    return (codes, absmax), back, parameter.requires_grad


@part("forward")
def test_weight_that_requires_a_gradient(stage, draw):
    """A Parameter is quantized like any tensor, and goes on requiring a gradient."""
    weight = spread(draw, 8, 20, size=16)
    NF4.quantizes(stage, weight, 16)
    NF4.round_trip(stage, weight, 16)
    with blame("gradient-refused", "detach()", "automatic differentiation"):
        got, back, flag = stage(of_parameter, weight, 16)
    judge(stage, got, weight, 16, "a Parameter")
    near(back, weights(*encoded(weight, 16), (8, 20), 16), what="a Parameter, there and back")
    require(flag, "the Parameter no longer requires a gradient")


@part("forward")
def test_blocks_of_zeros(stage, draw):
    """A block of zeros has absmax 0 and decodes to zeros; its neighbours are not affected."""
    weight = spread(draw, 6, 32, size=32)
    NF4.quantizes(stage, weight, 32)
    weight[1] = weight[5] = 0
    blank = torch.zeros(3, 11)
    for sample in (weight, torch.zeros(5, 10), blank, blank.bfloat16(), blank.half()):
        got = stage(quantized, sample, 32)
        judge(stage, got, sample, 32, "a weight with blocks of zeros")
        stored = *pair(got), tuple(sample.shape)
        zeros = stage(decoded, *stored, 32)
        near(zeros, weights(*stored, 32), what="the decoded weight")
        exact = bool((zeros[sample == 0] == 0).all())
        require(exact, "a block of zeros does not decode to zeros")


@part("forward")
def test_decodes_level_times_absmax(stage, draw):
    """dequantize_nf4 gives level times absmax, whatever wrote the codes."""
    cases = ((12, 40), 16), ((7, 64), 64), ((16, 32), 128), ((90, 100), 4096), ((10, 10), 128)
    for shape, size in cases:
        NF4.decodes(stage, random_codes(draw, shape, size), size)
    NF4.decodes(stage, random_codes(draw, (9, 32), 64))
    codes, absmax, shape = stored = random_codes(draw, (9, 32), 24)
    given = {"dtype": torch.float32, "codes": codes, "absmax": absmax, "shape": shape}
    got = stage(by_keyword, "dequantize_nf4", {"block_size": 24, **given})
    restored(stage, got, stored, 24, "the weight decoded by keyword")


@part("forward")
def test_zero_absmax_decodes_to_zeros(stage, draw):
    """A block whose absmax is 0 decodes to zeros, whatever its codes."""
    stored = random_codes(draw, (5, 32), 32)
    stored[1][[1, 4]] = 0
    got = stage(decoded, *stored, 32)
    restored(stage, got, stored, 32, "the weight decoded")
    require(bool((got[1] == 0).all()), "a block of absmax 0 does not decode to exact zeros")


@part("forward")
def test_round_trip(stage, draw):
    """What was quantized decodes to within half a step of each value."""
    for shape, size in (((10, 30), 16), ((9, 11), 64)):
        weight = spread(draw, *shape, size=size)
        want = weights(*encoded(weight, size), shape, size)
        got = NF4.round_trip(stage, weight, size)
        near(got, want, what="the weight after quantizing and decoding")


@part("forward")
def test_inputs_unchanged(stage, draw):
    """Neither the weight nor codes and absmax are changed in place."""
    for dtype, size in ((torch.float32, 16), (torch.float64, 16), (torch.float32, 24)):
        weight = draw(8, 10, dtype=dtype)
        weight[0] = 0
        NF4.leaves_its_inputs(stage, weight, size, "weight-changed-in-place")


@part("forward")
def test_decoding_is_independent(stage, draw):
    """Each call decodes the codes of the moment into a new tensor."""
    stored, (other, *_) = (random_codes(draw, (10, 20), 16) for _ in range(2))
    NF4.decodes_anew(stage, stored, other, 16)


@part("forward")
def test_calls_are_independent(stage, draw):
    """A call gives the same whatever was called before."""
    weight, other = spread(draw, 10, 30, size=16), spread(draw, 7, 20, size=32)
    NF4.keeps_nothing(stage, weight, weight * -2 + 1, other, (16, 32))
    _levels_right(stage(table))


# dtype


def types(kata, given):
    return [[result.dtype for result in kata.quantize_nf4(weight)] for weight in given]


@part("dtype")
def test_codes_and_absmax(stage, draw):
    """codes are uint8 and absmax is float32, whatever the weight's dtype and shape."""
    dtypes = (torch.float32, *HALVES, torch.float64)
    for number, shape in enumerate(((5, 40), (4, 32), (5, 7), (1,), (), (5, 40), (5, 7))):
        zero = 0 if number > 4 else 1
        made = stage(types, [zero * draw(*shape, dtype=dtype) for dtype in dtypes])
        for dtype, (codes, absmax) in zip(dtypes, made):
            what = f"of a {dtype_name(dtype)} weight {shape}"
            bug = None if codes.is_floating_point else "codes-not-bytes"
            require(codes == torch.uint8, f"codes {what} are {dtype_name(codes)}, not uint8", bug)
            text = f"absmax {what} is {dtype_name(absmax)}, not float32"
            bug = "absmax-in-weight-dtype" if absmax == dtype else None
            require(absmax == torch.float32, text, bug)


@part("dtype")
def test_weights_of_every_float_dtype(stage, draw):
    """float64, bfloat16 and float16 weights are divided and compared in float32 or better."""
    NF4.quantizes(stage, hard(draw, 4), what="a float64 weight")
    for dtype in HALVES:
        weight = draw(256, 64, std=0.02, dtype=dtype)
        got = stage(quantized, weight)

        def mistake(weight=weight, got=got):
            exact = _fine(stage.attempt(quantized, weight.float()), weight, 64)
            return "divided-in-16-bits" if exact and _is_coarse(pair(got)[0], weight) else None

        with naming(mistake):
            judge(stage, got, weight, 64, f"a {dtype_name(dtype)} weight")


def _is_coarse(codes, weight):
    """Whether the levels are the nearest ones (or nearly) of a division in 16 bits."""
    n, kind = weight.numel(), weight.dtype
    if codes.shape != (n // 2,):
        return False
    blocks = in_blocks(weight.reshape(-1), 64)
    coarse, fine = (
        (b / largest(b).clamp(min=torch.finfo(kind).tiny)[:, None]).double().reshape(-1)
        for b in (blocks, blocks.double())
    )
    chosen = LEVELS[unpack(codes, n)]
    wrong = (chosen - LEVELS[nearest(fine)]).abs() > 1e-9
    # A rounding moves a value at most to the next level, and only from close to a midpoint.
    gap = (fine[:, None] - MIDDLES).abs().amin(1)
    few = bool((gap[wrong] < 2 * torch.finfo(kind).eps).all()) and bool(wrong.any())
    return few and bool(((chosen - coarse).abs() < 0.16).all())


@part("dtype")
def test_decoded_dtype(stage, draw):
    """dequantize_nf4 gives `dtype`, float32 by default; float64 is exact to 1e-6."""
    codes, absmax, shape = random_codes(draw, (6, 40), 16)
    for dtype in (torch.float32, torch.float64, *HALVES):
        size, more = (64, ()) if dtype == torch.float32 else (16, (16, dtype))
        scales = absmax[: math.ceil(240 / size)]
        got = stage(decoded, codes, scales, shape, *more)
        exact = {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float64 else {}
        what = f"the weight decoded to {dtype_name(dtype)}"
        kind = tensor(got, what).dtype
        bug = "decoded-dtype-ignored" if kind == torch.float32 else None
        require(kind == dtype, f"{what} is {dtype_name(kind)}", bug)
        restored(stage, got, (codes, scales, shape), size, what, dtype=dtype, **exact)
        zeros = tensor(stage(decoded, codes, 0 * scales, shape, *more), what)
        text = f"zeros decoded to {dtype_name(dtype)} are {dtype_name(zeros.dtype)}"
        require(zeros.dtype == dtype, text)


# errors


def spoiled(draw, value, row, dtype=torch.float32):
    """A weight with one value that is not finite; row 4 holds the short last block."""
    weight = draw(5, 30, dtype=dtype)
    weight[row, 27] = value
    return weight


def of_transposed(kata, weight, size):
    return kata.quantize_nf4(weight.T, size)


@part("errors")
def test_weights_must_be_finite(stage, draw):
    """Infinities and NaN in the weight raise ValueError naming weight."""

    def refuses(outcome, what, bug=None):
        rejects(outcome, "ValueError", "weight", what=what, bug=bug)

    values = (math.nan, math.inf, -math.inf)
    tried = {value: stage.attempt(quantized, spoiled(draw, value, 0)) for value in values}
    taken = [value for value in values if not isinstance(tried[value], Raised)]
    bug = {3: "non-finite-accepted", 2: "infinity-accepted"}.get(len(taken))
    if math.nan in taken and len(taken) < 3:
        bug = None
    for value in values:
        what = f"a weight that holds {value}"
        refuses(tried[value], what, bug)
        for dtype in (torch.float32, torch.float64, *HALVES):
            refuses(stage.attempt(quantized, spoiled(draw, value, 4, dtype)), what)
        weight = spoiled(draw, value, 3)
        single = torch.tensor(value)
        refuses(stage.attempt(quantized, single, 1), f"a single value {value}")
        refuses(stage.attempt(quantized, weight, 1), f"{what}, in blocks of 1")
        refuses(stage.attempt(of_parameter, weight, 16), f"a Parameter that holds {value}")
        refuses(stage.attempt(of_transposed, weight, 16), f"a transposed weight with {value}")


@part("errors")
def test_large_weights_are_finite(stage, draw):
    """Weights that are large but finite are quantized like any other."""
    # Their sum is finite in no dtype of their own.
    for dtype, size in ((torch.float32, 1e38), (torch.bfloat16, 1e38), (torch.float16, 2e4)):
        weight = (draw(8, 40).clamp(-3, 3).abs() * size).to(dtype)
        single = draw(8, 40).to(dtype)
        single[0, 0] = size
        try:
            got = stage(quantized, weight)
        except LearnerRaised as error:
            many, one = (stage.attempt(quantized, w) for w in (weight, single))
            own = isinstance(many, Raised) and many.deliberate
            error.bug = "finite-by-sum" if own and not isinstance(one, Raised) else None
            raise
        judge(stage, got, weight, 64, f"a {dtype_name(dtype)} weight around {size:.0e}")
        NF4.quantizes(stage, single, what=f"a weight that holds {size:.0e}")


@part("errors")
def test_block_size_below_one(stage, draw):
    """block_size < 1 raises ValueError naming block_size."""
    for size in (0, -1, -64):
        for weight, words, bug in (
            (draw(4, 8), "", "block-size-unchecked"),
            (draw(), ", a single value", None),
        ):
            what = f"block_size={size}{words}"
            outcome = stage.attempt(quantized, weight, size)
            rejects(outcome, "ValueError", "block_size", what=what, bug=bug)


# cost


def cost(kata, weight, codes, absmax):
    def forth():
        kata.quantize_nf4(weight, 2)

    def back():
        kata.dequantize_nf4(codes, absmax, weight.shape, 2)

    found = [(count(call), steps(kata, call)) for call in (forth, back)]
    return [(work["ops"], lines, work["listed"]) for work, lines in found]


def steps(kata, call):
    """How many lines of the submission a call runs through, each turn of a loop anew."""
    import sys

    seen = [0]

    def trace(frame, event, _):
        if frame.f_code.co_filename != kata.__file__:
            return None
        seen[0] += event == "line"
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return seen[0]


@part("cost")
def test_no_loop_over_blocks(stage, draw):
    """The work in Python does not grow with the number of blocks."""
    # Whole blocks of 16 bits, and a short last one.
    for small, large in (
        (draw(8, 2, dtype=torch.bfloat16), draw(4000, 2, dtype=torch.bfloat16)),
        (draw(15), draw(7999)),
    ):
        few, many = (stage(cost, weight, *encoded(weight, 2)) for weight in (small, large))
        for name, before, after in zip(("quantize_nf4", "dequantize_nf4"), few, many):
            for kind, one, other in zip(("operators", "lines", "values in lists"), before, after):
                text = f"{name} takes {one} {kind} for 8 blocks and {other} for 4000: it loops"
                require(other - one < 96, f"{text} over them", "loop-over-blocks")


# gpu


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """On the accelerator codes, absmax and the decoded weight stay there and are the same."""
    half = torch.bfloat16
    for size, weight in ((64, hard(draw, 4).float()), (24, spread(draw, 9, 11, size=24))):
        NF4.accelerated(stage, weight, size, weights, half, dtype=half)
