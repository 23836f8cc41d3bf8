"""What is checked of `numpy_lora`. Contract: LoRA (Hu et al. 2021), section 4.1, equation 3."""

import math
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from grader.exam.checks import CheckFailed, blame, close, fail, part, require
from grader.exam.kit import Missing, need
from grader.suites.shared.arrays import F64, array, equals, numpy_only, sent, written

ALPHA = 7.5  # over ranks that do not divide it


@dataclass(frozen=True)
class Case:
    """Factors, a batch and a gradient of its delta; what they give by the definition."""

    A: Tensor
    B: Tensor
    x: Tensor
    g: Tensor
    alpha: float | None = ALPHA

    @property
    def given(self):
        return self.A, self.B, self.alpha, self.x, self.g

    @property
    def rank(self):
        return len(self.A)

    @property
    def scale(self):
        return (self.rank if self.alpha is None else self.alpha) / self.rank

    def delta(self, scale=None):
        scale = self.scale if scale is None else scale
        return scale * (self.x @ self.A.T @ self.B.T)

    def merged(self, scale=None):
        return (self.scale if scale is None else scale) * (self.B @ self.A)

    def gradients(self):
        """dA, dB and the gradient of x, by autograd."""
        leaves = [t.clone().requires_grad_() for t in (self.A, self.B, self.x)]
        A, B, x = leaves
        total = (self.scale * (x @ A.T @ B.T) * self.g).sum()
        dA, dB, dx = torch.autograd.grad(total, leaves)
        return dA / len(x), dB / len(x), dx

    def stepped(self, lr):
        """A and B after one step of gradient descent."""
        dA, dB, _ = self.gradients()
        return self.A - lr * dA, self.B - lr * dB

    def scales(self):
        """The scale by known mistakes."""
        alpha, r, s = self.alpha, self.rank, self.scale
        return {
            "scale-missing": 1.0,
            "scale-is-alpha": alpha,
            "scale-by-root-r": alpha / math.sqrt(r),
            "scale-twice": s * s,
        }


def case(draw, d_in=7, d_out=5, r=3, n=4, alpha=ALPHA):
    A, B = draw(r, d_in, dtype=F64), draw(d_out, r, dtype=F64)
    return Case(A, B, draw(n, d_in, dtype=F64), draw(n, d_out, dtype=F64), alpha)


# On the stage


def lora_of(kata, A, B, alpha):
    lora = kata.LoRA(A.shape[1], B.shape[0], A.shape[0], alpha)
    written(lora, A=A, B=B)
    return lora


def run(lora, x):
    """delta and cache."""
    got = lora.forward(x)
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        raise Missing("forward() must return two things: delta and cache")
    return got


def gradients(lora, g, cache):
    """dA, dB and the gradient of x, as evidence."""
    back = lora.backward(g, cache)
    return sent(need(lora, "dA")), sent(need(lora, "dB")), sent(back)


def both_ways(kata, A, B, alpha, x, g):
    lora = lora_of(kata, A, B, alpha)
    delta, cache = run(lora, x.numpy())
    return sent(delta), gradients(lora, g.numpy(), cache)


def output(kata, A, B, alpha, x):
    return sent(run(lora_of(kata, A, B, alpha), x.numpy())[0])


# Judging


def deltas(case, got, what="delta"):
    known = {bug: case.delta(scale) for bug, scale in case.scales().items()}
    equals(got, case.delta(), what, unless=known)


def graded(case, got, what=""):
    """dA, dB and the gradient of x are right. A mistake is told from all three together."""
    named = mistake(case, got)
    pairs = zip(("dA", "dB", "the gradient of x"), got, case.gradients(), strict=True)
    for name, value, want in pairs:
        if value is None and name == "the gradient of x":
            fail("backward() returns None, expected the gradient of x", "grad-x-not-returned")
        equals(value, want, f"{name}{what}", bug=named)


