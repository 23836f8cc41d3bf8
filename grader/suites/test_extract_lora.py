"""What is checked of `extract_lora`. Contract: Eckart and Young 1936; LoRA, section 4.1."""

import math

import torch

from grader.exam.checks import Raised, blame, described, fail, part, require, tensor
from grader.suites.shared.spectra import (
    attempted,
    disturbed,
    falling,
    number,
    numbers,
    of_spectrum,
    parameters,
    rejects_word,
    turned,
    under_other_state,
)

# How far BA (in units of ||dW||) and rel_error may be off
TOLERANCE = {
    torch.float32: (1e-4, 1e-4),
    torch.float64: (1e-8, 1e-7),
    torch.bfloat16: (4e-2, 4e-2),
}


# What is right, and what known mistakes give; all in float64


def change(W0, W1):
    return W1.double() - W0.double()


def cut(M, keep):
    """U S V^T of some of the singular values of M; `keep` is a slice."""
    U, S, Vh = torch.linalg.svd(M, full_matrices=False)
    return (U[:, keep] * S[keep]) @ Vh[keep]


def best(M, rank):
    return cut(M, slice(rank))


def respelled(power):
    """The singular values raised to a power."""

    def product(W0, W1, rank):
        U, S, Vh = torch.linalg.svd(change(W0, W1), full_matrices=False)
        return (U[:, :rank] * S[:rank] ** power) @ Vh[:rank]

    return product


PRODUCTS = {
    "difference-reversed": [lambda W0, W1, rank: best(change(W1, W0), rank)],
    "split-loses-a-root": [respelled(0.5)],
    "s-applied-twice": [respelled(2), respelled(1.5)],
    "s-left-out": [respelled(0)],
    "w1-decomposed": [lambda W0, W1, rank: best(W1.double(), rank)],
    "weakest-kept": [
        lambda W0, W1, rank: cut(change(W0, W1), slice(min(W0.shape) - rank, None)),
    ],
}


def parts(W0, W1, rank):
    """Norms of what is cut off and of the whole change, and its singular values."""
    S = torch.linalg.svdvals(change(W0, W1))
    return float(S[rank:].norm()), float(S.norm()), S


def error(W0, W1, rank):
    lost, whole, _ = parts(W0, W1, rank)
    return lost / whole


def of_parts(formula):
    """A number from what is lost, the whole change, and the singular values."""
    return lambda W0, W1, rank: float(formula(*parts(W0, W1, rank), rank))


def of_weight(M, W0, W1, rank):
    return parts(W0, W1, rank)[0] / (float(M.double().norm()) or math.nan)


ERRORS = {
    "error-squared": [lambda *case: error(*case) ** 2],
    "error-not-divided": [of_parts(lambda lost, whole, S, r: lost)],
    "error-relative-to-the-weight": [
        lambda W0, W1, rank: of_weight(W1, W0, W1, rank),
        lambda W0, W1, rank: of_weight(W0, W0, W1, rank),
    ],
    "error-relative-to-the-factors": [of_parts(lambda lost, whole, S, r: lost / S[:r].norm())],
    "kept-for-lost": [
        of_parts(lambda lost, whole, S, r: S[:r].norm() / whole),
        of_parts(lambda lost, whole, S, r: (S[:r].norm() / whole) ** 2),
        of_parts(lambda lost, whole, S, r: 1 - lost / whole),
    ],
    "error-in-the-spectral-norm": [
        of_parts(lambda lost, whole, S, r: S[r] / S[0] if r < len(S) else 0.0)
    ],
    "singular-values-added": [of_parts(lambda lost, whole, S, r: S[r:].sum() / S.sum())],
    "error-one-rank-off": [
        lambda W0, W1, rank: error(W0, W1, rank + 1),
        lambda W0, W1, rank: error(W0, W1, rank - 1),
    ],
}


# Judging


def words(W0, W1, rank):
    kind = str(W0.dtype).removeprefix("torch.")
    return f"{kind} weights {tuple(W0.shape)}, rank {rank}"


