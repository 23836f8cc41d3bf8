"""What is checked of `double_quantize`. Contract: QLoRA (Dettmers et al. 2023), section 3."""

import itertools
import math

import torch
from torch.nn import functional as F

from grader.exam.checks import CheckFailed, blame, fail, near, part, require, same, tensor

# What is right, and what known mistakes give


def encode(
    absmax,
    size,
    *,
    centre=lambda a, blocks: a - a.mean(),
    top=lambda blocks: blocks.abs().amax(1),
    to_code=torch.round,
    parts=127,
):
    """codes and scales of absmax, float64. The options are ways to get it wrong."""
    absmax = absmax.double()
    n = len(absmax)
    blocks = torch.arange(n) // size
    x = centre(absmax, blocks)
    scales = top(F.pad(x, (0, -n % size)).view(-1, size)) / parts
    steps = torch.where(scales == 0, 1.0, scales)[blocks]
    return to_code(x / steps), scales


def per_block(absmax, blocks):
    """Each block less its own mean."""
    total = torch.zeros(int(blocks[-1]) + 1, dtype=absmax.dtype)
    return absmax - (total.index_add(0, blocks, absmax) / blocks.bincount())[blocks]


def padded_first(absmax, size):
    """The padding of the last block loses the mean too, and so takes part in the maximum."""
    n, mean = len(absmax), absmax.double().mean()
    x = F.pad(absmax.double(), (0, -n % size)) - mean
    scales = x.view(-1, size).abs().amax(1) / 127
    return (x / scales.repeat_interleave(size)).round()[:n], scales


def whole_range(absmax, size):
    """Codes -128..127 for the minimum..maximum of each block."""
    x = absmax.double() - absmax.double().mean()
    blocks = [(block.min(), (block.max() - block.min()) / 255, block) for block in x.split(size)]
    codes = [(block - low) / step.clamp(min=1e-300) - 128 for low, step, block in blocks]
    return torch.cat(codes).round(), torch.stack([step for _, step, _ in blocks])


def undivided(absmax, size):
    codes, scales = encode(absmax, size)
    return codes, scales * 127


def overall(blocks):
    return blocks.abs().max().expand(len(blocks))


def mistakes(absmax, size):
    """Bug id -> codes and scales that it gives, in every form it takes."""
    known = {
        "mean-not-subtracted": [encode(absmax, size, centre=lambda a, _: a)],
        "mean-of-each-block": [encode(absmax, size, centre=per_block)],
        "scale-over-128": [encode(absmax, size, parts=128)],
        "scale-over-255": [encode(absmax, size, parts=255), encode(absmax, size, parts=256)],
        "max-without-abs": [encode(absmax, size, top=lambda blocks: blocks.amax(1))],
        "one-scale-for-all": [encode(absmax, size, top=overall)],
        "not-rounded": [encode(absmax, size, to_code=f) for f in (torch.trunc, torch.floor)],
        "block-size-ignored": [encode(absmax, 256)] if size != 256 and len(absmax) > 256 else [],
        "asymmetric": [whole_range(absmax, size)] if size > 2 else [],
        "maximum-stored": [undivided(absmax, size)],
        "padding-in-maximum": [padded_first(absmax, size)] if len(absmax) % size else [],
    }
    return {bug: forms for bug, forms in known.items() if forms}


def named(got, absmax, size):
    """The one known mistake whose scales and codes these are, or None."""
    codes, scales = got[0].double().reshape(-1), got[1].double().reshape(-1)

    def alike(made):
        wrong, steps = made
        if steps.shape != scales.shape or wrong.shape != codes.shape:
            return False
        fits = wrong.abs() < 127.5  # what does not fit int8 comes out in many ways
        equal = (wrong - codes).abs()[fits] <= 0.01
        return torch.allclose(scales, steps, 1e-4, 1e-9) and bool(equal.double().mean() > 0.97)

    if alike(encode(absmax, size)):
        return None  # codes and scales are right: something else is not
    found = [bug for bug, forms in mistakes(absmax, size).items() if any(map(alike, forms))]
    return found[0] if len(found) == 1 else None


