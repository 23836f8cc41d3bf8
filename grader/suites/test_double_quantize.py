"""What is checked of `double_quantize`. Contract: QLoRA (Dettmers et al. 2023), section 3."""

import itertools
import math

import torch

from grader.exam.checks import fail, near, part, require, tensor
from grader.suites.shared import quantizers
from grader.suites.shared.quantizers import by_keyword, dtype_name, in_blocks, largest, naming

# What is right, and what known mistakes give


def encode(x, size, top=largest, to_code=torch.round, parts=127):
    """codes and scales of what is left of absmax without its mean."""
    values, tops = quantizers.scaled(x, size, top)
    return to_code(values * parts)[: len(x)], tops / parts


def encoded(absmax, size):
    """codes and scales as they should be, float64."""
    absmax = absmax.double()
    return encode(absmax - absmax.mean(), size)


def whole_range(x, size):
    """Codes -128..127 for the minimum..maximum of each block."""
    blocks, n = x.split(size), len(x)
    low, high = (torch.stack([end(block) for block in blocks]) for end in (torch.min, torch.max))
    steps = (high - low) / 255
    up = (x - quantizers.per_value(low, size, n)) / quantizers.per_value(steps, size, n)
    return (up - 128).round(), steps


def mistakes(absmax, size):
    """Pairs of a bug id and codes and scales that it gives, one for every form it takes."""
    absmax = absmax.double()
    n, x, blocks = len(absmax), absmax - absmax.mean(), absmax.split(size)
    codes, scales = encode(x, size)
    known = [
        ("mean-not-subtracted", encode(absmax, size)),
        ("mean-of-each-block", encode(torch.cat([b - b.mean() for b in blocks]), size)),
        ("scale-over-128", encode(x, size, parts=128)),
        ("scale-over-255", encode(x, size, parts=255)),
        ("scale-over-255", encode(x, size, parts=256)),
        ("max-without-abs", encode(x, size, top=lambda blocks: blocks.amax(1))),
        ("one-scale-for-all", encode(x, size, top=quantizers.overall)),
        ("not-rounded", encode(x, size, to_code=torch.trunc)),
        ("not-rounded", encode(x, size, to_code=torch.floor)),
        ("maximum-stored", (codes, scales * 127)),
    ]
    if size != 256 and n > 256:
        known.append(("block-size-ignored", encode(x, 256)))
    if size > 2:
        known.append(("asymmetric", whole_range(x, size)))
    if n % size:
        # The padding of the last block loses the mean too, and so takes part in the maximum.
        padded, steps = encode(in_blocks(absmax, size).reshape(-1) - absmax.mean(), size)
        known.append(("padding-in-maximum", (padded[:n], steps)))
    return known


def named(got, absmax, size):
    """The one known mistake whose scales and codes these are, or None."""
    codes, scales = got[0].double().reshape(-1), got[1].double().reshape(-1)

    def alike(wrong, steps):
        if steps.shape != scales.shape or wrong.shape != codes.shape:
            return False
        fits = wrong.abs() < 127.5  # what does not fit int8 comes out in many ways
        equal = (wrong - codes).abs()[fits] <= 0.01
        return torch.allclose(scales, steps, 1e-4, 1e-9) and bool(equal.double().mean() > 0.97)

    if alike(*encoded(absmax, size)):
        return None  # codes and scales are right: something else is not
    return quantizers.only(bug for bug, made in mistakes(absmax, size) if alike(*made))


def values(codes, scales, mean, size):
    """What they stand for, float64."""
    return codes.double() * quantizers.per_value(scales, size, len(codes)) + mean.double()


# Judging


def triple(got):
    """codes, scales and mean as double_quantize returned them."""
    if isinstance(got, (tuple, list)) and len(got) == 3 and isinstance(got[2], (int, float)):
        fail("the mean is a Python number, expected a 0-dimensional tensor", "mean-is-a-number")
    return quantizers.returned(got, ("codes", "scales", "mean"), "double_quantize")


def judge(stage, got, absmax, size, what):
    """codes, scales and mean are right; names a known mistake."""
    got, wide = triple(got), absmax.double()

    def mistake():
        others = list(itertools.permutations(got))[1:]
        turned = any(quantizers.holds(_judge, *other, wide, size, "") for other in others)
        return named(got, absmax, size) or ("results-in-another-order" if turned else None)

    with naming(mistake):
        _judge(*got, wide, size, what)