def triple(got, case):
    """B, A and rel_error; the factors have their shapes and dtype."""
    (out, into), rank, what = case[0].shape, case[2], words(*case)
    three = isinstance(got, tuple) and len(got) == 3
    require(three, f"extract_lora should return a tuple: B, A, rel_error; not {described(got)}")
    B, A, came = got
    B, A = tensor(B, "B"), tensor(A, "A")
    shapes = tuple(B.shape), tuple(A.shape)
    if shapes != ((out, rank), (rank, into)):
        text = f"{what}: B is {shapes[0]}, A {shapes[1]}, expected {(out, rank)}, {(rank, into)}"
        fail(text, _shape_bug(*shapes, out, into, rank))
    for name, factor in (("B", B), ("A", A)):
        alike = factor.dtype == case[0].dtype
        text = f"{what}: {name} is {str(factor.dtype).removeprefix('torch.')}"
        require(alike, text, "factors-in-another-dtype")
    return B, A, number(came, f"{what}: rel_error")


def _shape_bug(B, A, out, into, rank):
    """The mistake that shapes show."""
    if len({out, into, rank}) < 3:
        return None  # then one mistake looks like another
    known = {
        "factors-swapped": {((rank, into), (out, rank))},
        "factors-transposed": {((rank, out), (into, rank))},
        "weights-transposed": {((into, rank), (rank, out))},
        "rank-off-by-one": {
            ((out, rank + by), (rank + by, into)) for by in (-1, 1) if rank + by > 0
        },
        "not-sliced": {
            (b, a)
            for b in ((out, rank), (out, out), (out, min(out, into)))
            for a in ((rank, into), (into, into), (min(out, into), into))
        },
    }
    found = [bug for bug, shapes in known.items() if (B, A) in shapes]
    return found[0] if len(found) == 1 else None


def away(M, want, unit):
    """||M - want|| in this unit; NaN counts as far away."""
    value = float((M - want).norm()) / unit
    return math.inf if math.isnan(value) else value


def judge(got, cases, *, within=None, bug=None, error_bug=None):
    """Factors and errors of each case are right. within: tolerances in the place of those of the
    contract; bug, error_bug: named where no other mistake is seen, of BA or of rel_error."""
    factors = [triple(one, case) for one, case in zip(got, cases, strict=True)]
    dtype = cases[0][0].dtype
    named = len(cases) > 1 and dtype != torch.bfloat16
    at_product, at_error = within or TOLERANCE[dtype]
    changes = [change(W0, W1) for W0, W1, _ in cases]
    units = [float(right.norm()) for right in changes]
    products = [B.double() @ A.double() for B, A, _ in factors]

    def is_of(way):
        """Whether all products are those of this formula, which may not be next to nothing."""
        made = [way(*case) for case in cases]
        fits = (away(*one) <= at_product for one in zip(products, made, units))
        return all(fits) and all(M.norm() > 1e-2 * unit for M, unit in zip(made, units))

    for product, right, unit, case in zip(products, changes, units, cases):
        off = away(product, best(right, case[2]), unit)
        if off > at_product:
            ways = PRODUCTS if named else {}
            matching = [name for name, forms in ways.items() if any(map(is_of, forms))]
            fail(
                f"{words(*case)}: BA is off by {off:.2g} of the change; "
                "expected the nearest matrix of this rank",
                matching[0] if len(matching) == 1 else bug,
            )
    errors, forms = [came for *_, came in factors], ERRORS if named else None
    numbers(errors, cases, error, error_words, forms, atol=at_error, bug=error_bug)


def error_words(*case):
    return f"rel_error of {words(*case)}"


# Inputs


def weights(draw, out, into, rank, values=None, dtype=torch.float32, size=3.0):
    """W0, W1 and a rank. values: the singular values of their difference."""
    values = falling(min(out, into, 8)) if values is None else values
    W0 = draw(out, into, dtype=dtype)
    return W0, trained(draw, W0, values, size), rank


