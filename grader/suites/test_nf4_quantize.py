"""What is checked of `nf4_quantize`. Contract: QLoRA (Dettmers et al. 2023), sections 2 and 3."""

import math

import torch
from torch.nn import functional as F

from grader.exam.checks import (
    CheckFailed,
    LearnerRaised,
    Raised,
    blame,
    near,
    part,
    rejects,
    require,
    same,
    tensor,
)
from grader.exam.kit import count, nn

# Appendix E of the paper.
_BELOW: tuple[float, ...] = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453)
_BELOW += (-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0)
_ABOVE: tuple[float, ...] = (
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
)
_ABOVE += (0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)
LEVELS = torch.tensor(_BELOW + _ABOVE, dtype=torch.float64)
MIDDLES = (LEVELS[1:] + LEVELS[:-1]) / 2
OFFSET = 0.9677083


# What is right, and what known mistakes give


def encode(
    weight,
    size,
    *,
    turn=lambda w: w.reshape(-1),
    top=lambda blocks: blocks.abs().amax(1),
    pick=lambda v: torch.bucketize(v, MIDDLES),
    pack="high",
    pad=7,
    keep=False,
    drop=False,
):
    """codes and absmax of a weight. The options are ways to get it wrong."""
    flat = turn(weight.double())
    n = flat.numel()
    blocks = F.pad(flat, (0, -n % size)).view(-1, size)
    absmax = top(blocks)
    indices = pick((blocks / absmax.clamp(min=1e-300).reshape(-1, 1)).reshape(-1))
    if not keep:
        indices = indices[: n - n % 2] if drop else indices[:n]
    indices = indices.clamp(0, 15)
    if pack == "none":
        return indices, absmax
    indices = F.pad(indices, (0, indices.numel() % 2), value=pad)
    pairs = indices.view(2, -1) if pack == "halves" else indices.view(-1, 2).T
    high, low = pairs.flip(0) if pack == "low" else pairs
    return high * 16 + low, absmax


def by_rows(weight, size):
    """Every row begins a new block."""
    rows = weight.reshape(-1, weight.shape[-1]) if weight.ndim else weight.reshape(1, 1)
    made = [encode(row, size, pack="none") for row in rows]
    indices, absmax = (torch.cat(parts) for parts in zip(*made))
    pairs = F.pad(indices, (0, indices.numel() % 2), value=7).view(-1, 2)
    return pairs[:, 0] * 16 + pairs[:, 1], absmax


def coarse(weight, size):
    """Divided and compared in the weight's own 16 bits."""
    kind = weight.dtype
    flat = F.pad(weight.reshape(-1), (0, -weight.numel() % size)).view(-1, size)
    absmax = flat.abs().amax(1, keepdim=True)
    normed = (flat / absmax.clamp(min=torch.finfo(kind).tiny)).double()
    return normed.reshape(-1)[: weight.numel()]


def columns(weight):
    """Flattened with the first index running fastest."""
    return weight.permute(tuple(reversed(range(weight.ndim)))).reshape(-1)


def in_storage(weight):
    """Flattened as it lies in memory."""
    return weight.as_strided((weight.numel(),), (1,))


def floor_of(v):
    return torch.searchsorted(LEVELS, v, right=True) - 1


def ceil_of(v):
    return torch.searchsorted(LEVELS, v)


def highest(blocks):
    return blocks.amax(1).clamp(min=1e-300)


def overall(blocks):
    return blocks.abs().max().expand(len(blocks))


def mistakes(weight, size):
    """Bug id -> codes and absmax that it gives."""
    return {
        "nibbles-swapped": lambda: encode(weight, size, pack="low"),
        "halves-packed": lambda: encode(weight, size, pack="halves"),
        "sign-lost": lambda: encode(weight, size, turn=lambda w: w.abs().reshape(-1)),
        "odd-value-dropped": lambda: encode(weight, size, drop=True),
        "not-packed": lambda: encode(weight, size, pack="none"),
        "odd-tail-padded-with-zero": lambda: encode(weight, size, pad=0),
        "padding-kept": lambda: encode(weight, size, keep=True),
        "rounds-down": lambda: encode(weight, size, pick=floor_of),
        "rounds-up": lambda: encode(weight, size, pick=ceil_of),
        "max-without-abs": lambda: encode(weight, size, top=highest),
        "one-absmax-for-all": lambda: encode(weight, size, top=overall),
        "flattened-by-columns": lambda: encode(weight, size, turn=columns),
        "flattened-as-stored": lambda: encode(weight, size, turn=in_storage),
        "blocks-by-rows": lambda: by_rows(weight, size),
        "block-size-ignored": lambda: encode(weight, 64),
    }


