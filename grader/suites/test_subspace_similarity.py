"""What is checked of `subspace_similarity`. Contract: LoRA (Hu et al. 2021), sections 7.2, 7.3."""

import itertools
import math
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional as F

from grader.exam.checks import Raised, blame, part, require, same
from grader.suites.shared.spectra import falling, numbers, of_spectrum, rejects_word, turned

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
    "largest-cosine": [
        lambda *case: float(torch.linalg.matrix_norm(overlap(*case), 2)) ** 2,
        lambda *case: float(torch.linalg.matrix_norm(overlap(*case), 2)) ** 2 / min(case[2:]),
    ],
    "rows-centred": [centred(0), centred(1)],
    "i-and-j-swapped": [taken(lambda i, j: j, lambda i, j: i)],
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
    "one-direction-each": [
        lambda A1, A2, i, j: (
            squares(directions(A1)[:, i - 1 : i], directions(A2)[:, j - 1 : j]) / min(i, j)
        ),
        lambda A1, A2, i, j: squares(directions(A1)[:, i - 1 : i], directions(A2)[:, j - 1 : j]),
    ],
    "first-rows": [
        with_directions(lambda A, k: torch.linalg.qr(A[:k].T)[0]),
        with_directions(unit_rows),
        with_directions(lambda A, k: A[:k].T),
    ],
    "distance": [lambda *case: 1 - right(*case)],
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
    "ratio-weighted": [
        over(lambda W, B, A, U, S, V: (U * S).T @ W @ V),
        over(lambda W, B, A, U, S, V: (U * S).T @ W @ (V * S)),
    ],
    "diagonal-only": [over(lambda W, B, A, U, S, V: (U.T @ W @ V).diagonal())],
    "product-of-norms": [
        lambda W, B, A: ratio(W, B, A) * float(B.norm() * A.norm()) / both_sides(W, B, A)[0]
    ],
    "top-direction-only": [over(lambda W, B, A, U, S, V: U[:, :1].T @ W @ V[:, :1])],
    "tuned-weight-projected": [over(lambda W, B, A, U, S, V: U.T @ (W + B @ A) @ V)],
}


# Inputs


def pair(draw, r1, r2, d, dtype=torch.float32):
    return tuple(of_spectrum(draw, r, d, falling(r), dtype=dtype) for r in (r1, r2))


def every(A1, A2):
    """Cases of all i and j."""
    return [(A1, A2, i + 1, j + 1) for i in range(len(A1)) for j in range(len(A2))]


def layer(draw, out, into, r, dtype=torch.float32):
    """W, B, A: W is not small in the directions of BA, and larger in others."""
    U, V, turn, mix = (turned(draw, *s) for s in ((out, r), (into, r), (r, r), (r, r)))
    root = falling(r).sqrt()
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
    """r is 1 up to min(out, in); large and small W and BA."""
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
    amplified(stage, [layer(draw, *size) for size in sizes], {})
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
    given = [nn.Parameter(M.clone()) for M in (A1, A2, W, B, A)]
    seen = []
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            seen.append((kata.phi(*given[:2], i, j), kata.amplification(*given[2:])))
    first, second = given[0], given[2]
    twice = kata.phi(first, first, i, j), kata.amplification(second, given[3], given[4])
    left = [p.requires_grad and p.is_leaf and p.grad is None for p in given]
    return [*seen, twice], [p.detach().clone() for p in given], left


@part("forward")
def test_parameters_are_left_alone(stage, draw):
    """Arguments may be nn.Parameters; they stay as they are, and so does what they require."""
    case, weights = (*pair(draw, 4, 4, 7), 3, 2), layer(draw, 6, 9, 3)
    similar(stage, [case], {})
    amplified(stage, [weights], {})
    with blame("parameters-refused", "requires grad", "requires_grad"):
        seen, after, left = stage(of_parameters, *case, *weights)
    for name, now, was in zip(("A1", "A2", "W", "B", "A"), after, (*case[:2], *weights)):
        same(now, was, name)
    cases = [case, case, (case[0], case[0], *case[2:])]
    are_similar([similarity for similarity, _ in seen], cases)
    are_ratios([factor for _, factor in seen], [weights] * 3)
    require(all(left), "A parameter no longer requires a gradient, or has got one")


def of_the_moment(kata, first, others, i, j, weights, later):
    A1, A2, W, B, A = (M.clone() for M in (*first, *weights))
    kata.phi(A1, A2, i, j), kata.amplification(W, B, A)
    for place, value in zip((A1, A2, W, B, A), (*others, *later)):
        place.copy_(value)
    return kata.phi(A1, A2, i, j), kata.amplification(W, B, A), kata.phi(*first, i, j)


@part("forward")
def test_values_of_the_moment(stage, draw):
    """Each call counts the values of the moment, whatever was asked before."""
    first, others = pair(draw, 4, 4, 7), pair(draw, 4, 4, 7)
    weights, later = layer(draw, 6, 9, 3), layer(draw, 6, 9, 3)
    changed, factor, again = stage(of_the_moment, first, others, 2, 3, weights, later)
    are_similar([changed, again], [(*others, 2, 3), (*first, 2, 3)])
    are_ratios([factor], [later])


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
        (type(value).__name__, isinstance(value, (int, float)) and not isinstance(value, bool))
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
    similar(stage, cases)
    similar(stage, cases, {}, tolerance=1e-5)  # what is further off is no float32
    similar(stage, cases, {}, tolerance=1e-8, bug="in-float32")
    sizes = [(*size, r) for size in ((6, 9), (9, 6), (7, 7)) for r in (1, 2, 4)]
    weights = [layer(draw, *size, torch.float64) for size in sizes]
    amplified(stage, weights)
    amplified(stage, weights, {}, tolerance=1e-5)
    amplified(stage, weights, {}, tolerance=1e-8, bug="in-float32")


# errors


def phi_of(kata, A1, A2, i, j):
    return kata.phi(A1, A2, i, j)


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
    above = f"{name}-unchecked"
    if own < other and checked(found[other + 1]):
        turned_round = (A2, A1, other, 1) if name == "i" else (A2, A1, 1, other)
        if checked(stage.attempt(phi_of, *turned_round)):
            above = "rows-of-the-other"
    elif checked(found[d + 1]):
        above = "up-to-d"
    below = "counts-below-1" if checked(found[own + 1]) else above
    for k, outcome in found.items():
        what = f"phi of A1 ({r1}, {d}) and A2 ({r2}, {d}) for {name}={k}"
        if not 1 <= k <= own:
            rejects_word(outcome, name, what=what, bug=below if k < 1 else above)
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