def trained(draw, W0, values, size=3.0):
    """W0 and a change of these singular values."""
    return (W0.double() + size * of_spectrum(draw, *W0.shape, values).double()).to(W0.dtype)


def extracted(kata, cases):
    return [kata.extract_lora(*case) for case in cases]


def extract(stage, cases, **more):
    judge(stage(extracted, cases), cases, **more)


# forward


@part("forward")
def test_nearest_of_its_rank(stage, draw):
    """BA is the best approximation of W1 - W0 of rank r, rel_error what it lacks of it."""
    extract(stage, [weights(draw, 7, 10, rank) for rank in (2, 3, 4, 5)])
    extract(stage, [weights(draw, 12, 6, rank) for rank in (1, 2, 3, 4)])
    extract(stage, [weights(draw, 8, 8, rank) for rank in (1, 3, 5, 7)])
    Q, values = turned(draw, 6, 6), torch.tensor([1, -1, -1, 1, -1, 1]) * falling(6)
    M = ((Q * values) @ Q.T).float()
    symmetric = (M + M.T) / 2
    extract(stage, [(torch.zeros(6, 6), symmetric, rank) for rank in (2, 3, 4)])


@part("forward")
def test_any_change(stage, draw):
    """A change is seen whatever its sum and the norms of W0 and W1; one of a single entry too."""
    W = of_spectrum(draw, 6, 8, falling(6))
    half = (of_spectrum(draw, 6, 4, falling(4)) * 64).round() / 64  # the sum is exact
    extract(stage, [(W, -W, 3), (torch.zeros(6, 8), torch.cat([half, -half], 1), 2)])
    W0 = draw(7, 10)
    for place in (2, (slice(None), 3), (4, 5)):
        for start in (W0, torch.zeros(7, 10)):
            W1 = start.clone()
            W1[place] += 2 + draw(7, 10)[place].abs()
            extract(stage, [(start, W1, rank) for rank in (1, 3)])


@part("forward")
def test_of_low_rank(stage, draw):
    """A change of rank r or less is found again, nothing is lost; noise on it is, to its size."""
    sizes = ((7, 10, 3), 3), ((10, 7, 5), 2), ((6, 6, 6), 1)
    exact = [weights(draw, *size, falling(k)) for size, k in sizes]
    faint = torch.cat([falling(3), 1.25e-4 * falling(3).norm()[None]])
    M = of_spectrum(draw, 9, 12, faint, dtype=torch.float64)
    nearly = [(torch.zeros(9, 12), (M * size).float(), 3) for size in (0.3, 1.0, 2.0, 7.0)]
    cases = [*exact, *nearly, *(weights(draw, 7, 10, rank) for rank in (2, 3, 4))]
    got = stage(extracted, cases)
    errors = [triple(one, case)[2] for one, case in zip(got, cases)]
    # The root of a difference, or of a small eigenvalue, is off where its square is but rounded.
    squares = [came**2 - error(*case) ** 2 for came, case in zip(errors, cases)]
    rounded = not any(abs(off) > 1e-6 for off in squares)
    judge(got, cases, error_bug="error-cancels" if rounded else None)
    double, zeros = torch.float64, torch.zeros(9, 12, dtype=torch.float64)
    ranks = (1, 2, 3, 4, 5, *(6, 7) * 12, 8)  # where a difference of sums may be below 0
    exact = [(zeros, of_spectrum(draw, 9, 12, falling(k), dtype=double), k) for k in ranks]
    extract(stage, exact)
    for level in (1e-3, 0.05):
        noisy = torch.cat([falling(3), level * falling(4)])
        extract(stage, [weights(draw, *size, 3, noisy) for size in ((7, 10), (10, 7), (9, 9))])