def mistake(case, got):
    """The one known mistake whose gradients these are, or None."""
    if any(not isinstance(value, Tensor) for value in got) or not case.scale:
        return None
    (dA, dB, dx), s, n = case.gradients(), case.scale, len(case.x)
    g, z, x = (v.mean(0) for v in (case.g, case.x @ case.A.T, case.x))
    means = s * torch.outer(g @ case.B, x), s * torch.outer(g, z)
    forms = [
        ("mean-missing", (dA * n, dB * n, dx)),
        ("mean-missing", (dA * n, dB, dx)),
        ("mean-missing", (dA, dB * n, dx)),
        ("mean-twice", (dA / n, dB / n, dx)),
        ("mean-twice", (dA / n, dB / n, dx / n)),
        ("product-of-means", (*means, dx)),
        ("grad-x-averaged", (dA, dB, dx / n)),
        ("scale-missing-in-backward", (dA / s, dB / s, dx / s)),
        ("scale-missing-in-dA", (dA / s, dB, dx)),
        ("scale-missing-in-dB", (dA, dB / s, dx)),
        ("scale-missing-in-grad-x", (dA, dB, dx / s)),
        ("scale-twice-in-backward", (dA * s, dB * s, dx * s)),
        ("scale-twice-in-backward", (dA * s, dB, dx)),
        ("scale-twice-in-backward", (dA, dB * s, dx)),
        ("scale-twice-in-backward", (dA * s, dB, dx * s)),
        ("gradients-transposed", (dA.T, dB.T, dx)),
        ("gradients-transposed", (dA.T, dB, dx)),
        ("gradients-transposed", (dA, dB.T, dx)),
    ]
    found = {
        bug
        for bug, form in forms
        if all(close(value, want, 1e-9, 1e-9) for value, want in zip(got, form))
    }
    return found.pop() if len(found) == 1 else None


# init


def plain(kata):
    kata.LoRA(4, 3, 2)


@part("init")
def test_numpy_and_the_standard_library_only(stage):
    """The file imports nothing beyond NumPy and the standard library, inside functions neither."""
    numpy_only(stage, plain)


R, D_IN, D_OUT = 40, 200, 30


def start(kata, seed, *options):
    import numpy as np

    rng = None if seed is None else np.random.default_rng(seed)
    lora = kata.LoRA(D_IN, D_OUT, R, 8.0, *options, rng=rng)
    return sent(need(lora, "A")), sent(need(lora, "B"))


def small_starts(kata, seed, shape, count):
    """A of many small instances made from one generator."""
    import numpy as np

    rng, (r, d_in) = np.random.default_rng(seed), shape
    starts = [need(kata.LoRA(d_in, 3, r, rng=rng), "A") for _ in range(count)]
    return sent(np.stack([np.asarray(A) for A in starts]))


@part("init")
def test_a_is_gaussian_and_b_zero(stage, draw):
    """A: (r, d_in) is Gaussian of standard deviation init_scale, 0.01 by default, with a generator
    and without, at any size; B: (d_out, r) is zero; both are float64."""
    seed = draw.integers(0, 10**6, 1).item()
    given = [(None, 3.0), (seed, 0.05), (None, 0.01)]
    starts = [stage(start, seed, *([scale] * (scale != 0.01))) for seed, scale in given]
    (first, _), (second, _), _ = starts
    for (A, B), (_, scale) in zip(starts, given):
        _shaped("A", A, (R, D_IN))
        _shaped("B", B, (D_OUT, R))
        require(bool((B == 0).all()), "B does not start at zero", "b-not-zero")
        require(bool((A != 0).any()), "A starts at zero: nothing is ever learned", "a-is-zero")
        alike = abs(first.std() / second.std() - 1) < 0.05
        _gaussian(A, scale, "init-scale-ignored" if alike else None)
    nothing, _ = stage(start, seed, 0.0)
    require(bool((nothing == 0).all()), "A is not zero at init_scale=0")
    # As independent in small arrays: one column, two rows, over many instances.
    A = array(stage(small_starts, seed, (2, 1), 600), "A").squeeze(-1)
    moved = len(A.unique(dim=0)) > 1
    require(moved, "One generator gives the same A every time", "generator-not-moved")
    std, peak = float(A.std()), float((A**4).mean() / (A**2).mean() ** 2)
    along = float(torch.corrcoef(A.T)[0, 1])
    right = abs(std / 0.01 - 1) < 0.15 and peak > 2 and abs(along) < 0.3  # NaN compares false
    require(right, "A of shape (2, 1) is not Gaussian, with independent rows")
    require(bool(stage(small_starts, seed, (1, 1), 1).isfinite()), "A of shape (1, 1) is no number")


