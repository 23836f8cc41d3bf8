"""What is checked of `subspace_similarity`. Contract: LoRA (Hu et al. 2021), sections 7.2, 7.3."""

import itertools
import math
from functools import lru_cache

import torch
from torch.nn import functional as F

from grader.exam.checks import Raised, blame, fail, part, require
from grader.suites.shared.spectra import (
    attempted,
    disturbed,
    falling,
    numbers,
    of_spectrum,
    parameters,
    rejects_word,
    turned,
    under_other_state,
)

# What is right, and what known mistakes give; all in float64


@lru_cache(32)
def directions(A):
    """Right-singular vectors (d, r), strongest first."""
    return torch.linalg.svd(A.double(), full_matrices=False).Vh.T


def squares(U, V):
    """||U^T V||_F^2."""
    return float((U.T @ V).square().sum())


def right(A1, A2, i, j):
    return squares(directions(A1)[:, :i], directions(A2)[:, :j]) / min(i, j)


def overlap(A1, A2, i, j):
    """U1_i^T U2_j."""
    return directions(A1)[:, :i].T @ directions(A2)[:, :j]


def with_directions(of, divisor=min):
    """The formula on other directions: `of(A, k)` (d, k) gives them."""

    def phi(A1, A2, i, j):
        first, second = of(A1.double(), i), of(A2.double(), j)
        if len(first) != len(second):
            return math.nan
        return squares(first, second) / divisor(i, j)

    return phi


def taken(first, second, divisor=min):
    """The formula with other numbers of directions: `first(i, j)` of A1, `second(i, j)` of A2."""

    def phi(A1, A2, i, j):
        one, two = first(i, j), second(i, j)
        return squares(directions(A1)[:, :one], directions(A2)[:, :two]) / divisor(i, j)

    return phi


def divided(by):
    return lambda A1, A2, i, j: right(A1, A2, i, j) * min(i, j) / by(i, j)


def left(A, k):
    return torch.linalg.svd(A, full_matrices=False).U[:, :k]


def columns_of_vh(signs):
    """Here the signs of singular vectors matter, which are anyone's choice."""

    def phi(A1, A2, i, j):
        if not len(A1) == len(A2) == A1.shape[1] == len(signs):
            return math.nan
        turn = torch.tensor(signs, dtype=torch.float64)[:, None]
        return squares(directions(A1).T[:, :i], turn * directions(A2).T[:, :j]) / min(i, j)

    return phi


def weighted(A, k):
    values = torch.linalg.svdvals(A)
    return (directions(A) * values)[:, :k]


def centred(dim):
    return with_directions(lambda A, k: directions(A - A.mean(dim, keepdim=True))[:, :k])


def unit_rows(A, k):
    return F.normalize(A[:k], dim=1).T


ALL = 10**6
FORMS = {
    "left-singular-vectors": [with_directions(left)],
    "columns-of-vh": [columns_of_vh(signs) for signs in itertools.product((1, -1), repeat=5)],
    "over-max": [divided(max)],
    "over-product": [divided(lambda i, j: i * j)],
    "over-i": [divided(lambda i, j: i)],
    "over-j": [divided(lambda i, j: j)],
    "not-divided": [divided(lambda i, j: 1)],
    "norm-not-squared": [
        lambda *case: float(overlap(*case).norm()) / min(case[2:]),
        lambda *case: math.sqrt(right(*case)),
    ],
    "cosines-not-squared": [
        lambda *case: float(torch.linalg.matrix_norm(overlap(*case), "nuc")) / min(case[2:])
    ],
    "rows-centred": [centred(0), centred(1)],
    "weighted": [with_directions(weighted)],
    "not-sliced": [
        taken(lambda i, j: ALL, lambda i, j: ALL),
        taken(lambda i, j: i, lambda i, j: ALL),
        taken(lambda i, j: ALL, lambda i, j: j),
    ],
    "weakest-first": [with_directions(lambda A, k: directions(A).flip(1)[:, :k])],
    "off-by-one": [
        taken(lambda i, j: i + 1, lambda i, j: j + 1),
        taken(lambda i, j: i - 1, lambda i, j: j - 1),
        taken(lambda i, j: i + 1, lambda i, j: j + 1, lambda i, j: min(i, j) + 1),
    ],
    "one-count-for-both": [taken(min, min), taken(max, max)],
    "first-rows": [
        with_directions(lambda A, k: torch.linalg.qr(A[:k].T)[0]),
        with_directions(unit_rows),
        with_directions(lambda A, k: A[:k].T),
    ],
}