def unpack(codes, n):
    """Indices 0..15 from packed codes, the earlier one high."""
    codes = codes.long()
    return torch.stack([codes >> 4, codes & 15], 1).reshape(-1)[:n]


def named(got, weight, size):
    """The one known mistake that gives this, or None."""
    codes, absmax = got[0].double(), got[1].double().reshape(-1)
    found = []
    for bug, made in mistakes(weight, size).items():
        if bug == "flattened-by-columns" and not weight.is_contiguous():
            continue  # that shows with contiguous weights; here it may be the same as stored
        if bug == "odd-tail-padded-with-zero" and codes.numel() and float(codes.view(-1)[-1]) == 0:
            continue  # the tail may have been padded with the code before it
        wrong, top = made()
        if bug == "one-absmax-for-all" and absmax.numel() == 1:
            top = top[:1]
        alike = wrong.shape == codes.shape and top.shape == absmax.shape
        if alike and torch.equal(wrong.double(), codes) and _ratio(absmax, top) < 1e-4:
            found.append(bug)
    return found[0] if len(found) == 1 else None


def _ratio(got, want):
    """The largest relative difference; where zero is right anything else counts as infinite."""
    got = got.double()
    off = torch.where(got == want, 0.0, (got / want - 1).abs())
    return float(off.nan_to_num(nan=math.inf).max()) if off.numel() else 0.0


def table(kata):
    return kata.nf4_codebook()


def _table_first(stage):
    """Where values are wrong, the levels themselves are looked at first."""
    try:
        levels = stage(table)
    except LearnerRaised:
        return
    _levels_right(levels)


def pair(got):
    """codes and absmax as quantize_nf4 returned them."""
    two = isinstance(got, (tuple, list)) and len(got) == 2
    require(two, "quantize_nf4 should return two tensors: codes, absmax")
    return tensor(got[0], "codes"), tensor(got[1], "absmax")


def judge(stage, got, weight, size, what):
    """codes and absmax have the right sizes and values; names a known mistake."""
    got = codes, absmax = pair(got)
    try:
        _judge(codes, absmax, weight.double().reshape(-1), size, what)
    except CheckFailed as failed:
        if failed.bug is None:
            _table_first(stage)
            swapped = _fine((absmax, codes), weight, size)
            failed.bug = "results-swapped" if swapped else named(got, weight, size)
        raise


def _judge(codes, absmax, flat, size, what):
    n = flat.numel()
    real = not codes.is_complex() and not absmax.is_complex()
    require(real, f"{what}: codes and absmax should be real numbers")
    for name, value, want in (
        ("codes", codes, math.ceil(n / 2)),
        ("absmax", absmax, math.ceil(n / size)),
    ):
        shape = tuple(value.shape)
        text = f"{what}: {name} has shape {shape}, expected ({want},) for {n} values"
        column = name == "absmax" and shape == (want, 1)
        require(shape == (want,), text, "absmax-keeps-a-dimension" if column else None)
    blocks = F.pad(flat, (0, -n % size)).view(-1, size)
    top = blocks.abs().amax(1)
    zeros = top == 0
    blank = absmax.double()[zeros]
    alike = len(blank) > 1 and bool((blank == blank[0]).all())  # a constant put in their place
    require(
        bool((blank == 0).all()),
        f"{what}: the absmax of a block of zeros is {_first(blank)}, expected 0",
        "zero-block-absmax" if alike and _ratio(absmax[~zeros], top[~zeros]) < 1e-4 else None,
    )
    off = _ratio(absmax.double(), top)
    require(off < 1e-4, f"{what}: absmax is off by up to {off:.2g} of its value")
    whole = bool(((codes.double() >= 0) & (codes.double() <= 255)).all())
    require(whole, f"{what}: codes must be bytes, 0 to 255")
    chosen = LEVELS[unpack(codes, n)]
    scale = top.repeat_interleave(size)[:n]
    live = scale > 0
    v = flat / scale.clamp(min=1e-300)
    excess = (v - chosen).abs() - (v[:, None] - LEVELS).abs().amin(1)
    excess = torch.where(live, excess, 0.0)
    at = int(excess.argmax())
    require(
        float(excess[at]) <= 1e-5,
        f"{what}: value {at} is {float(v[at]):.6f} of its block's absolute maximum and was given "
        f"level {float(chosen[at]):.6f}; {_nearest(v[at]):.6f} is nearer",
    )
    if n % 2 and bool(live[-1]):
        last = int(codes[-1].item()) & 15
        require(last == 7, f"{what}: the odd tail is padded with code {last}, expected 7 (0.0)")