def _shaped(name, got, shape):
    array(got, name)
    bug = "factors-transposed" if got.shape == shape[::-1] else None
    require(got.shape == shape, f"{name} has shape {tuple(got.shape)}, expected {shape}", bug)
    kind = str(got.dtype).removeprefix("torch.")
    require(got.dtype == F64, f"{name} is {kind}, expected float64")


def _gaussian(A, scale, ignored):
    """Bounds that a right A passes in all but one of a billion draws."""
    std, mean, n = float(A.std()), float(A.mean()), A.numel()
    require(len(A.unique()) > 0.9 * n, "Values of A are repeated")
    peak = float(((A - mean) ** 4).mean()) / std**4  # 3 for a Gaussian, 1.8 where it is uniform
    bug = "uniform-not-gaussian" if abs(peak - 1.8) < 0.2 else None
    require(abs(peak - 3) < 0.5, f"A is not Gaussian (kurtosis {peak:.2f}, expected 3)", bug)
    text = f"A has standard deviation {std:.4g}, expected init_scale, {scale}"
    require(abs(std / scale - 1) < 0.06, text, ignored)
    require(abs(mean) < 7 * scale / math.sqrt(n), f"A has mean {mean:.2g}, expected 0")


def draws(kata, seed, other):
    import numpy as np

    def fresh(rng):
        return sent(need(kata.LoRA(6, 5, 3, rng=rng), "A"))

    rng = np.random.Generator(np.random.MT19937(seed))
    used = np.random.default_rng(seed)
    used.random(5)
    return {
        "seed": fresh(np.random.default_rng(seed)),
        "again": fresh(np.random.default_rng(seed)),
        "other": fresh(np.random.default_rng(other)),
        "used": fresh(used),
        "moving": [fresh(rng), fresh(rng)],
        "fresh": [fresh(None), fresh(None)],
    }


def loaded_twice(kata):
    """A of the first instance without rng, of the file loaded anew."""
    import linecache
    from types import ModuleType

    code = compile("".join(linecache.getlines(kata.__file__)), kata.__file__, "exec")
    seen = []
    for _ in range(2):
        again = ModuleType(kata.__name__)
        again.__file__ = kata.__file__
        exec(code, vars(again))
        seen.append(sent(again.LoRA(6, 5, 3).A))
    return seen


@part("init")
def test_the_generator_decides_on_a(stage, draw):
    """A generator in the same state gives the same A, one that was used another; without a
    generator every A is new, in every run."""
    seed = draw.integers(0, 10**6, 1).item()
    got = stage(draws, seed, seed + 1)
    again = torch.equal(got["seed"], got["again"])
    require(again, "Two generators of the same seed give different A", "rng-ignored")
    other = torch.equal(got["seed"], got["other"])
    require(not other, "Generators of different seeds give the same A", "rng-ignored")
    moved = not torch.equal(*got["moving"])
    require(moved, "One generator gives the same A twice", "generator-not-moved")
    used = torch.equal(got["seed"], got["used"])
    require(not used, "A generator that was used before gives the A of a new one")
    fresh = not torch.equal(*got["fresh"])
    require(fresh, "Two instances made without rng have the same A", "same-without-rng")
    fresh = not torch.equal(*stage(loaded_twice))
    require(fresh, "Every run of the file gives the same A without rng", "same-without-rng")


def beside(kata, one, other):
    """Of two instances that take turns: delta, gradients, and the factors after a step."""
    A, B, alpha, x, g = one
    first, second = lora_of(kata, A, B, alpha), lora_of(kata, *other[:3])
    both = [(first, x, g), (second, *other[3:])]
    for lora, factors in ((first, one), (second, other)):
        written(lora, A=factors[0], B=factors[1])
    deltas = []
    for lora, x, g in both:
        delta, cache = run(lora, x.numpy())
        deltas.append(sent(delta))
        lora.backward(g.numpy(), cache)
    for lora, *_ in both:
        lora.update(0.3)
    return deltas, [(sent(lora.A), sent(lora.B)) for lora, *_ in both]