def both_sides(W, B, A):
    """||BA|| and U^T W V."""
    W, update, r = W.double(), B.double() @ A.double(), len(A)
    U, _, Vh = torch.linalg.svd(update, full_matrices=False)
    return float(update.norm()), U[:, :r].T @ W @ Vh[:r].T


def ratio(W, B, A):
    top, inside = both_sides(W, B, A)
    return top / float(inside.norm())


def over(below):
    """||BA|| over the norm of another matrix, `below(W, B, A, U, S, V)`."""

    def amplification(W, B, A):
        W, B, A = W.double(), B.double(), A.double()
        U, S, Vh = torch.linalg.svd(B @ A, full_matrices=False)
        r = len(A)
        return float((B @ A).norm() / below(W, B, A, U[:, :r], S[:r], Vh[:r].T).norm())

    return amplification


def transposed(W, B, A, U, S, V):
    return U.T @ W.T @ V if len(W) == W.shape[1] else torch.tensor(math.nan)


def spectral(M):
    return float(torch.linalg.matrix_norm(M.double(), 2))


RATIOS = {
    "directions-of-w": [over(lambda W, B, A, U, S, V: torch.linalg.svdvals(W)[: len(A)])],
    "w-transposed": [over(transposed)],
    "ratio-inverted": [lambda *case: 1 / ratio(*case)],
    "ratio-squared": [lambda *case: ratio(*case) ** 2],
    "spectral-norm": [
        lambda W, B, A: spectral(B.double() @ A.double()) / spectral(both_sides(W, B, A)[1]),
        lambda W, B, A: spectral(B.double() @ A.double()) / float(both_sides(W, B, A)[1].norm()),
        lambda W, B, A: both_sides(W, B, A)[0] / spectral(both_sides(W, B, A)[1]),
    ],
    "not-projected": [over(lambda W, *_: W)],
    "projected-on-one-side": [
        over(lambda W, B, A, U, S, V: U.T @ W),
        over(lambda W, B, A, U, S, V: W @ V),
    ],
    "factors-for-bases": [over(lambda W, B, A, *_: B.T @ W @ A.T)],
    "product-of-norms": [
        lambda W, B, A: ratio(W, B, A) * float(B.norm() * A.norm()) / both_sides(W, B, A)[0]
    ],
    "tuned-weight-projected": [over(lambda W, B, A, U, S, V: U.T @ (W + B @ A) @ V)],
}


# Inputs


def pair(draw, r1, r2, d, dtype=torch.float32):
    return tuple(of_spectrum(draw, r, d, falling(r), dtype=dtype) for r in (r1, r2))


def every(A1, A2):
    """Cases of all i and j."""
    return [(A1, A2, i + 1, j + 1) for i in range(len(A1)) for j in range(len(A2))]


def layer(draw, out, into, r, dtype=torch.float32, ratio=0.8):
    """W, B, A: W is not small in the directions of BA, and larger in others. ratio: how the
    singular values of BA fall."""
    U, V, turn, mix = (turned(draw, *s) for s in ((out, r), (into, r), (r, r), (r, r)))
    root = falling(r, ratio).sqrt()
    W = draw(out, into, dtype=torch.float64) + 2 * U @ mix @ V.T
    return tuple(M.to(dtype) for M in (W, 3 * (U * root) @ turn, turn.T @ (V * root).T))


def phi_words(A1, A2, i, j):
    return f"phi of A1 {tuple(A1.shape)} and A2 {tuple(A2.shape)} for i={i}, j={j}"


def ratio_words(W, B, A):
    return f"amplification of W {tuple(W.shape)} by an update of rank {len(A)}"


def phis(kata, cases):
    return [kata.phi(*case) for case in cases]


def ratios(kata, cases):
    return [kata.amplification(*case) for case in cases]


def are_similar(got, cases, forms=None, tolerance=1e-3, **more):
    numbers(got, cases, right, phi_words, forms, atol=tolerance, **more)


def are_ratios(got, cases, forms=None, tolerance=1e-3, **more):
    numbers(got, cases, ratio, ratio_words, forms, rtol=tolerance, **more)


def similar(stage, cases, forms=FORMS, **more):
    are_similar(stage(phis, cases), cases, forms, **more)


def amplified(stage, cases, forms=RATIOS, **more):
    are_ratios(stage(ratios, cases), cases, forms, **more)


# forward


@part("forward")
def test_overlap_of_the_top_directions(stage, draw):
    """||U1_i^T U2_j||_F^2 / min(i, j), of right-singular vectors, strongest first."""
    similar(stage, every(*pair(draw, 5, 5, 5)))
    similar(stage, every(*pair(draw, 4, 4, 9)))
    similar(stage, every(*pair(draw, 6, 6, 7)))