def _first(values):
    wrong = values[values != 0] if values.numel() else values
    return f"{float(wrong[0]):.3g}" if wrong.numel() else "0"


def _nearest(v):
    return float(LEVELS[(LEVELS - v).abs().argmin()])


def spread(draw, *shape, size=64, std=1.0):
    """Values whose blocks (of `size`) have rather different absolute maxima."""
    n = math.prod(shape)
    blocks = math.ceil(n / size)
    scale = std * 4.0 ** draw.integers(-3, 3, blocks).float()
    scale = scale * (1 + 0.3 * draw(blocks).abs())
    return (draw(n) * scale.repeat_interleave(size)[:n]).reshape(shape)


# shape


def quantized(kata, weight, *size):
    return kata.quantize_nf4(weight, *size)


@part("shape")
def test_any_shape(stage, draw):
    """A weight of any shape is flattened in row order into blocks, whatever its rows are."""
    for shape, size in (
        ((8, 32), 16),
        ((12, 24), 16),
        ((30, 8), 24),
        ((1, 96), 24),
        ((96, 1), 24),
        ((6, 5, 8), 24),
        ((2, 3, 4, 10), 24),
        ((96,), 32),
    ):
        weight = spread(draw, *shape, size=size)
        with blame("matrices-only" if len(shape) != 2 else None):
            got = stage(quantized, weight, size)
        judge(stage, got, weight, size, f"a weight {shape}")


@part("shape")
def test_last_block_may_be_short(stage, draw):
    """The last block may be short, and the only block too."""
    weight = spread(draw, 8, 32, size=16)
    judge(stage, stage(quantized, weight, 16), weight, 16, "a weight (8, 32)")
    for shape, size in (((6, 7), 16), ((5, 6), 8), ((5, 13), 16)):
        weight = spread(draw, *shape, size=size)
        with blame("short-block-fails"):
            got = stage(quantized, weight, size)
        judge(stage, got, weight, size, f"a weight {shape} in blocks of {size}")
    weight = draw(6)
    judge(stage, stage(quantized, weight, 64), weight, 64, "a weight (6,) in blocks of 64")


@part("shape")
def test_odd_numbers_of_values(stage, draw):
    """Two codes share a byte also where a block's size or the number of values is odd."""
    weight = spread(draw, 6, 7, size=16)
    judge(stage, stage(quantized, weight, 16), weight, 16, "a weight (6, 7)")
    weight = spread(draw, 6, 7, size=7)
    judge(stage, stage(quantized, weight, 7), weight, 7, "a weight (6, 7) in blocks of 7")
    for shape, size in (((5, 7), 16), ((3, 3, 3), 6), ((5, 7), 5), ((3, 5), 1)):
        weight = spread(draw, *shape, size=size)
        got = stage(quantized, weight, size)
        judge(stage, got, weight, size, f"a weight {shape} in blocks of {size}")


@part("shape")
def test_a_single_value(stage, draw):
    """A 0-dimensional weight, and a weight of one value, are one block."""
    for value in (draw(1), draw(1, 1), draw()):
        what = f"a weight {tuple(value.shape)}"
        with blame(None if value.ndim else "single-value-fails"):
            got = stage(quantized, value)
        judge(stage, got, value, 64, what)
        back = stage(decoded, *encoded(value, 64), tuple(value.shape))
        near(back, value.double(), what=f"{what}, decoded", rtol=1e-5)


def quantized_strided(kata, weight):
    return [kata.quantize_nf4(view, 16) for view in strided(weight)]


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
        judge(stage, stage(quantized, weight, 16), weight, 16, "a contiguous weight")
        with blame("view-of-strided-weight", "view", "contiguous"):
            made = stage(quantized_strided, weight)
        for got, view in zip(made, strided(weight)):
            judge(stage, got, view, 16, f"a non-contiguous weight {tuple(view.shape)}")


def decoded(kata, codes, absmax, shape, *rest):
    return kata.dequantize_nf4(codes, absmax, shape, *rest)


def decoded_to_size(kata, codes, absmax, like, *rest):
    return kata.dequantize_nf4(codes, absmax, like.shape, *rest)


def encoded(weight, size):
    """codes and absmax as they should be."""
    codes, absmax = encode(weight, size)
    return codes.to(torch.uint8), absmax.float()