@part("init")
def test_instances_share_nothing(stage, draw):
    """Two instances that take turns have factors and gradients of their own."""
    one, other = case(draw), case(draw)
    both, factors = stage(beside, one.given, other.given)
    for c, delta, after in zip((one, other), both, factors):
        equals(delta, c.delta(), "delta of one of two instances that take turns")
        for name, got, want in zip("AB", after, c.stepped(0.3)):
            what = f"{name} of one of two instances that take turns, after its step"
            equals(got, want, what)


# shape

SHAPES = ((7, 5, 3, 4), (4, 4, 4, 4), (2, 3, 8, 2))  # square; a rank above both sizes
SHAPES += ((3, 2, 2, 300), (70, 40, 33, 2))  # large
SHAPES += ((7, 5, 3, 1), (7, 5, 1, 4), (1, 5, 3, 4), (7, 1, 3, 4), (1, 1, 1, 1))


@part("shape")
def test_any_sizes(stage, draw):
    """x: (N, d_in) gives delta: (N, d_out) and a gradient (N, d_in); dA and dB are shaped as A and
    B. N, d_in, d_out and r may be 1, all the same, or r the largest."""
    for number, (d_in, d_out, r, n) in enumerate(SHAPES):
        small = case(draw, d_in, d_out, r, n)
        what = f" at d_in={d_in}, d_out={d_out}, r={r}, N={n}"
        with blame("size-one-lost" if number and 1 in (d_in, d_out, r, n) else None):
            delta, grads = stage(both_ways, *small.given)
        with sizes(small, delta, grads):
            equals(delta, small.delta(), f"delta{what}")
            graded(small, grads, what)


@contextmanager
def sizes(case, delta, grads):
    """Says that a size of 1 was lost, where numbers are right and a shape is not."""
    try:
        yield
    except CheckFailed as error:
        pairs = zip((delta, *grads), (case.delta(), *case.gradients()))
        lost = [
            1 in want.shape and got.numel() == want.numel() and got.ndim < want.ndim
            for got, want in pairs
            if isinstance(got, Tensor) and got.shape != want.shape
        ]
        if lost and all(lost):
            error.bug = "size-one-lost"
        raise


def of_views(kata, A, B, alpha, x, g, layout):
    """Of views, in any order of memory, or of an array that cannot be written."""
    x, g = x.numpy(), g.numpy()
    if layout == "with strides":
        x, g = (v.repeat(2, axis=0)[::2] for v in (x, g))
    else:
        x, g = (v.copy(order="F" if "order" in layout else "C") for v in (x, g))
    x.flags.writeable, g.flags.writeable = "only x" not in layout, "only grad" not in layout
    lora = lora_of(kata, A, B, alpha)
    delta, cache = run(lora, x)
    return sent(delta), gradients(lora, g, cache)


LAYOUTS = {  # and the mistake of what fails there only
    "in Fortran's order": None,
    "with strides": None,
    "with a read-only x": "changes-input-in-place",
    "with a read-only grad_output": "g-changed-in-place",
}


@part("shape")
def test_arrays_of_any_layout(stage, draw):
    """x and grad_output may be views, in any order of memory, and read-only."""
    batch = case(draw)
    for layout, bug in LAYOUTS.items():
        with blame(bug, "read-only"):
            delta, grads = stage(of_views, *batch.given, layout)
        equals(delta, batch.delta(), f"delta of arrays {layout}")
        graded(batch, grads, f" of arrays {layout}")


# forward


@part("forward")
def test_scaled_low_rank_update(stage, draw):
    """delta = scale * x @ A.T @ B.T with scale = alpha / r."""
    with blame("delta-alone-returned", "two things"):
        for r in (3, 2):
            batch = case(draw, r=r)
            deltas(batch, stage(output, *batch.given[:4]))


@part("forward")
def test_alpha(stage, draw):
    """alpha is r where none is given; it may be 0, whole or not, of any sign and size."""
    for alpha in (None, 0, 0.0, 0.4, 1, 5, -2.5, 4096):
        batch = case(draw, alpha=alpha)
        known = {"alpha-zero-is-none": batch.delta(1.0)} if alpha == 0 else {}
        got, grads = stage(both_ways, *batch.given)
        equals(got, batch.delta(), f"delta at alpha={alpha}", unless=known)
        graded(batch, grads, f" at alpha={alpha}")