@part("forward")
def test_limits(stage, draw):
    """1 where one subspace holds the other, 0 where they are orthogonal."""
    A, shared = pair(draw, 4, 3, 8)
    rows = turned(draw, 8, 6).T.float()
    mixed = torch.diag(torch.tensor([3.0, 2.0, 1.5])) @ rows[:3]
    cases = [(A, A, i, j) for i, j in ((1, 1), (2, 2), (4, 4), (1, 4), (4, 2))]
    cases += [(A, -2 * A, 3, 3), (rows[:3], mixed, 3, 3), (mixed, rows[:3], 2, 3)]
    cases += [(rows[:3], rows[3:], 3, 3), (mixed, rows[3:], 2, 3)]
    similar(stage, cases, {})
    similar(stage, every(shared, shared), {})


@part("forward")
def test_any_size_of_values(stage, draw):
    """Only directions count: not the size of A1 and A2, nor equal singular values above a cut."""
    A1, A2 = pair(draw, 4, 4, 9)
    for size in (1e-5, 1e5):
        similar(stage, every(A1 * size, A2), {})
        similar(stage, every(A1, A2 * size), {})
    level = torch.tensor([1.0, 1.0, 1.0, 0.4, 0.2], dtype=torch.float64)
    A1, A2 = of_spectrum(draw, 5, 8, level), of_spectrum(draw, 5, 8, level)
    similar(stage, [(A1, A2, i, j) for i in (3, 4, 5) for j in (3, 4, 5)], {})
    similar(stage, every(*(of_spectrum(draw, 6, 9, falling(6, 0.64)) for _ in "12")), {})


@part("forward")
def test_without_full_rank(stage, draw):
    """A1 and A2 need not have full rank; i and j are then up to it."""
    A1, A2 = (of_spectrum(draw, r, 8, falling(k)) for r, k in ((5, 3), (6, 4)))
    similar(stage, [(A1, A2, i, j) for i in (1, 2, 3) for j in (1, 2, 3, 4)])
    A1, A2 = of_spectrum(draw, 5, 5, falling(3)), of_spectrum(draw, 4, 5, falling(1))
    similar(stage, [(A1, A2, i, 1) for i in (1, 2, 3)], {})


@part("forward")
def test_amplification(stage, draw):
    """||BA||_F / ||U^T W V||_F, with the top r singular vectors of BA."""
    amplified(stage, [layer(draw, 7, 7, r) for r in (2, 3, 4, 2, 3, 4)])
    amplified(stage, [layer(draw, 6, 9, r) for r in (2, 3, 4, 5)])
    amplified(stage, [layer(draw, 10, 7, r) for r in (2, 3, 4, 5)])


@part("forward")
def test_amplification_of_any_rank_and_size(stage, draw):
    """r is 1 up to min(out, in); W and BA may be large, small, negative, and BA near lower rank."""
    sizes = (
        (6, 8, 1),
        (6, 8, 6),
        (9, 5, 5),
        (5, 5, 5),
        (1, 4, 1),
        (4, 1, 1),
        (1, 1, 1),
        (20, 30, 8),
    )
    cases = [layer(draw, *size) for size in sizes]
    amplified(stage, cases + [(-W, B, A) for W, B, A in cases], {})
    steep = [(6, 8, 2, 0.11), (9, 7, 3, 0.33), (20, 24, 12, 0.82)]
    amplified(stage, [layer(draw, *size, ratio=ratio) for *size, ratio in steep], {})
    for large, small in ((1e4, 1e-4), (1e-4, 1e4)):
        W, B, A = layer(draw, 6, 8, 3)
        amplified(stage, [(W * large, B, A), (W, B * large, A * large), (W, B * large, A * small)])


def by_keyword(kata, A1, A2, i, j, W, B, A):
    return [kata.phi(j=j, i=i, A2=A2, A1=A1)], [kata.amplification(A=A, B=B, W=W)]


@part("forward")
def test_arguments_by_name(stage, draw):
    """Arguments may be given by name."""
    case, weights = (*pair(draw, 4, 5, 7), 3, 2), layer(draw, 6, 9, 3)
    similarity, factor = stage(by_keyword, *case, *weights)
    are_similar(similarity, [case])
    are_ratios(factor, [weights])