def _judge(codes, scales, mean, absmax, size, what):
    n, blocks = len(absmax), math.ceil(len(absmax) / size)
    bug = _shape_bug(codes, scales, n, size)
    quantizers.lengths(what, n, bug, codes=(codes, n), scales=(scales, blocks))
    text = f"{what}: the mean has shape {tuple(mean.shape)}, expected ()"
    require(mean.ndim == 0, text, "mean-keeps-a-dimension" if mean.shape == (1,) else None)
    _, right = encoded(absmax, size)
    most = float(absmax.abs().max())

    def off(value):
        return float((mean.double() - value).abs())

    def mistake():
        known = {
            "padding-in-mean": absmax.sum() / (blocks * size),
            "mean-of-block-means": torch.stack([b.mean() for b in absmax.split(size)]).mean(),
        }
        return quantizers.only(bug for bug, value in known.items() if off(value) <= 1e-5 * most)

    text = f"{what}: the mean is {float(mean):.6g}, expected {float(absmax.mean()):.6g}"
    with naming(mistake):
        require(off(absmax.mean()) <= 1e-4 * most, text)
    far = (scales.double() - right).abs()
    excess = far - 1e-4 * right - 2e-6 / 127 * most
    at = quantizers.worst(excess)
    if not float(excess[at]) <= 0:
        given = scales.double(), right, excess <= 0, 1
        fail(
            f"{what}: scales are not the largest |x| of each block over 127: "
            f"block {at} has {float(scales[at]):.6g}, expected {float(right[at]):.6g}",
            compared=quantizers.compared("scales", *given),
        )
    within(values(codes, scales, mean, size), absmax, right, size, what)


def within(decoded, absmax, scales, size, what):
    """No value is decoded to more than half a step, half its scale, away from it."""
    half = quantizers.per_value(scales, size, len(absmax)) * 0.5001
    off = (decoded.double() - absmax.double()).abs()
    excess = off - half - 2e-6 * float(absmax.abs().max())
    at = quantizers.worst(excess)
    if not float(excess[at]) <= 0:
        words = "what the codes stand for"
        given = decoded.double(), absmax.double(), excess <= 0, size
        fail(
            f"{what}: value {at} is {float(absmax[at]):.6g}, its code stands for "
            f"{float(decoded[at]):.6g}; half a step is {float(half[at]):.3g}",
            compared=quantizers.compared(words, *given),
        )


def restored(stage, got, stored, size, what):
    """The decoded values are right; names a known mistake."""
    codes, scales, mean = stored
    want = values(*stored, size)

    def slips():
        ids = {"tiled": "scales-tiled", "one": "one-scale-for-all"}
        misplaced = quantizers.misplaced(scales, size, len(codes), block=256, **ids)
        return {
            "mean-not-added": want - mean,
            "mean-subtracted-again": want - 2 * mean.double(),
            "scale-not-applied": codes.double() + mean,
            **{bug: codes * placed + mean for bug, placed in misplaced.items()},
        }

    near(got, want, what=what, unless=slips, rtol=1e-5, atol=1e-6)


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


# Inputs


def quantized(kata, absmax, *size):
    return kata.double_quantize(absmax, *size)


def decoded(kata, codes, scales, mean, *size):
    return kata.dequantize_absmax(codes, scales, mean, *size)


DOUBLE = quantizers.Quantizer(
    noun="absmax",
    names=("codes", "scales", "mean"),
    forth=quantized,
    back=decoded,
    judge=judge,
    restored=restored,
    block=256,
)


def several(draw, n, size, std=0.2, dtype=torch.float32):
    """Positive values; blocks differ in level and spread, some are skewed to either side."""
    blocks = torch.arange(n) // size
    count = int(blocks[-1]) + 1
    spread = 2.0 ** draw.integers(-3, 1, count).float()
    values = 1.5 + draw(count).clamp(-1, 1)[blocks] * 0.3 + draw(n) * std * spread[blocks]
    values[::size] += 0.6 * (-1.0) ** blocks[::size]
    return values.abs().to(dtype)


def random_codes(draw, n, size):
    """codes, scales and mean that nothing relates to each other."""
    codes = (draw.integers(20, 128, n) * draw(n).sign()).to(torch.int8)
    scales = 0.002 * 2.0 ** draw.integers(-2, 3, math.ceil(n / size)).float()
    return codes, scales * (1 + draw(len(scales)).abs()), 1.5 + draw().abs()


# shape


@part("shape")
def test_any_length(stage, draw):
    """(n,) values give (n,) codes and a scale per block; the last block may be short."""
    DOUBLE.quantizes(stage, several(draw, 96, 32), 32)
    for n, size in ((100, 32), (47, 8), (97, 32)):
        DOUBLE.quantizes(stage, several(draw, n, size), size, bug="short-block-fails")
    DOUBLE.quantizes(stage, several(draw, 9, 32), 32)
    absmax = several(draw, 40, 1)
    _judge(*triple(stage(quantized, absmax, 1)), absmax.double(), 1, "40 values in blocks of 1")