def keywords(kata, A, B, alpha, x, g):
    lora = kata.LoRA(r=A.shape[0], d_out=B.shape[0], d_in=A.shape[1], init_scale=0.1, alpha=alpha)
    written(lora, A=A, B=B)
    _, cache = lora.forward(x=x.numpy())
    back = lora.backward(cache=cache, grad_output=g.numpy())
    grads = sent(lora.dA), sent(lora.dB), sent(back)
    lora.update(lr=0.3)
    return grads, sent(lora.A), sent(lora.B)


@part("forward")
def test_arguments_by_keyword(stage, draw):
    """Arguments may be given by their names."""
    batch = case(draw)
    grads, *factors = stage(keywords, *batch.given)
    graded(batch, grads)
    for name, got, want in zip("AB", factors, batch.stepped(0.3)):
        equals(got, want, f"{name} after update(lr=0.3)")


def moments(kata, first, second, x):
    """delta and the merged update before and after the factors are written over."""
    lora = lora_of(kata, *first)
    seen = [(sent(run(lora, x.numpy())[0]), sent(lora.get_merged_delta()))]
    written(lora, A=second[0], B=second[1])
    for _ in range(2):
        seen.append((sent(run(lora, x.numpy())[0]), sent(lora.get_merged_delta())))
    return seen


def _moments(stage, draw):
    one, other = case(draw), case(draw)
    other = Case(other.A, other.B, one.x, one.g)
    return one, other, stage(moments, one.given[:3], other.given[:3], one.x)


@part("forward")
def test_follows_the_factors(stage, draw):
    """forward() uses A and B as they are at that moment."""
    one, other, seen = _moments(stage, draw)
    known = {"old-factors-used": one.delta()}
    equals(seen[0][0], one.delta(), "delta")
    for delta, _ in seen[1:]:
        equals(delta, other.delta(), "delta after A and B were changed in place", unless=known)


def kept(kata, A, B, alpha, x, g):
    lora, seen = lora_of(kata, A, B, alpha), []
    _, cache = run(lora, x.numpy())
    seen.append((sent(lora.A), sent(lora.B)))
    lora.backward(g.numpy(), cache)
    return [*seen, (sent(lora.A), sent(lora.B))]


def returned(kata, A, B, alpha, batches):
    """What the first forward() and backward() have returned, once others have run."""
    lora, seen = lora_of(kata, A, B, alpha), []
    for x, g in batches:
        delta, cache = run(lora, x.numpy())
        seen.append((delta, lora.backward(g.numpy(), cache)))
    return [sent(value) for value in seen[0]]


@part("forward")
def test_changes_nothing_else(stage, draw):
    """x and grad_output are not changed in place, and A and B change in update() only. What
    forward() and backward() have returned stays as it was."""
    batch, other = case(draw), case(draw)
    delta, dx = stage(returned, *batch.given[:3], [(c.x, c.g) for c in (batch, other)])
    equals(delta, batch.delta(), "delta, once another forward() has run,")
    equals(dx, batch.gradients()[2], "the gradient of x, once another backward() has run,")
    for call, factors in zip(("forward", "backward"), stage(kept, *batch.given)):
        for name, got, want in zip("AB", factors, (batch.A, batch.B)):
            equals(got, want, f"{name} after {call}()")


# gradient


@part("gradient")
def test_gradients(stage, draw):
    """dA and dB are the means over the batch of the samples' gradients, and backward() returns
    the gradient of x, not averaged."""
    for r in (3, 2):
        batch = case(draw, r=r)
        with blame("gradients-not-set", "has no `dA`", "has no `dB`"):
            _, grads = stage(both_ways, *batch.given)
        graded(batch, grads)


STEP = 1e-4


def slopes(kata, A, B, alpha, x, g):
    """dA, dB, and the central differences of the file's own forward()."""
    import numpy as np

    lora, x, g = lora_of(kata, A, B, alpha), x.numpy(), g.numpy()
    grads = gradients(lora, g, run(lora, x)[1])
    found = []
    for factor in (lora.A, lora.B):
        slope = np.zeros(factor.shape)
        for at in np.ndindex(factor.shape):
            middle, ends = factor[at], []
            for sign in (1, -1):
                factor[at] = middle + sign * STEP
                ends.append((np.asarray(run(lora, x)[0]) * g).sum() / len(x))
            factor[at] = middle
            slope[at] = (ends[0] - ends[1]) / (2 * STEP)
        found.append(sent(slope))
    return grads[:2], found