@part("forward")
def test_nothing_changed(stage, draw):
    """Where nothing has changed BA is zero and rel_error 0.0."""
    extract(stage, [weights(draw, 5, 7, 2)])
    for dtype in TOLERANCE:
        W = draw(5, 7, dtype=dtype)
        for W0, W1 in ((W, W), (W, W.clone()), (W * 0, torch.zeros_like(W))):  # -0.0 is 0
            with blame("unchanged-divides-by-zero", "division by zero"):
                (got,) = stage(extracted, [(W0, W1, 3)])
            B, A, came = triple(got, (W0, W1, 3))
            product, what = B.double() @ A.double(), "Where nothing has changed"
            finite = math.isfinite(came) and bool(product.isfinite().all())
            require(finite, f"{what} there are NaNs", "unchanged-divides-by-zero")
            require(not product.any(), f"{what} BA is not zero")
            require(came == 0, f"{what} rel_error is {came:.6g}", "unchanged-error-not-zero")


@part("forward")
def test_small_and_large_changes(stage, draw):
    """A change is a change, however small it is beside the weights; however large, too."""
    W0 = draw(20, 24)
    W0 = W0 + W0.sign()
    W1 = W0 * (1 + 8e-6 * draw(20, 24).abs().clamp(max=1))
    (got,) = stage(extracted, [(W0, W1, 6)])
    B, A, came = triple(got, (W0, W1, 6))
    missed = not (B.double() @ A.double()).any() and came == 0
    require(not missed, "A change of 8e-6 of the weights is not seen", "close-taken-for-equal")
    M = of_spectrum(draw, 20, 24, falling(8), dtype=torch.float64)
    sizes = (1e-9, 1e-3, 1e5), (1e-17, 1e-8, 1e5), (1e-9, 1e7)
    for dtype, of_dtype in zip(TOLERANCE, sizes):
        for size in of_dtype:
            W1 = (M * size).to(dtype)
            extract(stage, [(torch.zeros_like(W1), W1, 4), (W1, W1 * 0.5, 3)])
    extract(stage, [weights(draw, 9, 12, 3, dtype=torch.float64, size=1e-9)])


@part("forward")
def test_ties_at_the_cut(stage, draw):
    """Where singular values tie at the cut, any best approximation is right."""
    for out, into, rank in ((6, 6, 2), (6, 9, 4), (9, 6, 1)):
        level = torch.ones(min(out, into), dtype=torch.float64)
        case = weights(draw, out, into, rank, level)
        (got,) = stage(extracted, [case])
        B, A, _ = triple(got, case)
        M = change(*case[:2])
        lost = float((M - B.double() @ A.double()).norm() / M.norm())
        text = f"{words(*case)}, equal singular values: {lost:.6g} is lost, {error(*case):.6g} must"
        require(abs(lost - error(*case)) <= 1e-4, text)
        numbers([got[2]], [case], error, error_words, atol=1e-4)


def by_keyword(kata, W0, W1, rank):
    return kata.extract_lora(rank=rank, W1=W1, W0=W0)


@part("forward")
def test_arguments_by_name(stage, draw):
    """Arguments may be given by name."""
    case = weights(draw, 7, 10, 3)
    judge([stage(by_keyword, *case)], [case])


def of_parameters(kata, W0, W1, rank):
    seen, left = [], []
    for trains in ((True, True), (False, True), (True, False)):
        given = parameters((W0, W1), trains)
        first, second = given
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                seen.append(kata.extract_lora(first, second, rank))
        left += disturbed(given, (W0, W1), trains)
        (
            kata.extract_lora(first, first, rank),
            kata.extract_lora(second, second.detach().clone(), rank),
        )
        attempted(kata.extract_lora, first, second, 0)
        left += disturbed(given, (W0, W1), trains)
    return seen, left


@part("forward")
def test_weights_are_left_alone(stage, draw):
    """W0 and W1 may be nn.Parameters; they stay as they are, whatever the call ends in."""
    for dtype in TOLERANCE:
        case = weights(draw, 7, 10, 3, dtype=dtype)
        judge([stage(by_keyword, *case)], [case])
        with blame("parameters-refused", "requires grad", "requires_grad", "leaf Variable"):
            seen, left = stage(of_parameters, *case)
        for place, what in left:
            bug = f"W{place}-changed-in-place" if what == "values" else None
            fail(f"{what} of W{place}, an nn.Parameter, changed by the call", bug)
        judge(seen, [case] * len(seen))