def of_parameters(kata, A1, A2, i, j, W, B, A):
    seen, left = [], []
    values = A1, A2, W, B, A
    for odd in (True, False):
        trains = [odd, not odd, odd, not odd, odd]
        given = parameters(values, trains)
        both, weights = given[:2], given[2:]
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                seen.append((kata.phi(*both, i, j), kata.amplification(*weights)))
        left += disturbed(given, values, trains)
        seen.append((kata.phi(both[0], both[0], i, i), kata.amplification(*weights)))
        for counts in ((0, 1), (1, 0)):
            attempted(kata.phi, *both, *counts)
        left += disturbed(given, values, trains)
    return seen, left


@part("forward")
def test_parameters_are_left_alone(stage, draw):
    """Arguments may be nn.Parameters; they stay as they are, whatever the call ends in."""
    case = (*pair(draw, 4, 4, 7), 3, 2)
    same = (case[0], case[0], 3, 3)
    for r in (3, 1):
        weights = layer(draw, 6, 9, r)
        similar(stage, [case], {})
        amplified(stage, [weights], {})
        with blame("parameters-refused", "requires grad", "requires_grad"):
            seen, left = stage(of_parameters, *case, *weights)
        for place, what in left:
            fail(f"{what} of {('A1', 'A2', 'W', 'B', 'A')[place]} changed by the call")
        are_similar([similarity for similarity, _ in seen], [case, case, same] * 2)
        are_ratios([factor for _, factor in seen], [weights] * 6)


def elsewhere(kata, A1, A2, i, j, W, B, A):
    similarity, left = under_other_state(kata.phi, A1, A2, i, j)
    factor, also = under_other_state(kata.amplification, W, B, A)
    _, after_error = under_other_state(kata.phi, A1, A2, 0, j)
    return similarity, factor, left + also + after_error


@part("forward")
def test_other_state(stage, draw):
    """Under no_grad and with another default dtype it does the same, and leaves both so."""
    case, weights = (*pair(draw, 4, 5, 7), 3, 2), layer(draw, 6, 9, 3)
    similarity, factor, left = stage(elsewhere, *case, *weights)
    are_similar([similarity], [case])
    are_ratios([factor], [weights])
    require(not left, f"The call has changed torch's global state: {left[0] if left else ''}")


def of_the_moment(kata, first, others, i, j, weights, later):
    both, three = [M.clone() for M in first], [M.clone() for M in weights]
    seen = [kata.phi(*both, i, j)], [kata.amplification(*three)]
    for now, new, call, came in (
        (both, others, lambda: kata.phi(*both, i, j), seen[0]),
        (three, later, lambda: kata.amplification(*three), seen[1]),
    ):
        for place, value in zip(now, new):
            place.data.copy_(value)
            came.append(call())
    return seen[0] + [kata.phi(*first, i, j), kata.phi(*both, j, i)], seen[1]


@part("forward")
def test_values_of_the_moment(stage, draw):
    """Each call counts the values of the moment, whatever was asked before."""
    (A1, A2), (A3, A4) = pair(draw, 4, 4, 7), pair(draw, 4, 4, 7)
    (W, B, A), (X, C, D) = layer(draw, 6, 9, 3), layer(draw, 6, 9, 3)
    similar_ones, factors = stage(of_the_moment, (A1, A2), (A3, A4), 2, 3, (W, B, A), (X, C, D))
    pairs = [(A1, A2), (A3, A2), (A3, A4), (A1, A2)]
    are_similar(similar_ones, [(*both, 2, 3) for both in pairs] + [(A3, A4, 3, 2)])
    are_ratios(factors, [(W, B, A), (X, B, A), (X, C, A), (X, C, D)])


# shape


@part("shape")
def test_any_numbers_of_rows(stage, draw):
    """A1 and A2 may have different numbers of rows, 1 up to d."""
    sizes = (
        (5, 3, 8),
        (3, 6, 6),
        (8, 2, 8),
        (1, 4, 5),
        (4, 1, 4),
        (1, 1, 6),
        (1, 1, 1),
        (4, 8, 40),
    )
    for size in sizes:
        similar(stage, every(*pair(draw, *size)))
    large = of_spectrum(draw, 30, 300, falling(30, 0.88))
    turned_rows = turned(draw, 30, 30).float() @ large
    similar(stage, [(large, turned_rows, i, j) for i, j in ((5, 5), (10, 4))])
    A1, A2 = (of_spectrum(draw, r, 40, falling(r, 0.86)) for r in (14, 16))
    similar(stage, [(A1, A2, i, j) for i, j in ((14, 16), (12, 9), (3, 13), (11, 11))])


def of_views(kata, wide, tall, i, j, W, B, A):
    wide, tall = torch.cat([wide, wide], 1)[:, : wide.shape[1]], tall.T.contiguous().T
    W, B, A = (M.T.contiguous().T for M in (W, B, A))
    return [kata.phi(wide, tall, i, j)], [kata.amplification(W, B, A)]