def triple(got):
    """codes, scales and mean as double_quantize returned them."""
    three = isinstance(got, (tuple, list)) and len(got) == 3
    require(three, "double_quantize should return three things: codes, scales, mean")
    if isinstance(got[2], (int, float)):
        fail("the mean is a Python number, expected a 0-dimensional tensor", "mean-is-a-number")
    values = tuple(tensor(v, name) for v, name in zip(got, ("codes", "scales", "mean")))
    require(not any(v.is_complex() for v in values), "codes, scales and mean should be real")
    return values


def judge(got, absmax, size, what):
    """codes, scales and mean are right; names a known mistake."""
    got = triple(got)
    try:
        _judge(*got, absmax.double(), size, what)
    except CheckFailed as failed:
        failed.bug = failed.bug or named(got, absmax, size)
        if failed.bug is None:
            others = list(itertools.permutations(got))[1:]
            if any(_fine(other, absmax, size) for other in others):
                failed.bug = "results-in-another-order"
        raise


def _fine(got, absmax, size):
    try:
        _judge(*got, absmax.double(), size, "")
    except CheckFailed:
        return False
    return True


def _judge(codes, scales, mean, absmax, size, what):
    n = len(absmax)
    for name, value, want in (("codes", codes, n), ("scales", scales, math.ceil(n / size))):
        shape = tuple(value.shape)
        text = f"{what}: {name} has shape {shape}, expected ({want},) for {n} values"
        require(shape == (want,), text, _shape_bug(codes, scales, n, size))
    text = f"{what}: the mean has shape {tuple(mean.shape)}, expected ()"
    require(mean.ndim == 0, text, "mean-keeps-a-dimension" if mean.shape == (1,) else None)
    _, right = encode(absmax, size)
    largest = float(absmax.abs().max())
    rounding = 2e-6 * largest
    off = float((mean.double() - absmax.mean()).abs())
    known = {
        "padding-in-mean": absmax.sum() / (math.ceil(n / size) * size),
        "mean-of-block-means": torch.stack([b.mean() for b in absmax.split(size)]).mean(),
    }
    alike = [b for b, v in known.items() if float((mean.double() - v).abs()) <= 1e-5 * largest]
    require(
        off <= 1e-4 * largest,
        f"{what}: the mean is {float(mean):.6g}, expected {float(absmax.mean()):.6g}",
        alike[0] if len(alike) == 1 else None,
    )
    require(
        bool(((scales.double() - right).abs() <= 1e-4 * right + rounding / 127).all()),
        f"{what}: scales are not the largest |x| of each block over 127: {_worst(scales, right)}",
    )
    decoded = codes.double() * scales.double().repeat_interleave(size)[:n] + mean.double()
    allowed = right.repeat_interleave(size)[:n] * 0.5001 + rounding
    excess = (decoded - absmax).abs() - allowed
    at = int(excess.nan_to_num(nan=math.inf).argmax())
    require(
        bool((excess <= 0).all()),
        f"{what}: value {at} is {float(absmax[at]):.6g}, its code stands for "
        f"{float(decoded[at]):.6g}; half a step is {float(allowed[at] - rounding):.3g}",
    )


def _shape_bug(codes, scales, n, size):
    """The mistake that shapes show."""
    whole, blocks = n // size, math.ceil(n / size)
    if codes.shape == (n,) and scales.shape == (blocks, 1):
        return "scales-keep-a-dimension"
    if codes.shape == (blocks * size,) and scales.shape == (blocks,):
        return "padding-kept"
    if whole and codes.shape == (whole * size,) and scales.shape == (whole,):
        return "short-block-dropped"
    return None


def _worst(scales, right):
    at = int((scales.double() - right).abs().nan_to_num(nan=math.inf).argmax())
    return f"block {at} has {float(scales[at]):.6g}, expected {float(right[at]):.6g}"