@part("shape")
def test_a_single_value(stage, draw):
    """A single value is the mean itself: its scale and code are 0."""
    DOUBLE.quantizes(stage, several(draw, 96, 32), 32)
    absmax = several(draw, 1, 1)
    got = triple(stage(quantized, absmax))
    _judge(*got, absmax.double(), 256, "a single value")
    _empty(got, slice(None), slice(None), "a single value")


def strided(absmax):
    return absmax[::2], absmax.view(8, 20)[:, 3]


@part("shape")
def test_non_contiguous_values(stage, draw):
    """absmax need not be contiguous."""
    DOUBLE.takes_views(stage, several(draw, 160, 16), strided, 4)


@part("shape")
def test_decodes_any_length(stage, draw):
    """dequantize_absmax gives (n,) values, whatever n and the block size are."""
    whole = (96, 32), (40, 1), (3000, 4)
    for n, size in (*whole, (100, 32), (47, 8), (9, 32), (1, 256), (100, 7), (9000, 4096)):
        DOUBLE.decodes(stage, random_codes(draw, n, size), size)


# forward


@part("forward")
def test_codes_scales_and_mean(stage, draw):
    """x = absmax - mean; scale = largest |x| of the block / 127; code = round(x / scale)."""
    for n, size in ((256, 32), (240, 48), (150, 20), (3000, 4), (150, 21)):
        DOUBLE.quantizes(stage, several(draw, n, size), size)
    absmax = several(draw, 150, 20)
    absmax[::5] = 0
    DOUBLE.quantizes(stage, absmax, 20, what="values of which some are 0")


@part("forward")
def test_block_size(stage, draw):
    """block_size is the number of values that share a scale, 256 by default."""
    absmax = several(draw, 700, 100)
    for size in ((64,), (128,), (300,), (1000,), ()):
        DOUBLE.quantizes(stage, absmax, *size)
    large = several(draw, 9000, 1024)
    for size in (1024, 4096, 10**5):
        DOUBLE.quantizes(stage, large, size)
    got = stage(by_keyword, "double_quantize", {"block_size": 90, "absmax": absmax})
    judge(stage, got, absmax, 90, "with block_size=90 by keyword")


@part("forward")
def test_values_of_any_size(stage, draw):
    """Small scales and large ones, and scales that hardly differ, keep the bound on the error."""
    for factor in (1e-7, 1e3, 1e5):
        larger = several(draw, 150, 32)
        absmax = larger * factor
        got = stage(quantized, absmax, 32)

        def mistake(larger=larger, absmax=absmax, got=got):
            off = float((triple(got)[2].double() - absmax.double().mean()).abs())
            small = off < 1e-4 * absmax.mean() < 1e-4
            fine = small and quantizers.holds(DOUBLE.quantizes, stage, larger, 32)
            return "scale-with-epsilon" if fine else None

        with naming(mistake):
            judge(stage, got, absmax, 32, f"values around {factor:.0e}")
    DOUBLE.quantizes(stage, 2 + several(draw, 150, 32) * 1e-3, 32, what="values that hardly differ")


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
    DOUBLE.quantizes(stage, several(draw, 64, 16), 16)
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
        judge(stage, got, absmax, 16, what)
        back = stage(decoded, *got, 16)
        near(back, values(*got, 16), what=f"{what}, decoded", rtol=1e-5, atol=1e-6)
    # Its mean may be off by a rounding.
    DOUBLE.quantizes(stage, torch.full((100,), 0.1), 32, what="equal values of 0.1")


@part("forward")
def test_decodes_code_times_scale_plus_mean(stage, draw):
    """dequantize_absmax gives code * scale + mean, whatever wrote the codes."""
    for n, size in ((700, 100), (512, 256), (150, 20)):
        DOUBLE.decodes(stage, random_codes(draw, n, size), size)
    DOUBLE.decodes(stage, random_codes(draw, 600, 256))
    codes, scales, mean = stored = random_codes(draw, 600, 70)
    given = {"block_size": 70, "mean": mean, "scales": scales, "codes": codes}
    got = stage(by_keyword, "dequantize_absmax", given)
    restored(stage, got, stored, 70, "values decoded by keyword")