@part("shape")
def test_non_contiguous(stage, draw):
    """Arguments need not be contiguous."""
    case, weights = (*pair(draw, 4, 5, 7), 3, 2), layer(draw, 6, 9, 3)
    similarity, factor = stage(of_views, *case, *weights)
    are_similar(similarity, [case])
    are_ratios(factor, [weights])


# dtype


def kinds(kata, case, weights):
    return [
        (type(value).__name__, isinstance(value, float))
        for value in (kata.phi(*case), kata.amplification(*weights))
    ]


@part("dtype")
def test_python_floats(stage, draw):
    """Both functions return a Python float."""
    for dtype in (torch.float32, torch.float64):
        case = (*pair(draw, 4, 5, 7, dtype), 3, 2)
        seen = stage(kinds, case, layer(draw, 6, 9, 3, dtype))
        for name, (kind, plain) in zip(("phi", "amplification"), seen):
            require(plain, f"{name} returns a {kind}, not a Python float", "not-a-float")


@part("dtype")
def test_float64(stage, draw):
    """float64 arguments give both to 1e-8."""
    cases = [
        case
        for size in ((4, 5, 7), (5, 5, 5), (3, 3, 30))
        for case in every(*pair(draw, *size, dtype=torch.float64))
    ]
    A1, A2 = (of_spectrum(draw, r, 40, falling(r, 0.88), dtype=torch.float64) for r in (20, 14))
    cases += [(A1, A2, i, j) for i, j in ((1, 7), (2, 3), (5, 3), (9, 6), (10, 10))]
    exactly(stage, cases, phis, similar)
    sizes = [(*size, r) for size in ((6, 9), (9, 6), (7, 7)) for r in (1, 2, 4)]
    exactly(stage, [layer(draw, *size, torch.float64) for size in sizes], ratios, amplified)


def exactly(stage, cases, call, rule):
    rule(stage, cases)
    rule(stage, cases, {}, tolerance=1e-5)  # what is further off is no float32
    rough = [
        tuple(M.float().double() if isinstance(M, torch.Tensor) else M for M in case)
        for case in cases
    ]
    # What float32 does not hold makes no difference then.
    blind = stage(call, cases) == stage(call, rough)
    rule(stage, cases, {}, tolerance=1e-8, bug="in-float32" if blind else None)


# errors


def phi_of(kata, A1, A2, i, j):
    return kata.phi(A1, A2, i, j)


def phi_of_one(kata, A, i, j):
    return kata.phi(A, A, i, j)


def checked(outcome):
    return isinstance(outcome, Raised) and outcome.deliberate


def outside(stage, draw, name, r1, r2, d):
    """Counts below 1 and above the rows are rejected. Names what they are held to instead."""
    A1, A2 = pair(draw, r1, r2, d)
    similar(stage, [(A1, A2, 2, 1)], {})
    own, other = (r1, r2) if name == "i" else (r2, r1)
    found = {
        k: stage.attempt(phi_of, A1, A2, *((k, 1) if name == "i" else (1, k)))
        for k in (own + 1, other + 1, d + 1, 0, -1)
    }
    mixed_up = own < other and checked(found[other + 1])
    above = f"{name}-unchecked" if not checked(found[d + 1]) else None if mixed_up else "up-to-d"
    below = "counts-below-1" if checked(found[own + 1]) else above
    for k, outcome in found.items():
        what = f"phi of A1 ({r1}, {d}) and A2 ({r2}, {d}) for {name}={k}"
        if not 1 <= k <= own:
            rejects_word(outcome, name, what=what, bug=below if k < 1 else above)
    for k in (0, -1, r1 + 1, d + 1):
        counts = (k, 1) if name == "i" else (1, k)
        for outcome in (
            stage.attempt(phi_of_one, A1, *counts),
            stage.attempt(phi_of, A1, A1.clone(), *counts),
        ):
            rejects_word(outcome, name, what=f"phi of one A ({r1}, {d}) for {name}={k}", bug=None)
    similar(stage, [(A1, A2, r1, r2)], {})


@part("errors")
def test_i_out_of_range(stage, draw):
    """i outside 1..r1: ValueError naming `i`."""
    outside(stage, draw, "i", 3, 5, 8)
    outside(stage, draw, "i", 5, 3, 8)


@part("errors")
def test_j_out_of_range(stage, draw):
    """j outside 1..r2: ValueError naming `j`."""
    outside(stage, draw, "j", 5, 3, 8)
    outside(stage, draw, "j", 3, 5, 8)