def several(draw, n, size, std=0.2, dtype=torch.float32):
    """Positive values; blocks differ in level and spread, some are skewed to either side."""
    blocks = torch.arange(n) // size
    count = int(blocks[-1]) + 1
    spread = 2.0 ** draw.integers(-3, 1, count).float()
    values = 1.5 + draw(count).clamp(-1, 1)[blocks] * 0.3 + draw(n) * std * spread[blocks]
    values[::size] += 0.6 * (-1.0) ** blocks[::size]
    return values.abs().to(dtype)


# shape


def quantized(kata, absmax, *size):
    return kata.double_quantize(absmax, *size)


@part("shape")
def test_any_length(stage, draw):
    """(n,) values give (n,) codes and a scale per block; the last block may be short."""
    absmax = several(draw, 96, 32)
    judge(stage(quantized, absmax, 32), absmax, 32, "96 values in blocks of 32")
    for n, size in ((100, 32), (47, 8), (97, 32)):
        absmax = several(draw, n, size)
        with blame("short-block-fails"):
            got = stage(quantized, absmax, size)
        judge(got, absmax, size, f"{n} values in blocks of {size}")
    absmax = several(draw, 9, 32)
    judge(stage(quantized, absmax, 32), absmax, 32, "9 values in blocks of 32")
    absmax = several(draw, 40, 1)
    _judge(*triple(stage(quantized, absmax, 1)), absmax.double(), 1, "40 values in blocks of 1")


@part("shape")
def test_a_single_value(stage, draw):
    """A single value is the mean itself: its scale and code are 0."""
    absmax = several(draw, 96, 32)
    judge(stage(quantized, absmax, 32), absmax, 32, "96 values in blocks of 32")
    absmax = several(draw, 1, 1)
    got = triple(stage(quantized, absmax))
    _judge(*got, absmax.double(), 256, "a single value")
    _empty(got, slice(None), slice(None), "a single value")


def quantized_strided(kata, absmax):
    return kata.double_quantize(absmax[::2], 16), kata.double_quantize(absmax.view(8, 20)[:, 3], 4)


@part("shape")
def test_non_contiguous_values(stage, draw):
    """absmax need not be contiguous."""
    absmax = several(draw, 160, 16)
    judge(stage(quantized, absmax, 16), absmax, 16, "contiguous values")
    skipped, column = stage(quantized_strided, absmax)
    judge(skipped, absmax[::2], 16, "every second value")
    judge(column, absmax.view(8, 20)[:, 3], 4, "a column of values")


def decoded(kata, codes, scales, mean, *size):
    return kata.dequantize_absmax(codes, scales, mean, *size)


def random_codes(draw, n, size):
    """codes, scales and mean that nothing relates to each other."""
    codes = (draw.integers(20, 128, n) * draw(n).sign()).to(torch.int8)
    scales = 0.002 * 2.0 ** draw.integers(-2, 3, math.ceil(n / size)).float()
    return codes, scales * (1 + draw(len(scales)).abs()), 1.5 + draw().abs()


def values(codes, scales, mean, size):
    """What they stand for, float64."""
    return codes.double() * scales.double().repeat_interleave(size)[: len(codes)] + mean.double()