def random_codes(draw, n, size):
    """Codes of n values with an absmax for each block; nothing about them repeats."""
    codes = draw.integers(0, 256, math.ceil(n / 2))
    if n % 2:
        codes[-1] = codes[-1] // 16 * 16 + 7
    absmax = 2.0 ** draw.integers(-3, 4, math.ceil(n / size)).float()
    return codes.to(torch.uint8), absmax * (1 + draw(len(absmax)).abs())


def weights(codes, absmax, shape, size, levels=LEVELS):
    """What they stand for, float64."""
    n = math.prod(shape)
    scale = absmax.double().repeat_interleave(size)[:n]
    return (levels[unpack(codes, n)] * scale).reshape(shape)


def slips(codes, absmax, shape, size):
    """What known mistakes make of the decoded weight."""
    n = math.prod(shape)
    chosen = LEVELS[unpack(codes, n)]
    swapped = (codes & 15) << 4 | codes >> 4
    known = {
        "nibbles-swapped": weights(swapped, absmax, shape, size),
        "absmax-not-applied": chosen.reshape(shape),
    }
    if len(shape) != 1:
        known["decoded-flat"] = weights(codes, absmax, (n,), size)
    if len(absmax) > 1:
        tiled = absmax.double().repeat(size)[:n]
        known["absmax-tiled"] = (chosen * tiled).reshape(shape)
        fixed = absmax.double()[torch.arange(n) // 64 % len(absmax)]
        if size != 64:
            known["decoding-block-size-ignored"] = (chosen * fixed).reshape(shape)
        whole = (chosen * absmax.double().max()).reshape(shape)
        known["one-absmax-for-all"] = whole
    return known


def restored(stage, got, codes, absmax, shape, size, what, **more):
    """The decoded weight is right; names a known mistake."""
    try:
        near(
            got,
            weights(codes, absmax, shape, size),
            what=what,
            unless=slips(codes, absmax, shape, size),
            **more,
        )
    except CheckFailed as failed:
        if failed.bug is None:
            _table_first(stage)
        raise


@part("shape")
def test_decodes_to_any_shape(stage, draw):
    """dequantize_nf4 gives a weight of `shape`: any shape, odd sizes and short blocks too."""
    for shape, size in (((8, 32), 16), ((6, 5, 8), 24), ((6, 7), 16), ((5, 7), 5), ((3, 3, 3), 4)):
        codes, absmax = random_codes(draw, math.prod(shape), size)
        what = f"the decoded weight {shape} in blocks of {size}"
        forms = (decoded, shape), (decoded, list(shape)), (decoded_to_size, torch.empty(shape))
        for probe, form in forms:
            got = stage(probe, codes, absmax, form, size)
            restored(stage, got, codes, absmax, shape, size, what)


# init


@part("init")
def test_codebook(stage):
    """nf4_codebook() is float32 (16,), ascending from -1 to 1, with an exact 0 at index 7."""
    levels = tensor(stage(table), "nf4_codebook()")
    _levels_right(levels)
    text = f"nf4_codebook() is {_name(levels.dtype)}, expected float32"
    known = "codebook-not-float32" if levels.dtype == torch.float64 else None
    require(levels.dtype == torch.float32, text, known)


def _name(dtype):
    return str(dtype).removeprefix("torch.")


def _levels_right(levels):
    levels = tensor(levels, "nf4_codebook()")
    shape = tuple(levels.shape)
    require(shape == (16,), f"nf4_codebook() has shape {shape}, expected (16,)")
    values = levels.double()
    what = "nf4_codebook()"
    largest = float(torch.special.ndtri(torch.tensor(OFFSET, dtype=torch.float64)))
    near(
        levels,
        LEVELS,
        what=what,
        dtype=None,
        rtol=0.0,
        atol=1e-6,
        unless={
            "codebook-sides-swapped": -LEVELS.flip(0),
            "codebook-not-normalised": LEVELS * largest,
        },
        bug=_table_bug(values),
    )
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


def _hard(draw, count, scale=1.0):
    """Blocks of 64 that hold every level, and values just beside every midpoint."""
    rows = []
    for _ in range(count):
        edge = torch.cat([MIDDLES - 2e-5, MIDDLES + 2e-5, LEVELS])
        fill = draw(64 - len(edge), std=0.4, dtype=torch.float64).clamp(-1, 1)
        row = torch.cat([edge, fill])[torch.randperm(64, generator=draw.generator)]
        rows.append(row * scale * float(1 + draw(1).abs()))
    return torch.cat(rows)


@part("forward")
def test_nearest_level(stage, draw):
    """Each value over its block's absolute maximum is given a nearest level."""
    weight = _hard(draw, 4).float().reshape(16, 16)
    judge(stage, stage(quantized, weight, 64), weight, 64, "the weight")
    for top in (-3.0, 3.0):  # the largest entry has this sign in every block
        weight = draw(6, 48).clamp(-2.5, 2.5)
        weight.view(-1)[5::32] = top * (1 + draw(9).abs())
        judge(stage, stage(quantized, weight, 32), weight, 32, f"a weight down or up to {top}")


@part("forward")
def test_blocks_of_every_scale(stage, draw):
    """Blocks are independent: large and small ones stand side by side."""
    scales = [1.0, 1e-6, 300.0, 1e-3, 1e-10, 1e4]
    rows = [_hard(draw, 1, scale).float() for scale in scales]
    weight = torch.cat(rows).reshape(16, 24)
    got = stage(quantized, weight, 64)
    try:
        judge(stage, got, weight, 64, "a weight of blocks 1e-10 to 1e4")
    except CheckFailed as failed:
        codes, absmax = pair(got)
        if failed.bug is None and codes.shape == (192,) and absmax.shape == (6,):
            each = zip(codes.split(32), absmax.split(1), rows)
            right = [_fine((code, top), row, 64) for code, top, row in each]
            # The largest are right, and from some size down none is.
            ranked = [right[at] for at in sorted(range(6), key=lambda at: -scales[at])]
            if all(ranked[:3]) and ranked == sorted(ranked, reverse=True):
                failed.bug = "absmax-with-epsilon"
        raise


def _fine(got, weight, size):
    if isinstance(got, Raised):
        return False
    try:
        _judge(*pair(got), weight.double().reshape(-1), size, "")
    except CheckFailed:
        return False
    return True


@part("forward")
def test_block_size(stage, draw):
    """block_size is the number of values that share one absmax, 64 by default."""
    weight = spread(draw, 12, 40, size=8)
    for size in (8, 24, 48, 64, 128):
        judge(stage, stage(quantized, weight, size), weight, size, f"with block_size={size}")
    large = spread(draw, 90, 100, size=1024)
    for size in (1024, 4096, 9000, 10**5):
        judge(stage, stage(quantized, large, size), large, size, f"with block_size={size}")
    judge(stage, stage(quantized, weight), weight, 64, "with the default block_size")
    judge(stage, stage(by_keyword, weight, 24), weight, 24, "with block_size=24 by keyword")


def by_keyword(kata, weight, size):
    return kata.quantize_nf4(weight=weight, block_size=size)


@part("forward")
def test_many_blocks(stage, draw):
    """A weight of 2,000 blocks, there and back."""
    weight = spread(draw, 200, 80, size=8)
    judge(stage, stage(quantized, weight, 8), weight, 8, "a weight of 2000 blocks")
    codes, absmax = random_codes(draw, 16000, 8)
    got = stage(decoded, codes, absmax, (200, 80), 8)
    restored(stage, got, codes, absmax, (200, 80), 8, "the weight decoded from 2000 blocks")


def of_parameter(kata, weight, size):
    parameter = nn.Parameter(weight.clone())
    codes, absmax = kata.quantize_nf4(parameter, size)
    back = kata.dequantize_nf4(codes, absmax, parameter.shape, size)
    return (codes, absmax), back, parameter.requires_grad


@part("forward")
def test_weight_that_requires_a_gradient(stage, draw):
    """A Parameter is quantized like any tensor, and goes on requiring a gradient."""
    weight = spread(draw, 8, 20, size=16)
    judge(stage, stage(quantized, weight, 16), weight, 16, "a weight")
    stage(round_trip, weight, 16)
    with blame("gradient-refused", "detach()", "automatic differentiation"):
        got, back, flag = stage(of_parameter, weight, 16)
    judge(stage, got, weight, 16, "a Parameter")
    near(back, weights(*encoded(weight, 16), (8, 20), 16), what="a Parameter, there and back")
    require(flag, "the Parameter no longer requires a gradient")


@part("forward")
def test_blocks_of_zeros(stage, draw):
    """A block of zeros has absmax 0 and decodes to zeros; its neighbours are not affected."""
    weight = spread(draw, 6, 32, size=32)
    judge(stage, stage(quantized, weight, 32), weight, 32, "a weight without blocks of zeros")
    weight[1] = weight[5] = 0
    blank = torch.zeros(3, 11)
    for sample in (weight, torch.zeros(5, 10), blank, blank.bfloat16(), blank.half()):
        got = stage(quantized, sample, 32)
        judge(stage, got, sample, 32, "a weight with blocks of zeros")
        codes, absmax = pair(got)
        shape = tuple(sample.shape)
        zeros = stage(decoded, codes, absmax, shape, 32)
        near(zeros, weights(codes, absmax, shape, 32), what="the decoded weight")
        blank = zeros.reshape(-1)[sample.reshape(-1) == 0]
        require(bool((blank == 0).all()), "a block of zeros does not decode to zeros")


@part("forward")
def test_decodes_level_times_absmax(stage, draw):
    """dequantize_nf4 gives level times absmax, whatever wrote the codes."""
    for shape, size in (
        ((12, 40), 16),
        ((7, 64), 64),
        ((16, 32), 128),
        ((90, 100), 4096),
        ((10, 10), 128),
    ):
        codes, absmax = random_codes(draw, math.prod(shape), size)
        got = stage(decoded, codes, absmax, shape, size)
        restored(stage, got, codes, absmax, shape, size, f"the weight decoded with {size}")
    codes, absmax = random_codes(draw, 9 * 32, 64)
    got = stage(decoded, codes, absmax, (9, 32))
    restored(stage, got, codes, absmax, (9, 32), 64, "the weight decoded with the default size")
    codes, absmax = random_codes(draw, 9 * 32, 24)
    got = stage(decoded_by_keyword, codes, absmax, (9, 32), 24)
    restored(stage, got, codes, absmax, (9, 32), 24, "the weight decoded by keyword")


def decoded_by_keyword(kata, codes, absmax, shape, size):
    return kata.dequantize_nf4(
        dtype=torch.float32, codes=codes, absmax=absmax, shape=shape, block_size=size
    )


@part("forward")
def test_zero_absmax_decodes_to_zeros(stage, draw):
    """A block whose absmax is 0 decodes to zeros, whatever its codes."""
    codes, absmax = random_codes(draw, 5 * 32, 32)
    absmax[1] = absmax[4] = 0
    got = stage(decoded, codes, absmax, (5, 32), 32)
    restored(stage, got, codes, absmax, (5, 32), 32, "the weight decoded")
    require(bool((got[1] == 0).all()), "a block of absmax 0 does not decode to exact zeros")


def round_trip(kata, weight, size):
    codes, absmax = kata.quantize_nf4(weight, size)
    return kata.dequantize_nf4(codes, absmax, weight.shape, size)


@part("forward")
def test_round_trip(stage, draw):
    """What was quantized decodes to within half a step of each value."""
    for shape, size in (((10, 30), 16), ((9, 11), 64)):
        weight = spread(draw, *shape, size=size)
        got = tensor(stage(round_trip, weight, size), "the decoded weight")
        want = weights(*encoded(weight, size), shape, size)
        near(got, want, what="the weight after quantizing and decoding")


def untouched(kata, given, size):
    weight = given.clone()
    codes, absmax = kata.quantize_nf4(weight, size)
    kept = codes.clone(), absmax.clone()
    kata.dequantize_nf4(codes, absmax, weight.shape, size)
    kata.dequantize_nf4(codes, absmax, weight.shape, size)
    return weight, kept, (codes, absmax)


@part("forward")
def test_inputs_unchanged(stage, draw):
    """Neither the weight nor codes and absmax are changed in place."""
    for dtype, size in ((torch.float32, 16), (torch.float64, 16), (torch.float32, 24)):
        weight = draw(8, 10, dtype=dtype)
        weight[0] = 0
        after, before, later = stage(untouched, weight, size)
        same(after, weight, "the weight", "weight-changed-in-place")
        for name, now, was in zip(("codes", "absmax"), later, before):
            text = f"{name}, given to dequantize_nf4,"
            same(now, was, text, "decoder-changes-its-arguments")


def decoded_again(kata, codes, absmax, other, shape, size):
    codes, absmax = codes.clone(), absmax.clone()
    first = kata.dequantize_nf4(codes, absmax, shape, size)
    kept = first.clone()
    first.zero_()
    again = kata.dequantize_nf4(codes, absmax, shape, size)
    codes.copy_(other)
    with torch.no_grad():
        changed = kata.dequantize_nf4(codes, absmax, shape, size)
        kata.quantize_nf4(kept, size)
        left_on = torch.is_grad_enabled()
    return kept, again, changed, left_on


@part("forward")
def test_decoding_is_independent(stage, draw):
    """Each call decodes the codes of the moment into a new tensor."""
    codes, absmax = random_codes(draw, 200, 16)
    other, _ = random_codes(draw, 200, 16)
    *made, left_on = stage(decoded_again, codes, absmax, other, (10, 20), 16)
    words = "", ", decoded again", " whose codes have changed"
    for got, chosen, word in zip(made, (codes, codes, other), words):
        restored(stage, got, chosen, absmax, (10, 20), 16, f"a weight{word}")
    require(not left_on, "calls under no_grad() leave grad mode on")


def twice(kata, weight, other):
    first = kata.quantize_nf4(weight, 16)
    kata.quantize_nf4(weight * -2 + 1, 16)
    kata.quantize_nf4(other, 32)
    kata.dequantize_nf4(*kata.quantize_nf4(other, 32), other.shape, 32)
    same_tensor = weight.clone()
    kata.quantize_nf4(same_tensor, 16)
    same_tensor.copy_(weight * -2 + 1)
    changed = kata.quantize_nf4(same_tensor, 16)
    return first, changed, kata.quantize_nf4(weight, 16), kata.nf4_codebook()


@part("forward")
def test_calls_are_independent(stage, draw):
    """A call gives the same whatever was called before."""
    weight, other = spread(draw, 10, 30, size=16), spread(draw, 7, 20, size=32)
    first, changed, second, levels = stage(twice, weight, other)
    judge(stage, first, weight, 16, "the first call")
    judge(stage, changed, weight * -2 + 1, 16, "a tensor whose values have changed")
    judge(stage, second, weight, 16, "the same call later on")
    _levels_right(levels)


# dtype


def types(kata, given):
    return [[result.dtype for result in kata.quantize_nf4(weight)] for weight in given]


@part("dtype")
def test_codes_and_absmax(stage, draw):
    """codes are uint8 and absmax is float32, whatever the weight's dtype and shape."""
    dtypes = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    for number, shape in enumerate(((5, 40), (4, 32), (5, 7), (1,), (), (5, 40), (5, 7))):
        zero = 0 if number > 4 else 1
        made = stage(types, [zero * draw(*shape, dtype=dtype) for dtype in dtypes])
        for dtype, (codes, absmax) in zip(dtypes, made):
            what = f"of a {_name(dtype)} weight {shape}"
            bug = None if codes.is_floating_point else "codes-not-bytes"
            require(codes == torch.uint8, f"codes {what} are {_name(codes)}, not uint8", bug)
            require(
                absmax == torch.float32,
                f"absmax {what} is {_name(absmax)}, not float32",
                "absmax-in-weight-dtype" if absmax == dtype else None,
            )


@part("dtype")
def test_weights_of_every_float_dtype(stage, draw):
    """float64, bfloat16 and float16 weights are divided and compared in float32 or better."""
    weight = _hard(draw, 4)
    judge(stage, stage(quantized, weight), weight, 64, "a float64 weight")
    for dtype in (torch.bfloat16, torch.float16):
        weight = draw(256, 64, std=0.02, dtype=dtype)
        got = stage(quantized, weight)
        try:
            judge(stage, got, weight, 64, f"a {_name(dtype)} weight")
        except CheckFailed as failed:
            codes = pair(got)[0]
            exact = _fine(stage.attempt(quantized, weight.float()), weight, 64)
            if failed.bug is None and exact and _is_coarse(codes, weight):
                failed.bug = "divided-in-16-bits"
            raise


def _is_coarse(codes, weight):
    """Whether the levels are the nearest ones (or nearly) of a division in 16 bits."""
    n = weight.numel()
    if codes.shape != (n // 2,):
        return False
    v = coarse(weight, 64)
    fine = weight.double().reshape(-1, 64)
    fine = (fine / fine.abs().amax(1, keepdim=True)).reshape(-1)
    chosen, levels = LEVELS[unpack(codes, n)], LEVELS
    nearest = levels[torch.bucketize(fine, MIDDLES)]
    wrong = (chosen - nearest).abs() > 1e-9
    # A rounding moves a value at most to the next level, and only from close to a midpoint.
    gap = (fine[:, None] - MIDDLES).abs().amin(1)
    step = 2 * float(torch.finfo(weight.dtype).eps)
    few = bool((gap[wrong] < step).all()) and bool(wrong.any())
    return few and bool(((chosen - v).abs() < 0.16).all())


@part("dtype")
def test_decoded_dtype(stage, draw):
    """dequantize_nf4 gives `dtype`, float32 by default; float64 is exact to 1e-6."""
    codes, absmax = random_codes(draw, 6 * 40, 16)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        more = () if dtype == torch.float32 else (16, dtype)
        size = 64 if dtype == torch.float32 else 16
        scales = absmax[: math.ceil(240 / size)]
        got = stage(decoded, codes, scales, (6, 40), *more)
        exact = {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float64 else {}
        what = f"the weight decoded to {_name(dtype)}"
        kind = tensor(got, what).dtype
        bug = "decoded-dtype-ignored" if kind == torch.float32 else None
        require(kind == dtype, f"{what} is {_name(kind)}", bug)
        restored(stage, got, codes, scales, (6, 40), size, what, dtype=dtype, **exact)
        zeros = tensor(stage(decoded, codes, 0 * scales, (6, 40), *more), what)
        text = f"zeros decoded to {_name(dtype)} are {_name(zeros.dtype)}"
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
    values = (math.nan, math.inf, -math.inf)
    tried = {value: stage.attempt(quantized, spoiled(draw, value, 0)) for value in values}
    taken = [value for value in values if not isinstance(tried[value], Raised)]
    bug = {3: "non-finite-accepted", 2: "infinity-accepted"}.get(len(taken))
    if math.nan in taken and len(taken) < 3:
        bug = None
    for value in values:
        what = f"a weight that holds {value}"
        rejects(tried[value], "ValueError", "weight", what=what, bug=bug)
        for dtype in (torch.float32, torch.bfloat16, torch.float64, torch.float16):
            outcome = stage.attempt(quantized, spoiled(draw, value, 4, dtype))
            rejects(outcome, "ValueError", "weight", what=what)
        weight = spoiled(draw, value, 3)
        for words, probe, given in (
            (f"a single value {value}", quantized, (torch.tensor(value), 1)),
            (f"{what}, in blocks of 1", quantized, (weight, 1)),
            (f"a Parameter that holds {value}", of_parameter, (weight, 16)),
            (f"a transposed weight that holds {value}", of_transposed, (weight, 16)),
        ):
            rejects(stage.attempt(probe, *given), "ValueError", "weight", what=words)


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
        judge(stage, got, weight, 64, f"a {_name(dtype)} weight around {size:.0e}")
        judge(stage, stage(quantized, single), single, 64, f"a weight that holds {size:.0e}")


@part("errors")
def test_block_size_below_one(stage, draw):
    """block_size < 1 raises ValueError naming block_size."""
    for size in (0, -1, -64):
        outcome = stage.attempt(quantized, draw(4, 8), size)
        what = f"block_size={size}"
        rejects(outcome, "ValueError", "block_size", what=what, bug="block-size-unchecked")
        rejects(
            stage.attempt(quantized, draw(), size),
            "ValueError",
            "block_size",
            what=f"{what}, a single value",
        )


# cost


def cost(kata, weight, codes, absmax):
    def forth():
        kata.quantize_nf4(weight, 2)

    def back():
        kata.dequantize_nf4(codes, absmax, weight.shape, 2)

    return [(count(call)["ops"], steps(kata, call)) for call in (forth, back)]


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
        few = stage(cost, small, *encoded(small, 2))
        many = stage(cost, large, *encoded(large, 2))
        for name, before, after in zip(("quantize_nf4", "dequantize_nf4"), few, many):
            for kind, one, other in zip(("operators", "lines"), before, after):
                require(
                    other - one < 96,
                    f"{name} runs {one} {kind} for 8 blocks and {other} for 4000: it loops over "
                    f"them",
                    "loop-over-blocks",
                )


# gpu


def on_device(kata, weight, size, device):
    codes, absmax = kata.quantize_nf4(weight.to(device), size)
    back = kata.dequantize_nf4(codes, absmax, weight.shape, size, torch.bfloat16)
    return codes, absmax, back, [t.device.type for t in (codes, absmax, back)]


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """On the accelerator codes, absmax and the decoded weight stay there and are the same."""
    for size, weight in ((64, _hard(draw, 4).float()), (24, spread(draw, 9, 11, size=24))):
        codes, absmax, back, places = stage(on_device, weight, size, stage.device)
        for name, place in zip(("codes", "absmax", "the decoded weight"), places):
            require(place == stage.device, f"{name} is on {place}, the weight on {stage.device}")
        judge(stage, (codes, absmax), weight, size, f"a weight on {stage.device}")
        want = weights(codes, absmax, tuple(weight.shape), size)
        near(back, want, what="the decoded weight", dtype=torch.bfloat16)