@part("gradient")
def test_central_differences(stage, draw):
    """dA and dB are what central differences of (delta * grad_output).sum() / N give."""
    batch = case(draw, n=6)
    grads, found = stage(slopes, *batch.given)
    for name, got, slope in zip(("dA", "dB"), grads, found):
        what = f"{name}, held against central differences of your forward(),"
        equals(got, slope, what, rtol=1e-6, atol=1e-7)


def crossed(kata, A, B, alpha, batches):
    """Two forwards, then their backwards in the same order; and with an instance in between."""
    lora, other = lora_of(kata, A, B, alpha), lora_of(kata, A, B, alpha)
    arrays = [(x.numpy(), g.numpy()) for x, g in batches]
    caches = [run(lora, x)[1] for x, _ in arrays]
    seen = [gradients(lora, g, cache) for (_, g), cache in zip(arrays, caches)]
    (x, g), (last, _) = arrays
    _, cache = run(lora, x)
    run(other, last)
    return [*seen, gradients(lora, g, cache)]


@part("gradient")
def test_backward_uses_the_cache_it_is_given(stage, draw):
    """backward() belongs to the forward() whose cache it gets, whatever ran since."""
    bug, first = "backward-uses-the-last-forward", case(draw)
    with blame("gradients-not-set", "has no `dA`", "has no `dB`"):
        graded(first, stage(both_ways, *first.given)[1])  # alone it is right
    for n in (4, 6):  # as large a batch, then a larger one
        other = case(draw, n=n)
        second = Case(first.A, first.B, other.x, other.g)
        with blame(bug):
            seen = stage(crossed, *first.given[:3], [(c.x, c.g) for c in (first, second)])
        dA, dB, _ = first.gradients()
        slips = dA * 4 / n, dB * 4 / n  # the size of the last batch
        if n == 4:
            slips = Case(first.A, first.B, second.x, first.g).gradients()
        for grads in (seen[0], seen[2]):
            for name, got, want, slip in zip(("dA", "dB"), grads, first.gradients(), slips):
                what = f"{name} of a forward() that was not the last"
                equals(got, want, what, unless={bug: slip})
            equals(grads[2], first.gradients()[2], "the gradient of x, of an earlier forward(),")
        graded(second, seen[1])


def in_turn(kata, cases):
    """Gradients of one instance, whose factors are written over between the batches."""
    lora, seen = lora_of(kata, *cases[0][:3]), []
    for A, B, _, x, g in cases:
        written(lora, A=A, B=B)
        seen.append(gradients(lora, g.numpy(), run(lora, x.numpy())[1]))
    return seen


@part("gradient")
def test_gradients_are_replaced(stage, draw):
    """Each backward() replaces dA and dB: nothing is added up, nor kept where they are zero."""
    first, second = case(draw), case(draw)
    second = Case(first.A, first.B, second.x, second.g)
    cases = [first, second]
    for name in ("x", "g", "B", "A"):
        zero = {name: torch.zeros_like(getattr(first, name))}
        cases += [replace(first, **zero), second]
    seen = stage(in_turn, [c.given for c in cases])
    graded(first, seen[0])
    before, after = first.gradients(), second.gradients()
    for name, got, old, new in zip(("dA", "dB"), seen[1], before, after):
        known = {"gradients-add-up": old + new}
        equals(got, new, f"{name} after a second backward()", unless=known)
    for each, got in zip(cases[2:], seen[2:]):
        for name, value, want in zip(("dA", "dB", "the gradient of x"), got, each.gradients()):
            equals(value, want, f"{name} after a backward() with zeros, or the next,")


def steps(kata, A, B, alpha, batches, *lrs):
    lora, seen, grads = lora_of(kata, A, B, alpha), [], []
    for number, (x, g) in enumerate(batches):
        _, cache = run(lora, x.numpy())
        grads.append(gradients(lora, g.numpy(), cache))
        lora.update(lrs[number % len(lrs)])
        seen.append((sent(lora.A), sent(lora.B)))
    return seen, sent(run(lora, batches[0][0].numpy())[0]), sent(lora.get_merged_delta()), grads