def elsewhere(kata, W0, W1, rank):
    came, left = under_other_state(kata.extract_lora, W0, W1, rank)
    same, also = under_other_state(kata.extract_lora, W0, W0, rank)
    _, after_error = under_other_state(kata.extract_lora, W0, W1, 0)
    return came, same, left + also + after_error


@part("forward")
def test_other_state(stage, draw):
    """Under no_grad and with another default dtype it does the same, and leaves both so."""
    case = weights(draw, 7, 10, 3)
    came, same, left = stage(elsewhere, *case)
    judge([came], [case])
    B, A, _ = triple(same, (case[0], case[0], 3))
    require(not (B @ A).any(), "Where nothing has changed BA is not zero")
    require(not left, f"The call has changed torch's global state: {left[0] if left else ''}")


def of_the_moment(kata, W0, W1, new1, new0, rank):
    first, second = W0.clone(), W1.clone()
    B, A, before = kata.extract_lora(first, second, rank)
    seen = [(B.clone(), A.clone(), before), (B, A, before)]
    second.data.copy_(new1)
    seen.append(kata.extract_lora(first, second, rank))
    first.data.copy_(new0)
    return [*seen, *(kata.extract_lora(first, second, r) for r in (rank, rank - 1))]


@part("forward")
def test_values_of_the_moment(stage, draw):
    """Each call decomposes the weights of the moment; what an earlier one returned stays."""
    W0, W1, _ = weights(draw, 7, 7, 3)
    new1 = trained(draw, W0, falling(7))
    new0 = trained(draw, new1, falling(7))
    cases = [(W0, W1, 3), (W0, W1, 3), (W0, new1, 3), (new0, new1, 3), (new0, new1, 2)]
    judge(stage(of_the_moment, W0, W1, new1, new0, 3), cases)


# shape


@part("shape")
def test_any_shape_and_rank(stage, draw):
    """Tall, wide and square weights, of one row or column too; rank 1 up to min(out, in)."""
    sizes = ((9, 5, 1), (5, 9, 1), (5, 9, 4), (6, 6, 2), (40, 30, 8), (3, 50, 2))
    extract(stage, [weights(draw, *size) for size in sizes])
    noisy = torch.cat([falling(6), 0.2 * falling(60, 0.99)])
    extract(stage, [weights(draw, 66, 140, 6, noisy)])
    whole = ((9, 5, 5), (5, 9, 5), (6, 6, 6), (1, 7, 1), (7, 1, 1), (1, 1, 1))
    cases = [weights(draw, *size) for size in whole]
    extract(stage, cases + [(W1, W0, rank) for W0, W1, rank in cases])


def of_views(kata, W0, W1, rank):
    pairs = (
        (W0.T.contiguous().T, W1),
        (torch.cat([W0, W0], 1)[:, : W0.shape[1]], W1.T.contiguous().T),
    )
    return [kata.extract_lora(*pair, rank) for pair in (*pairs, torch.stack([W0, W1]))]


@part("shape")
def test_non_contiguous(stage, draw):
    """W0 and W1 need not be contiguous, and may be parts of one tensor."""
    case = weights(draw, 7, 10, 3)
    judge(stage(of_views, *case), [case] * 3)


# dtype


def kind(kata, W0, W1, rank):
    value = kata.extract_lora(W0, W1, rank)[2]
    return type(value).__name__, isinstance(value, float)


@part("dtype")
def test_rel_error_is_a_float(stage, draw):
    """rel_error is a Python float, also where nothing has changed."""
    for dtype in TOLERANCE:
        W0, W1, rank = weights(draw, 7, 10, 3, dtype=dtype)
        for after in (W1, W0):
            name, plain = stage(kind, W0, after, rank)
            require(plain, f"rel_error is a {name}, not a Python float", "not-a-float")