@part("forward")
def test_round_trip(stage, draw):
    """Decoding errs by at most half a step of each block."""
    for n, size in ((600, 256), (150, 32)):
        absmax = several(draw, n, size)
        got = DOUBLE.round_trip(stage, absmax, *(() if size == 256 else (size,)))
        require(tuple(got.shape) == (n,), f"{n} values come back as {tuple(got.shape)}")
        require(not got.is_complex(), "the decoded values are complex")
        within(got, absmax, encoded(absmax, size)[1], size, "there and back")


@part("forward")
def test_inputs_unchanged(stage, draw):
    """Neither absmax nor codes, scales and mean are changed in place."""
    for size in (16, 25):
        for dtype in (torch.float32, torch.float64):
            absmax = several(draw, 64, size, dtype=dtype)
            DOUBLE.leaves_its_inputs(stage, absmax, size, "absmax-changed-in-place")


def decoded_strided(kata, codes, scales, mean, size):
    codes, scales = (torch.stack([v, v + 1], 1)[:, 0] for v in (codes, scales))
    return kata.dequantize_absmax(codes, scales, mean, size)


@part("forward")
def test_decoding_is_independent(stage, draw):
    """Each call decodes the codes of the moment, contiguous or not, into a new tensor."""
    stored, (other, *_) = (random_codes(draw, 90, 16) for _ in range(2))
    got = stage(decoded_strided, *stored, 16)
    restored(stage, got, stored, 16, "values not contiguous")
    DOUBLE.decodes_anew(stage, stored, other, 16)


@part("forward")
def test_calls_are_independent(stage, draw):
    """A call gives the same whatever was called before."""
    absmax, changed, other = several(draw, 90, 16), 3 + several(draw, 90, 16), several(draw, 70, 32)
    DOUBLE.keeps_nothing(stage, absmax, changed, other, (16, 32))


def bits(kata, cases):
    plain = [kata.bits_per_param(b, a, False) for b, a in cases]
    double = [kata.bits_per_param(b, a, True) for b, a in cases]
    return plain, double


def bits_by_default(kata):
    chosen = kata.bits_per_param(absmax_block_size=64, double=True, block_size=32)
    plain = kata.bits_per_param(double=False)
    return kata.bits_per_param(), plain, kata.bits_per_param(128), chosen


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
            text = f"codes of {n} {dtype_name(dtype)} values are {dtype_name(codes.dtype)}"
            require(codes.dtype == torch.int8, f"{text}, not int8", "codes-not-int8")
        for at, name in ((1, "scales"), (2, "the mean")):
            kinds = [got[at].dtype for got in made]
            bug = "input-dtype-kept" if kinds == list(given) else None
            bug = "float64-kept" if set(kinds) == {torch.float64} else bug
            _float32(kinds, given, f"{name} of {n}", bug)


def _float32(kinds, given, what, bug):
    for dtype, kind in zip(given, kinds):
        text = f"{what} {dtype_name(dtype)} values: {dtype_name(kind)}, expected float32"
        require(kind == torch.float32, text, bug)


@part("dtype")
def test_values_of_every_float_dtype(stage, draw):
    """float64, bfloat16 and float16 values keep the bound on the error."""
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        for shift in (0.0, 40.0):
            absmax = (several(draw, 300, 32) * (1 + shift)).to(dtype)
            got = stage(quantized, absmax, 32)

            def mistake(absmax=absmax, got=got):
                single = all(v.dtype == torch.float32 for v in triple(got)[1:])
                halved = absmax.element_size() == 2 and single
                # Where float32 values come out right, 16 bits are what is wrong.
                fine = halved and quantizers.holds(DOUBLE.quantizes, stage, absmax.float(), 32)
                return "computed-in-16-bits" if fine else None

            with naming(mistake):
                judge(stage, got, absmax, 32, f"{dtype_name(dtype)} values")


@part("dtype")
def test_decoded_dtype(stage, draw):
    """dequantize_absmax gives float32, whatever the dtype of absmax was."""
    coded = random_codes(draw, 100, 32)
    got = tensor(stage(decoded, *coded, 32), "the decoded values")
    text = f"the decoded values are {dtype_name(got.dtype)}, expected float32"
    require(got.dtype == torch.float32, text)
    given = [torch.float64, torch.bfloat16, torch.float16]
    made = [DOUBLE.round_trip(stage, several(draw, 100, 32, dtype=d), 32).dtype for d in given]
    _float32(made, given, "what is decoded from", "input-dtype-kept" if made == given else None)


# gpu


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """On the accelerator codes, scales, mean and the decoded values stay there."""
    absmax = several(draw, 150, 32)
    DOUBLE.accelerated(stage, absmax, 32, values, rtol=1e-5, atol=1e-6)