@part("gradient")
def test_update(stage, draw):
    """update(lr) lowers A by lr * dA and B by lr * dB; what follows uses them so."""
    batch, lr = case(draw), 0.3
    dA, dB, _ = batch.gradients()
    ((A, B),), delta, merged, _ = stage(steps, *batch.given[:3], [(batch.x, batch.g)], lr)
    one, two = batch.stepped(lr)
    late_A = Case(batch.A, two, batch.x, batch.g).gradients()[0]
    late_B = Case(one, batch.B, batch.x, batch.g).gradients()[1]
    late = "update-one-after-the-other"
    for name, got, want, start, slope, later in (
        ("A", A, one, batch.A, dA, late_A),
        ("B", B, two, batch.B, dB, late_B),
    ):
        unless = {"update-climbs": start + lr * slope, late: start - lr * later}
        equals(got, want, f"{name} after update({lr})", unless=unless)
    before = [(batch.A, two), (one, batch.B), (batch.A, batch.B)]
    old = [Case(*factors, batch.x, batch.g) for factors in before]
    for name, bug, got, formula in (
        ("delta", "old-factors-used", delta, Case.delta),
        ("get_merged_delta()", "merged-delta-stale", merged, Case.merged),
    ):
        stale = isinstance(got, Tensor) and any(close(got, formula(c), 1e-9, 1e-9) for c in old)
        want = formula(Case(one, two, batch.x, batch.g))
        equals(got, want, f"{name} after update({lr})", bug=bug if stale else None)


LRS = (0.3, 0.0, -0.2, 2.0)


@part("gradient")
def test_training_goes_on(stage, draw):
    """Steps follow each other, each from the factors that the last one left, from B at zero too;
    lr is any number."""
    for zeros in ("", "B", "A"):
        now, pairs, want, grads = case(draw), [], [], []
        now = replace(now, **{name: torch.zeros_like(getattr(now, name)) for name in zeros})
        start, what = now.given[:3], f", {zeros} being zero at first" if zeros else ""
        for n, lr in zip((4, 2, 4, 3), LRS):
            more = case(draw, n=n)
            now = replace(now, x=more.x, g=more.g)
            pairs.append((now.x, now.g))
            grads.append(now.gradients())
            want.append(now.stepped(lr))
            now = replace(now, A=want[-1][0], B=want[-1][1])
        seen, delta, merged, found = stage(steps, *start, pairs, *LRS)
        for number, (got, right) in enumerate(zip(seen, want), 1):
            for name, value, expected in zip("AB", got, right):
                equals(value, expected, f"{name} after {number} steps{what}")
        for number, (got, right) in enumerate(zip(found, grads), 1):
            for name, value, expected in zip(("dA", "dB", "the gradient of x"), got, right):
                equals(value, expected, f"{name} of step {number}{what}")
        last = replace(now, x=pairs[0][0])
        equals(delta, last.delta(), f"delta after {len(LRS)} steps{what}")
        equals(merged, last.merged(), f"get_merged_delta() after {len(LRS)} steps{what}")


# merge


def merged_of(kata, A, B, alpha):
    return sent(lora_of(kata, A, B, alpha).get_merged_delta())


@part("merge")
def test_merged_delta(stage, draw):
    """get_merged_delta() is scale * B @ A, (d_out, d_in)."""
    for d_out, r in ((5, 3), (7, 2)):
        batch = case(draw, d_out=d_out, r=r)
        got, square = stage(merged_of, *batch.given[:3]), d_out == 7
        known = {bug: batch.merged(scale) for bug, scale in batch.scales().items()}
        known["merged-delta-unscaled"] = known.pop("scale-missing")
        transposed = "merged-delta-transposed"
        if square:
            known[transposed] = batch.merged().T
        turned = isinstance(got, Tensor) and got.shape == (7, d_out) and not square
        bug = transposed if turned else None
        equals(got, batch.merged(), "get_merged_delta()", unless=known, bug=bug)


@part("merge")
def test_merged_delta_follows_the_factors(stage, draw):
    """get_merged_delta() is of A and B as they are at that moment."""
    one, other, seen = _moments(stage, draw)
    known = {"merged-delta-stale": one.merged()}
    equals(seen[0][1], one.merged(), "get_merged_delta()")
    for _, merged in seen[1:]:
        what = "get_merged_delta() after A and B were changed in place"
        equals(merged, other.merged(), what, unless=known)