@part("dtype")
def test_float64(stage, draw):
    """float64 weights give float64 factors, right to 1e-8."""
    double, sizes = torch.float64, ((7, 10, 3), (12, 6, 4), (8, 8, 5), (40, 33, 4))
    level = torch.cat([falling(3), 1e-4 * falling(3)])
    faint = torch.cat([falling(3), torch.tensor([1e-5, 1e-6, 1e-7])])
    cases = [weights(draw, *size, dtype=double) for size in sizes]
    cases += [weights(draw, *size, level, double) for size in ((9, 7, 3), (6, 20, 3))]
    cases += [weights(draw, *size, faint, double) for size in ((9, 7, 4), (7, 9, 6), (6, 20, 5))]
    extract(stage, cases, within=(1e-5, 1e-5))
    zeros = torch.zeros(7, 10, dtype=double)
    M = trained(draw, zeros, falling(7))
    (B, A, _), (C, D, _) = stage(extracted, [(zeros, W1, 3) for W1 in (M, M.float().double())])
    blind = torch.equal(B @ A, C @ D)  # what float32 does not hold makes no difference
    extract(stage, cases, bug="in-float32" if blind else None)


@part("dtype")
def test_bfloat16(stage, draw):
    """bfloat16 weights give bfloat16 factors; the decomposition is done in float32 or better."""
    sizes = (7, 10, 3), (12, 6, 4), (8, 8, 5), (6, 6, 6)
    extract(stage, [weights(draw, *size) for size in sizes])
    half = [weights(draw, *size, dtype=torch.bfloat16) for size in sizes]
    with blame("svd-in-bfloat16", "BFloat16", "bfloat16"):
        got = stage(extracted, half)
    judge(got, half)


# errors


def checked(outcome):
    return isinstance(outcome, Raised) and outcome.deliberate


def of_rank(kata, W0, W1, rank):
    return kata.extract_lora(W0, W1, rank)


def of_one(kata, W, rank):
    return kata.extract_lora(W, W, rank)


@part("errors")
def test_rank_out_of_range(stage, draw):
    """rank outside 1..min(out, in): ValueError naming `rank`, also where nothing has changed."""
    for out, into in ((4, 7), (7, 4), (5, 5)):
        W0, W1, top = weights(draw, out, into, min(out, into))
        extract(stage, [(W0, W1, top)])
        found = {
            k: stage.attempt(of_rank, W0, W1, k) for k in (top + 1, max(out, into) + 1, 50, 0, -1)
        }
        larger = checked(found[max(out, into) + 1])
        above = "held-to-the-larger-side" if larger and out != into else "rank-unchecked"
        below = "rank-below-1" if checked(found[top + 1]) else above
        for k, outcome in found.items():
            what = f"rank={k} for weights ({out}, {into})"
            rejects_word(outcome, "rank", what=what, bug=below if k < 1 else above)
        for k in found:
            what = f"rank={k} for weights ({out}, {into}) that have not changed"
            for outcome in (
                stage.attempt(of_rank, W0, W0.clone(), k),
                stage.attempt(of_one, W0, k),
            ):
                rejects_word(outcome, "rank", what=what, bug="unchanged-before-checked")


# gpu


def on_device(kata, W0, W1, rank, device):
    B, A, lost = kata.extract_lora(W0.to(device), W1.to(device), rank)
    C, D, _ = kata.extract_lora(W0.to(device), W0.to(device), rank)
    return (B, A, lost), [M.device.type for M in (B, A, C, D)]


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """On the accelerator the factors stay there."""
    for size in ((7, 10, 3), (12, 6, 4)):
        case = weights(draw, *size)
        got, places = stage(on_device, *case, stage.device)
        for name, place in zip("BABA", places):
            require(place == stage.device, f"{name} is on {place}, the weights on {stage.device}")
        judge([got], [case], within=(1e-3, 1e-3))