def restored(got, codes, scales, mean, size, what):
    n = len(codes)
    want = values(codes, scales, mean, size)
    known = {
        "mean-not-added": want - mean,
        "mean-subtracted-again": want - 2 * mean.double(),
        "scale-not-applied": codes.double() + mean,
    }
    if n > size > 1:
        tiled = scales.double().repeat(size)[:n]
        fixed = scales.double()[torch.arange(n) // 256 % len(scales)]
        known["scales-tiled"] = codes * tiled + mean
        if size != 256:
            known["decoding-block-size-ignored"] = codes * fixed + mean
        known["one-scale-for-all"] = codes * scales.double().max() + mean
    near(got, want, what=what, unless=known, rtol=1e-5, atol=1e-6)


@part("shape")
def test_decodes_any_length(stage, draw):
    """dequantize_absmax gives (n,) values, whatever n and the block size are."""
    for n, size in (
        (96, 32),
        (100, 32),
        (47, 8),
        (9, 32),
        (40, 1),
        (1, 256),
        (100, 7),
        (3000, 4),
        (9000, 4096),
    ):
        coded = random_codes(draw, n, size)
        got = stage(decoded, *coded, size)
        restored(got, *coded, size, f"{n} decoded values in blocks of {size}")


# forward


@part("forward")
def test_codes_scales_and_mean(stage, draw):
    """x = absmax - mean; scale = largest |x| of the block / 127; code = round(x / scale)."""
    for n, size in ((256, 32), (240, 48), (150, 20), (3000, 4), (150, 21)):
        absmax = several(draw, n, size)
        judge(stage(quantized, absmax, size), absmax, size, f"{n} values in blocks of {size}")
    absmax = several(draw, 150, 20)
    absmax[::5] = 0
    judge(stage(quantized, absmax, 20), absmax, 20, "values of which some are 0")


@part("forward")
def test_block_size(stage, draw):
    """block_size is the number of values that share a scale, 256 by default."""
    absmax = several(draw, 700, 100)
    for size in (64, 128, 300, 1000):
        judge(stage(quantized, absmax, size), absmax, size, f"with block_size={size}")
    judge(stage(quantized, absmax), absmax, 256, "with the default block_size")
    large = several(draw, 9000, 1024)
    for size in (1024, 4096, 10**5):
        judge(stage(quantized, large, size), large, size, f"with block_size={size}")
    judge(stage(by_keyword, absmax, 90), absmax, 90, "with block_size=90 by keyword")


def by_keyword(kata, absmax, size):
    return kata.double_quantize(absmax=absmax, block_size=size)


@part("forward")
def test_values_of_any_size(stage, draw):
    """Small scales and large ones, and scales that hardly differ, keep the bound on the error."""
    for factor in (1e-7, 1e3, 1e5):
        absmax = several(draw, 150, 32) * factor
        got = stage(quantized, absmax, 32)
        try:
            judge(got, absmax, 32, f"values around {factor:.0e}")
        except CheckFailed as failed:
            near_mean = abs(float(triple(got)[2].double() - absmax.double().mean())) < 1e-4 * factor
            if failed.bug is None and factor < 1 and near_mean:
                larger = absmax / factor
                right = _fine(triple(stage(quantized, larger, 32)), larger, 32)
                failed.bug = "scale-with-epsilon" if right else None
            raise
    absmax = 2 + several(draw, 150, 32) * 1e-3
    judge(stage(quantized, absmax, 32), absmax, 32, "values that hardly differ")


def _empty(got, blocks, places, what):
    codes, scales, _ = got
    codes, scales = codes[places], scales[blocks]
    constant = bool(torch.isfinite(scales).all()) and bool((scales == scales[0]).all())
    require(
        bool((scales == 0).all()),
        f"{what}: the scale is {float(scales[0]):.3g}, expected 0",
        "constant-block-scale" if constant and bool((codes == 0).all()) else None,
    )
    require(bool((codes == 0).all()), f"{what}: the codes are not 0", "constant-block-codes")


@part("forward")
def test_constant_blocks(stage, draw):
    """A block in which every x is 0 has scale 0 and codes 0; its neighbours are as ever."""
    absmax = several(draw, 64, 16)
    judge(stage(quantized, absmax, 16), absmax, 16, "values that differ")
    # Multiples of 1/8, in pairs around 3: the mean is exactly 3, however it is summed.
    half = draw.integers(1, 20, 16).float() / 8
    middle = torch.full((16,), 3.0)
    mixed = torch.cat([3 + half, middle, 3 - half, middle])
    for what, absmax in (
        ("equal values", torch.full((64,), 0.75)),
        ("equal bfloat16 values", torch.full((64,), 0.75, dtype=torch.bfloat16)),
        ("zeros", torch.zeros(64)),
        ("two blocks at the mean", mixed),
    ):
        got = triple(stage(quantized, absmax, 16))
        at_mean = absmax == absmax.mean()
        idle = at_mean.view(4, 16).all(1)
        numbers = all(bool(torch.isfinite(v.double()).all()) for v in got)
        require(numbers, f"{what}: there are values that are not finite", "constant-block-nan")
        if got[0].shape == absmax.shape and got[1].shape == idle.shape:
            _empty(got, idle, idle.repeat_interleave(16), what)
        judge(got, absmax, 16, what)
        back = stage(decoded, *got, 16)
        near(back, values(*got, 16), what=f"{what}, decoded", rtol=1e-5, atol=1e-6)
    absmax = torch.full((100,), 0.1)  # its mean may be off by a rounding
    judge(stage(quantized, absmax, 32), absmax, 32, "equal values of 0.1")


@part("forward")
def test_decodes_code_times_scale_plus_mean(stage, draw):
    """dequantize_absmax gives code * scale + mean, whatever wrote the codes."""
    for n, size in ((700, 100), (512, 256), (150, 20)):
        coded = random_codes(draw, n, size)
        restored(stage(decoded, *coded, size), *coded, size, f"values decoded with {size}")
    coded = random_codes(draw, 600, 256)
    restored(stage(decoded, *coded), *coded, 256, "values decoded with the default block_size")
    coded = random_codes(draw, 600, 70)
    got = stage(decoded_by_keyword, *coded, 70)
    restored(got, *coded, 70, "values decoded by keyword")


def decoded_by_keyword(kata, codes, scales, mean, size):
    return kata.dequantize_absmax(block_size=size, mean=mean, scales=scales, codes=codes)


def round_trip(kata, absmax, *size):
    return kata.dequantize_absmax(*kata.double_quantize(absmax, *size), *size)


@part("forward")
def test_round_trip(stage, draw):
    """Decoding errs by at most half a step of each block."""
    for n, size in ((600, ()), (150, (32,))):
        absmax = several(draw, n, *(size or (256,)))
        got = tensor(stage(round_trip, absmax, *size), "the decoded values")
        require(tuple(got.shape) == (n,), f"{n} values come back as {tuple(got.shape)}")
        require(not got.is_complex(), "the decoded values are complex")
        width = size[0] if size else 256
        _, scales = encode(absmax, width)
        allowed = scales.repeat_interleave(width)[:n] * 0.5001 + 2e-6 * absmax.max()
        off = (got.double() - absmax.double()).abs()
        worst = int((off - allowed).nan_to_num(nan=math.inf).argmax())
        require(
            bool((off <= allowed).all()),
            f"value {worst}, {float(absmax[worst]):.6g}, comes back as {float(got[worst]):.6g}: "
            f"more than half a step off",
        )


def untouched(kata, given, size):
    absmax = given.clone()
    codes, scales, mean = kata.double_quantize(absmax, size)
    kept = codes.clone(), scales.clone(), mean.clone()
    kata.dequantize_absmax(codes, scales, mean, size)
    return absmax, kept, (codes, scales, mean)


@part("forward")
def test_inputs_unchanged(stage, draw):
    """Neither absmax nor codes, scales and mean are changed in place."""
    for size in (16, 25):
        for dtype in (torch.float32, torch.float64):
            absmax = several(draw, 64, size, dtype=dtype)
            after, before, later = stage(untouched, absmax, size)
            same(after, absmax, "absmax", "absmax-changed-in-place")
            for name, one, other in zip(("codes", "scales", "mean"), before, later):
                text = f"{name}, given to dequantize_absmax,"
                same(other, tensor(one), text, "decoder-changes-its-arguments")


def decoded_again(kata, codes, scales, mean, other, size):
    codes, scales = (torch.stack([v, v + 1], 1)[:, 0] for v in (codes, scales))  # not contiguous
    first = kata.dequantize_absmax(codes, scales, mean, size)
    kept = first.clone()
    first.zero_()
    again = kata.dequantize_absmax(codes, scales, mean, size)
    codes.copy_(other)
    with torch.no_grad():
        changed = kata.dequantize_absmax(codes, scales, mean, size)
        kata.double_quantize(kept, size)
        left_on = torch.is_grad_enabled()
    return kept, again, changed, left_on


@part("forward")
def test_decoding_is_independent(stage, draw):
    """Each call decodes the codes of the moment, contiguous or not, into a new tensor."""
    codes, scales, mean = random_codes(draw, 90, 16)
    other, *_ = random_codes(draw, 90, 16)
    *made, left_on = stage(decoded_again, codes, scales, mean, other, 16)
    words = "not contiguous", "decoded again", "whose codes have changed"
    for got, chosen, word in zip(made, (codes, codes, other), words):
        restored(got, chosen, scales, mean, 16, f"values {word}")
    require(not left_on, "calls under no_grad() leave grad mode on")


def twice(kata, absmax, other):
    first = kata.double_quantize(absmax, 16)
    kata.dequantize_absmax(*kata.double_quantize(other, 16), 16)
    same_tensor = absmax.clone()
    kata.double_quantize(same_tensor, 16)
    same_tensor.copy_(other)
    return first, kata.double_quantize(same_tensor, 16), kata.double_quantize(absmax, 16)


@part("forward")
def test_calls_are_independent(stage, draw):
    """A call gives the same whatever was called before."""
    absmax, other = several(draw, 90, 16), 3 + several(draw, 90, 16)
    first, changed, second = stage(twice, absmax, other)
    judge(first, absmax, 16, "the first call")
    judge(changed, other, 16, "a tensor whose values have changed")
    judge(second, absmax, 16, "the same call later on")


def bits(kata, cases):
    plain = [kata.bits_per_param(b, a, False) for b, a in cases]
    double = [kata.bits_per_param(b, a, True) for b, a in cases]
    return plain, double


def bits_by_default(kata):
    named = kata.bits_per_param(absmax_block_size=64, double=True, block_size=32)
    plain = kata.bits_per_param(double=False)
    return kata.bits_per_param(), plain, kata.bits_per_param(128), named


def _numbers(values):
    plain = all(isinstance(v, (int, float)) for v in values)
    require(plain, "bits_per_param should return a number")
    return torch.tensor([float(v) for v in values], dtype=torch.float64)


@part("forward")
def test_bits_per_param(stage, draw):
    """4 + 32/64 = 4.5 bits plain, 4 + 8/64 + 32/(64*256) = 4.127 double; for any block sizes."""
    cases = [(int(2 ** draw.integers(3, 8)), int(2 ** draw.integers(4, 10))) for _ in range(3)]
    cases += [(48, 24), (64, 256), (1, 16)]
    exact = {"rtol": 1e-9, "atol": 1e-9, "dtype": torch.float64}
    inner, outer = torch.tensor(cases, dtype=torch.float64).T
    once, twice = 4 + 32 / inner, 4 + 8 / inner + 32 / (inner * outer)
    plain, double = (_numbers(values) for values in stage(bits, cases))
    what = f"bits_per_param for (block_size, absmax_block_size) = {cases}"
    unless = {"bits-double-ignored": twice, "bits-block-sizes-swapped": 4 + 32 / outer}
    near(plain, once, what=f"{what}, double=False,", unless=unless, **exact)
    near(
        double,
        twice,
        what=f"{what}, double=True,",
        unless={
            "bits-double-ignored": once,
            "bits-second-scale-missing": 4 + 8 / inner,
            "bits-second-scale-not-shared": 4 + 8 / inner + 32 / outer,
            "bits-first-scale-kept": 4 + 32 / inner + 32 / (inner * outer),
            "bits-block-sizes-swapped": 4 + 8 / outer + 32 / (inner * outer),
            "bits-in-bytes": 0.5 + 1 / inner + 4 / (inner * outer),
        },
        **exact,
    )
    got = stage(bits_by_default)
    wanted = (4 + 8 / 64 + 32 / 64 / 256, 4.5, 4 + 8 / 128 + 32 / 128 / 256, 4.25 + 32 / 32 / 64)
    calls = ("()", "(double=False)", "(128)", "(block_size=32, absmax_block_size=64, double=True)")
    for value, want, call in zip(_numbers(got), wanted, calls):
        near(value, want, what=f"bits_per_param{call}", **exact)


# dtype


@part("dtype")
def test_codes_scales_and_mean_dtypes(stage, draw):
    """codes are int8, scales and mean float32, whatever the dtype of absmax."""
    given = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
    for n, size in ((70, 16), (64, 16), (9, 16), (1, 16), (6000, 512)):
        values = [several(draw, n, size, dtype=dtype) for dtype in given]
        made = [triple(stage(quantized, v, size)) for v in values]
        for dtype, (codes, *_) in zip(given, made):
            text = f"codes of {n} {_name(dtype)} values are {_name(codes.dtype)}, not int8"
            require(codes.dtype == torch.int8, text, "codes-not-int8")
        for at, name in ((1, "scales"), (2, "the mean")):
            kinds = [got[at].dtype for got in made]
            bug = "input-dtype-kept" if kinds == list(given) else None
            bug = "float64-kept" if set(kinds) == {torch.float64} else bug
            for dtype, kind in zip(given, kinds):
                what = f"{name} of {n} {_name(dtype)} values"
                require(kind == torch.float32, f"{what}: {_name(kind)}, expected float32", bug)


def _name(dtype):
    return str(dtype).removeprefix("torch.")


@part("dtype")
def test_values_of_every_float_dtype(stage, draw):
    """float64, bfloat16 and float16 values keep the bound on the error."""
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        for shift in (0.0, 40.0):
            absmax = (several(draw, 300, 32) * (1 + shift)).to(dtype)
            got = stage(quantized, absmax, 32)
            _in_half(stage, got, absmax, f"{_name(dtype)} values")


def _in_half(stage, got, absmax, what):
    """As judge; where float32 values come out right, 16 bits are what is wrong."""
    try:
        judge(got, absmax, 32, what)
    except CheckFailed as failed:
        single = all(v.dtype == torch.float32 for v in triple(got)[1:])
        if failed.bug is None and absmax.element_size() == 2 and single:
            exact = absmax.float()
            try:
                judge(stage(quantized, exact, 32), exact, 32, "")
                failed.bug = "computed-in-16-bits"
            except CheckFailed:
                pass
        raise


@part("dtype")
def test_decoded_dtype(stage, draw):
    """dequantize_absmax gives float32, whatever the dtype of absmax was."""
    coded = random_codes(draw, 100, 32)
    got = tensor(stage(decoded, *coded, 32), "the decoded values")
    text = f"the decoded values are {_name(got.dtype)}, expected float32"
    require(got.dtype == torch.float32, text)
    given = [torch.float64, torch.bfloat16, torch.float16]
    made = [tensor(stage(round_trip, several(draw, 100, 32, dtype=d), 32)).dtype for d in given]
    bug = "input-dtype-kept" if made == given else None
    for dtype, kind in zip(given, made):
        what = f"the values decoded from {_name(dtype)}"
        require(kind == torch.float32, f"{what} are {_name(kind)}, expected float32", bug)


# gpu


def on_device(kata, absmax, device):
    coded = kata.double_quantize(absmax.to(device), 32)
    back = kata.dequantize_absmax(*coded, 32)
    return coded, back, [t.device.type for t in (*coded, back)]


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """On the accelerator codes, scales, mean and the decoded values stay there."""
    absmax = several(draw, 150, 32)
    coded, back, places = stage(on_device, absmax, stage.device)
    for name, place in zip(("codes", "scales", "the mean", "the decoded values"), places):
        require(place == stage.device, f"{name}: on {place}, absmax on {stage.device}")
    judge(coded, absmax, 32, f"values on {stage.device}")
    near(back, values(*coded, 32), what="the decoded values", rtol=1e-5, atol=1e-6)
