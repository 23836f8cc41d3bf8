"""What is checked of `galore`. Contract: GaLore (Zhao et al. 2024), sections 3 and 4.

The second route: directions from an SVD in float64, Adam's moments as weighted means of all
low-rank gradients so far. Bases are compared up to order and sign of their vectors.
"""

from dataclasses import dataclass, replace
from functools import partial

import torch

from grader.exam.checks import TOLERANCE, blame, close, fail, near, part, require, same, tensor
from grader.exam.kit import nn
from grader.suites.shared.properties import at_least_one
from grader.suites.shared.wrapped import nearest

WIDE, TALL, SQUARE = (4, 7), (7, 4), (5, 5)
LARGE = (72, 90), (90, 72)


# Gradients, and the right directions


def gradient(draw, m, n, dtype=torch.float32, apart=(1.2, 1.4)):
    """(m, n): each singular value is by a factor within `apart` larger than the next, and no entry
    of a singular vector is near zero, where Adam's first step would jump; a large one may have
    such entries. Its singular values are closer, the largest is 1."""
    k, large = min(m, n), min(m, n) > 20
    apart = (1.1, 1.12) if large else apart
    factors = [apart[0] + (apart[1] - apart[0]) * float(draw(1).sigmoid()) for _ in range(k)]
    sizes = torch.tensor(factors, dtype=torch.float64).cumprod(0).flip(0)
    sizes = sizes / sizes[0] if large else sizes
    while True:
        left, right = (draw.orthonormal(size, k, torch.float64) for size in (m, n))
        if large or min(float(v.abs().min()) for v in (left, right)) > 0.003:
            return ((left * sizes) @ right.T).to(dtype)


def several(draw, count, shape, dtype=torch.float32):
    return torch.stack([gradient(draw, *shape, dtype=dtype) for _ in range(count)])


def upright(matrix):
    """A wide one as it is, a tall one transposed: the directions are then the left ones."""
    return matrix if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT


def directions(grad, rank):
    """(min(m, n), r): the top singular vectors."""
    return torch.linalg.svd(upright(grad.double()), full_matrices=False)[0][:, :rank]


def low_of(basis, grad):
    """Upright: a row for each direction."""
    return basis.T @ upright(grad.double())


def back_of(basis, low, grad):
    """Of the gradient's own shape."""
    full = basis @ low
    return full if grad.shape[0] <= grad.shape[1] else full.T


def signs(rows, want):
    """The matrix that brings rows into the order and the signs of others, as far as they are the
    same: each goes to the one that it is nearest to, with either sign."""
    rows = rows.double().nan_to_num()
    off = torch.stack([torch.cdist(rows, want), torch.cdist(rows, -want)])
    best = off.amin(0).argmin(1, keepdim=True)
    turned = (off[1] < off[0]).gather(1, best)
    ones = torch.where(turned, -1.0, 1.0).double()
    return torch.zeros_like(off[0]).scatter(1, best, ones)


def alike(rows, want, dtype):
    """Whether these rows are those in some order and with some signs."""
    turn = signs(rows, want)
    one_each = bool((turn.abs().sum(0) == 1).all())
    return one_each and close(rows, turn @ want, *TOLERANCE[dtype])


# What project gives


def project(kata, grad, *given):
    return kata.GaLoreProjector(*given).project(grad)


def judged(got, grad, rank, scale=1.0, what="project(grad)"):
    """What project gives is right; returns the matrix from the right rows to its own."""
    (m, n), got = grad.shape, tensor(got, what)
    r, wide = min(rank, m, n), m <= n
    shape, want = tuple(got.shape), (r, n) if wide else (m, r)
    bug = None
    if shape == ((m, r) if wide else (r, n)):
        bug = "square-takes-right" if m == n else "sides-swapped"
    text = f"{what} of {(m, n)} at rank {rank} has shape {shape}, expected {want}"
    require(shape == want, text, bug)
    rows, right = got if wide else got.T, low_of(directions(grad, r), grad)
    if not alike(rows, right, grad.dtype):
        bug = mistaken(rows, right, grad, rank, scale)
        fail(f"{what}: {differing(rows, right)}", bug)
    near(rows, signs(rows, right) @ right, what=what, dtype=grad.dtype)
    return signs(rows, right)


def differing(rows, right):
    sizes, wanted = (v.double().norm(dim=1).sort(descending=True)[0] for v in (rows, right))
    told = ", ".join(f"{size:.4g}" for size in sizes), ", ".join(f"{size:.4g}" for size in wanted)
    return (
        f"the gradient's parts along the directions have sizes {told[0]}; along its top singular "
        f"vectors they have {told[1]}, and are orthogonal"
    )


def mistaken(rows, right, grad, rank, scale):
    """The known mistake that gives these rows, or None."""
    wide = upright(grad.double())
    U, r = torch.linalg.svd(wide, full_matrices=False)[0], len(right)
    forms = {
        "smallest-vectors": U[:, -rank:].T @ wide,
        "scale-in-project": scale * right,
    }
    found = [bug for bug, form in forms.items() if alike(rows, form, grad.dtype)]
    off, turn = (1e-3, 1e-3), rows.double() @ right.T / right.square().sum(1)
    mixed = r < min(grad.shape)  # a whole basis may be any
    mixed = mixed and bool(((turn.abs() > 0.1) & (turn.abs() < 0.99)).any())
    if (
        mixed
        and close(rows, turn @ right, *off)
        and close(turn @ turn.T, torch.eye(r).double(), *off)
    ):
        return "rotated-basis"
    return found[0] if len(found) == 1 else None


# shape


@part("shape")
def test_wide_gradient(stage, draw):
    """A gradient with m <= n is projected from the left: (r, n), along its top left singular
    vectors, in any order and of any sign; not along another basis of their span."""
    for rank in (2, 1, 3):
        grad = gradient(draw, *WIDE)
        judged(stage(project, grad, rank), grad, rank)


@part("shape")
def test_tall_gradient(stage, draw):
    """A gradient with m > n is projected from the right: (m, r), along its top right singular
    vectors."""
    for rank in (2, 1, 3):
        grad = gradient(draw, *TALL)
        judged(stage(project, grad, rank), grad, rank)


@part("shape")
def test_square_gradient(stage, draw):
    """A square gradient is projected from the left, a symmetric one too."""
    for rank in (3, 1):
        grad = gradient(draw, *SQUARE)
        judged(stage(project, grad, rank), grad, rank)
        U, sizes, _ = torch.linalg.svd(grad.double())
        turned = (U * sizes * torch.tensor([-1.0, 1, -1, -1, 1])) @ U.T
        grad = (turned + turned.T).float()
        judged(stage(project, grad, rank), grad, rank)


@part("shape")
def test_large_gradient(stage, draw):
    """So it is for a larger gradient, of which most directions are left out."""
    for shape in LARGE:
        run = run_of(draw, shape, 2, rank=3)
        judged(stage(project, run.grads[0], 3), run.grads[0], 3)
        lowered(steps_of(stage, run), run, unless={})


@part("shape")
def test_rank_is_cut(stage, draw):
    """A rank of min(m, n) or more counts as min(m, n)."""
    for shape in ((3, 5), (5, 3), (4, 4)):
        for rank in (min(shape), 100):
            grad = gradient(draw, *shape)
            with blame("large-rank-refused" if rank > min(shape) else None):
                low = stage(project, grad, rank)
            judged(low, grad, rank)


@part("shape")
def test_single_rows_and_columns(stage, draw):
    """A gradient may have one row, one column, or both."""
    for shape in ((1, 4), (4, 1), (1, 1)):
        grad = gradient(draw, *shape)
        judged(stage(project, grad, 2), grad, 2)


def project_view(kata, grad, rank, step):
    view = grad.mT[:, ::step]
    projector, strides = kata.GaLoreProjector(rank), view.stride()
    low = projector.project(view)
    back = projector.project_back(low.mT.contiguous().mT)
    return low, back, view, view.stride() == strides


@part("shape")
def test_non_contiguous_gradient(stage, draw):
    """Neither argument need be contiguous, and the gradient stays as it is, strides included."""
    for shape in ((4, 7), (7, 4), (9, 5)):
        given = gradient(draw, *shape)
        grad = given.mT.contiguous()
        low, back, left, kept = stage(project_view, given, 2, 1)
        judged(low, grad, 2)
        require(kept, "project changes the strides of the gradient")
        same(left, grad, "the gradient that project is given", "grad-changed-in-place")
        basis = directions(grad, 2)
        near(back, back_of(basis, low_of(basis, grad), grad), what="project_back of that")


# init


def of_seeds(kata, grad, rank, others):
    lows, after = [], []
    with torch.random.fork_rng(devices=[]):
        for seed in (1, 1, 2, 3, 4, 5, 6):
            torch.manual_seed(seed)
            lows.append(kata.GaLoreProjector(rank).project(grad))
            after.append(torch.rand(4))
    projector = kata.GaLoreProjector(rank, update_interval=1)
    late = [projector.project(one).clone() for one in others]
    fresh = [kata.GaLoreProjector(rank).project(one) for one in others]
    return lows, [projector.project(grad) for _ in range(3)], late, fresh, after


@part("init")
def test_same_for_the_same_gradient(stage, draw):
    """The same gradient gives the same directions, whatever random numbers there are and whatever
    gradients came before; torch's generator is not set."""
    for shape in (WIDE, TALL):
        grad, more = gradient(draw, *shape), several(draw, 5, shape)
        (first, *others), renewed, late, fresh, after = stage(of_seeds, grad, 2, more)
        for low in (first, *others, *renewed):
            tensor(low, "project(grad)")
        again, *others = [close(low, first, 1e-4, 1e-5) for low in others]
        text = "new projectors project one gradient in different ways"
        bug = "basis-random" if again else None
        require(again and all(others), f"{text}, depending on torch's random numbers", bug)
        judged(first, grad, 2)
        text = "a projector with update_interval=1 projects one gradient in different ways"
        require(all(close(low, first, 1e-4, 1e-5) for low in renewed), text)
        text = "of one gradient, new directions differ from those of a new projector"
        require(all(close(low, new, 1e-4, 1e-5) for low, new in zip(late, fresh)), text)
        text = "project sets the seed of torch's random numbers"
        require(not torch.equal(after[1], after[2]), text)


def made_with(kata, grads, args, words):
    projector = kata.GaLoreProjector(*args, **words)
    lows = [projector.project(g) for g in grads]
    return lows, projector.project_back(lows[-1])


@part("init")
def test_arguments(stage, draw):
    """rank, update_interval and scale are taken in this order or by name; scale is 1 if not
    given."""
    grads = several(draw, 3, WIDE)
    for args, words, interval, scale in (
        ((2, 2, 0.25), {}, 2, 0.25),
        ((), {"scale": 3.0, "update_interval": 1, "rank": 2}, 1, 3.0),
        ((2,), {}, 200, 1.0),
        ((2, 1, -1.5), {}, 1, -1.5),
        ((2, 1, 0), {}, 1, 0.0),
    ):
        lows, back = stage(made_with, grads, args, words)
        given = ", ".join([*map(str, args), *(f"{k}={v}" for k, v in words.items())])
        judged(lows[0], grads[0], 2, scale)
        basis = directions(grads[2 if interval < 3 else 0], 2)
        want = back_of(basis, low_of(basis, grads[2]), grads[2])
        near(back, scale * want, what=f"project_back of a third gradient, made with ({given})")


# forward: the projector


def sequence(kata, grads, rank, interval, backs, shared=False):
    """The low-rank gradients; the full ones are overwritten after each call. shared: all are given
    in one tensor."""
    projector = kata.GaLoreProjector(rank, update_interval=interval)
    lows, given = [], [torch.zeros_like(grads[0])] * len(grads) if shared else list(grads.clone())
    for grad, values in zip(given, grads):
        grad.copy_(values)
        lows.append(projector.project(grad).clone())
        grad.zero_()
        for _ in range(backs):
            projector.project_back(lows[-1].clone())
    return lows


def used(lows, grads, rank, skipped=0):
    """The number (from 1) of the gradient along whose directions each one was projected; those of
    the first gradients may be skipped."""
    numbers, bases = [1] * skipped, [directions(grad, rank) for grad in grads]
    for at, low in enumerate(lows, skipped):
        rows = upright(tensor(low, "project(grad)"))
        rights = [low_of(basis, grads[at]) for basis in bases[: at + 1]]
        found = [j + 1 for j, right in enumerate(rights) if alike(rows, right, rows.dtype)]
        numbers.append(max(found, default=0))
    return numbers


def renewed(calls, count):
    """Which call's directions are used, if they are renewed at these calls."""
    return [max(c for c in calls if c <= at) for at in range(1, count + 1)]


def schedule(interval, count):
    """The right one, and those of known mistakes."""
    every = range(1, count + 1)
    return renewed(every[::interval], count), {
        "renewed-at-every-call": list(every),
        "never-renewed": [1] * count,
        "renewed-one-early": renewed([1, *every[interval - 1 :: interval]], count),
        "renewed-one-late": renewed([1, *every[interval + 1 :: interval + 1]], count),
    }


def follows(numbers, interval, what, bug=None):
    """bug: what is named in the place of the known mistakes; "" names none."""
    want, known = schedule(interval, len(numbers))
    if bug is None:
        bug = next((name for name, other in known.items() if other == numbers), None)
    text = (
        f"{what} the calls of project used the directions of gradients {told(numbers)}; with "
        f"update_interval={interval} they should use those of {told(want)}"
    )
    require(numbers == want, text, bug or None)


def told(numbers):
    return ", ".join(str(n) if n else "none" for n in numbers)


@part("forward")
def test_directions_are_kept(stage, draw):
    """The directions are computed at calls 1, 1 + update_interval, ... and kept in between,
    themselves and not the gradient."""
    for shape, interval in ((WIDE, 3), (TALL, 4), (WIDE, 1), (SQUARE, 2)):
        grads = several(draw, 2 * interval + 2, shape)
        lows = stage(sequence, grads, 2, interval, 0)
        judged(lows[0], grads[0], 2)
        numbers, turns = used(lows, grads, 2), {}
        follows(numbers, interval, "in a row")
        for low, grad, number in zip(lows, grads, numbers):
            rows, right = upright(low), low_of(directions(grads[number - 1], 2), grad)
            turn = turns.setdefault(number, signs(rows, right))
            near(rows, turn @ right, what="project(grad) along kept directions")
    lows = stage(sequence, grads, 2, interval, 0, shared=True)
    follows(used(lows, grads, 2), interval, "with all gradients in one tensor", "")


@part("forward")
def test_zero_gradient(stage, draw):
    """A call with a gradient of zeros counts like any other."""
    grads = several(draw, 5, WIDE)
    grads[1] = 0
    numbers = used(stage(sequence, grads, 2, 3, 0), grads, 2)
    follows([1, 1, *numbers[2:]], 3, "with zeros as the second gradient", "")


@part("forward")
def test_project_back_does_not_count(stage, draw):
    """Only calls of project count."""
    grads = several(draw, 8, WIDE)
    for interval, backs in ((3, 2), (4, 1)):
        lows = stage(sequence, grads, 2, interval, backs)
        what = f"with {backs} of project_back after each"
        follows(used(lows, grads, 2), interval, what, "")


def long_run(kata, grads, rank):
    projector = kata.GaLoreProjector(rank)
    first, second = grads
    lows = [projector.project(first)]
    lows += [projector.project(second) for _ in range(200)]
    return lows[0], lows[1], lows[199], lows[200]


@part("forward")
def test_default_interval(stage, draw):
    """update_interval is 200 if not given."""
    grads = several(draw, 2, (2, 3))
    lows = stage(long_run, grads, 1)
    judged(lows[0], grads[0], 1)
    places = grads[[0, 1, 1, 1]]
    numbers = [1 if n == 1 else 2 for n in used(lows, places, 1)]
    text = "without update_interval, calls 1, 2 and 200 should use the directions of the first "
    text += f"gradient, call 201 new ones; new (2) or not (1): {told(numbers)}"
    require(numbers == [1, 1, 1, 2], text)


def there_and_back(kata, grads, extra, rank, scale):
    projector = kata.GaLoreProjector(rank, 100, scale)
    first = projector.project(grads[0])
    lows = [first, *(projector.project(grad) for grad in grads[1:])]
    return first, [projector.project_back(low) for low in lows], projector.project_back(extra)


@part("forward")
def test_project_back(stage, draw):
    """project_back gives (m, n): what lies along the directions, times scale; at full rank the
    gradient itself, a square one too."""
    for shape, rank in ((WIDE, 2), (TALL, 2), (SQUARE, 2), (WIDE, 4), (TALL, 4), (SQUARE, 5)):
        grads, scale = several(draw, 2, shape), 0.25
        extra = draw(*((rank, shape[1]) if shape[0] <= shape[1] else (shape[0], rank)))
        first, backs, other = stage(there_and_back, grads, extra, rank, scale)
        turn, basis = judged(first, grads[0], rank, scale), directions(grads[0], rank)
        at = f"at rank {rank} and scale {scale}"
        wanted = [back_of(basis, low_of(basis, grad), grad) for grad in grads]
        for got, grad, want in zip(backs, grads, wanted):
            known = {"scale-missing": want}
            if shape == SQUARE and rank == 5:
                own = basis @ turn.T
                known["square-taken-from-right"] = scale * (own.T @ grad.double()) @ own.T
            what = f"project_back of a projected gradient {shape} {at}"
            near(got, scale * want, what=what, unless=known)
        want = scale * back_of(basis, turn.T @ upright(extra).double(), grads[0])
        near(other, want, what=f"project_back of another tensor {at}")


def beside(kata, grads, others):
    words = {"rank": 2, "update_interval": 3, "scale": 1.0}
    first, second = kata.GaLoreProjector(**words), kata.GaLoreProjector(**words)
    lows, backs = [], []
    for grad, other in zip(grads, others):
        lows.append(first.project(grad))
        second.project_back(second.project(other))
        backs.append(first.project_back(lows[-1]))
    return lows, backs


@part("forward")
def test_projectors_are_separate(stage, draw):
    """Two projectors, used in turn for weights of other shapes, have nothing in common."""
    for shape, other in ((WIDE, TALL), (WIDE, WIDE)):
        grads, others = several(draw, 4, shape), several(draw, 4, other)
        lows, backs = stage(beside, grads, others)
        what = "with another projector in between"
        follows(used(lows, grads, 2), 3, what, "")
        for at, back in enumerate(backs):
            basis = directions(grads[at // 3 * 3], 2)
            want = back_of(basis, low_of(basis, grads[at]), grads[at])
            near(back, want, what=f"project_back {what}")


# forward: the step


def weighted(lows, beta):
    """The mean of all so far, each counting beta times as much as the one after it: what a
    moment is when its bias is corrected."""
    weights = beta ** torch.arange(len(lows) - 1, -1, -1, dtype=torch.float64)
    return torch.einsum("t,t...->...", weights / weights.sum(), lows)


def adam(lows, betas, eps):
    return weighted(lows, betas[0]) / (weighted(lows.square(), betas[1]).sqrt() + eps)


def biased(lows, betas, eps, first=True, second=True, off=0):
    """With a moment's bias left in it, or corrected for another number of steps."""
    t = len(lows)
    m, v = (weighted(x, b) * (1 - b**t) for x, b in zip((lows, lows.square()), betas))
    m = m if first else m / (1 - betas[0] ** (t + off))
    return m / ((v if second else v / (1 - betas[1] ** (t + off))).sqrt() + eps)


def eps_early(lows, betas, eps):
    bias = (1 - betas[1] ** len(lows)) ** 0.5
    root = weighted(lows.square(), betas[1]).sqrt()
    return weighted(lows, betas[0]) / (root + eps / bias)


def over(below):
    """The first moment over what is made of the second and eps."""
    return lambda x, b, eps: weighted(x, b[0]) / below(weighted(x.square(), b[1]), eps)


@dataclass(frozen=True)
class Run:
    """Some steps from one weight, along directions that stay the same."""

    weight: torch.Tensor
    grads: torch.Tensor
    rank: int = 2
    scale: float = 0.5
    lr: float = 0.7
    betas: tuple[float, float] = (0.8, 0.95)
    eps: float = 0.3

    @property
    def words(self):
        return {"lr": self.lr, "betas": self.betas, "eps": self.eps}

    def changes(self, step=adam, at=None):
        """(T, m, n): what each step subtracts, or each of those counted in `at`."""
        basis = directions(self.grads[0], self.rank)
        lows = torch.stack([low_of(basis, grad) for grad in self.grads])
        back = partial(back_of, basis, grad=self.grads[0])
        counts = range(1, len(lows) + 1) if at is None else at
        steps = [step(lows[:t], self.betas, self.eps) for t in counts]
        return self.lr * self.scale * torch.stack([back(s) for s in steps])

    def unprojected(self):
        """Adam on the whole gradient; its steps are projected."""
        basis = directions(self.grads[0], self.rank)
        wide = self.grads.double()
        steps = [adam(wide[: t + 1], self.betas, self.eps) for t in range(len(wide))]
        back = [back_of(basis, low_of(basis, step), step) for step in steps]
        return self.lr * self.scale * torch.stack(back)

    def mistakes(self):
        """Bug id -> what gives a known mistake's changes; of one with two forms a list."""

        def by(step, **how):
            return partial(self.changes, step, **how)

        def with_(**how):
            return replace(self, **how).changes

        return {
            "bias-not-corrected": by(biased),
            "one-bias-not-corrected": [by(partial(biased, **{k: False})) for k in BIASES],
            "step-counted-ahead": by(partial(biased, first=False, second=False, off=1)),
            "eps-inside-root": by(over(lambda v, eps: (v + eps).sqrt())),
            "eps-before-correction": by(eps_early),
            "betas-swapped": with_(betas=self.betas[::-1]),
            "weight-raised": with_(scale=-self.scale),
            "adam-before-projection": self.unprojected,
            "moments-not-kept": by(lambda x, b, e: adam(x[-1:], b, e)),
        }


BIASES = ("first", "second")


def run_of(draw, shape, count=3, dtype=torch.float32, **how):
    return Run(draw(*shape, dtype=dtype), several(draw, count, shape, dtype), **how)


def start(weight, kind):
    """The weight to be lowered, and what it is a view of."""
    if "Parameter" in kind:
        return nn.Parameter(weight.clone(), requires_grad=kind == "Parameter")
    if kind == "view":
        wide = torch.zeros(*weight.shape[::-1], 2, dtype=weight.dtype)[..., 0].mT
        return wide.copy_(weight)
    return weight.clone().requires_grad_(kind == "tensor that requires a gradient")


def steps(kata, weight, grad, made, words, kind):
    """The weight after each step; gradients come stacked."""
    projector, state = kata.GaLoreProjector(**made), {}
    weight, seen = start(weight, kind), []
    if weight.requires_grad:
        weight.grad = torch.ones_like(weight)  # not the gradient that is passed
    for one in grad:
        kata.galore_adam_step(weight, one, state, projector, **words)
        seen.append(weight.detach().clone())
    return seen


def steps_of(stage, run, kind="tensor", probe=steps, interval=100, words=None):
    made = {"rank": run.rank, "update_interval": interval, "scale": run.scale}
    return stage(probe, run.weight, run.grads, made, run.words if words is None else words, kind)


def lowered(seen, run, what="the changes of the weight, step by step", want=None, unless=None):
    """Each step lowers the weight by what it should. unless: mistakes by what they change, in the
    place of all that the run knows."""
    for value in seen:
        tensor(value, "the weight")
        text = f"the weight has shape {tuple(value.shape)} after a step"
        require(value.shape == run.weight.shape, text)
        text = f"the weight is {value.dtype} after a step, was {run.weight.dtype}"
        require(value.dtype == run.weight.dtype, text)
    after = torch.stack([run.weight, *seen]).double()
    got = after[:-1] - after[1:]
    text = "the weight is the same after the steps"
    require(bool((got != 0).any()), text, "weight-not-changed" if unless is None else None)
    want = run.changes() if want is None else want
    known = run.mistakes() if unless is None else unless
    known = {
        bug: (lambda v=v: nearest(got, [form() for form in v])) if isinstance(v, list) else v
        for bug, v in known.items()
    }
    tolerance = {torch.float32: 1e-4, torch.float64: 1e-9}[run.weight.dtype]
    near(got, want, what=what, unless=known, dtype=torch.float64, rtol=tolerance, atol=tolerance)


@part("forward")
def test_steps_of_adam(stage, draw):
    """Each step subtracts lr times what project_back makes of m_hat / (sqrt(v_hat) + eps), of the
    projected gradients so far."""
    for shape in (WIDE, TALL, SQUARE):
        run = run_of(draw, shape)
        judged(stage(project, run.grads[0], run.rank), run.grads[0], run.rank, run.scale)
        lowered(steps_of(stage, run), run)


@part("forward")
def test_steps_at_any_rank(stage, draw):
    """So it is at rank 1, at full rank, and above."""
    for shape, rank in ((WIDE, 1), (TALL, 1), (WIDE, 4), (TALL, 9), (SQUARE, 5), ((1, 3), 1)):
        run = run_of(draw, shape, rank=min(rank, *shape))
        made = {"rank": rank, "update_interval": 100, "scale": run.scale}
        seen = stage(steps, run.weight, run.grads, made, run.words, "tensor")
        what = f"the changes of a weight {shape} at rank {rank}, step by step"
        lowered(seen, run, what, unless={})


@part("forward")
def test_zeros_and_signs(stage, draw):
    """betas and eps may be 0, and so may a gradient after the first; lr may be 0 or negative, and
    change from step to step."""
    run = run_of(draw, WIDE, 4)
    for how in ({"betas": (0.0, 0.95)}, {"betas": (0.8, 0.0)}, {"eps": 0.0}):
        other = replace(run, **how)
        if not other.eps:  # which shows in small gradients
            other = replace(other, weight=run.weight.double(), grads=1e-8 * run.grads.double())
        lowered(steps_of(stage, other), other, f"the changes of the weight with {how}", unless={})
    rates = (0.7, 0.0, -0.5, 0.7)
    words = [(rate, run.betas, run.eps) for rate in rates]
    want = run.changes() * torch.tensor(rates).view(-1, 1, 1).double() / run.lr
    what = f"the changes of the weight with lr {', '.join(map(str, rates))}"
    lowered(steps_of(stage, run, probe=by_position, words=words), run, what, want, {})
    grads = run.grads.clone()
    grads[1] = 0
    other = replace(run, grads=grads)
    what = "the changes of the weight where the second gradient is zero"
    lowered(steps_of(stage, other), other, what, unless={})


def ambient(kata, grad):
    """Whether each call leaves grad mode on, and off."""
    projector, kept = kata.GaLoreProjector(2), []
    low = projector.project(grad)
    for mode in (True, False):
        for call in (
            lambda: projector.project(grad),
            lambda: projector.project_back(low),
            lambda: kata.galore_adam_step(grad.clone(), grad, {}, projector, 0.1),
        ):
            with torch.set_grad_enabled(mode):
                call()
                kept.append(torch.is_grad_enabled() == mode)
    return kept


@part("forward")
def test_parameters_and_tensors(stage, draw):
    """The weight may be a Parameter, frozen or not, or a tensor, contiguous or not; the gradient is
    the one passed, whatever its `.grad` holds. No call leaves another grad mode."""
    run, tall = run_of(draw, WIDE), run_of(draw, TALL)
    require(all(stage(ambient, run.grads[0])), "a call leaves grad mode changed")
    kinds = ("tensor", "Parameter", "frozen Parameter", "tensor that requires a gradient", "view")
    for kind in kinds:
        with blame("needs-no-grad", "leaf Variable"):
            seen = steps_of(stage, run, kind)
        lowered(seen, run, f"the changes of a {kind}, step by step", unless={})
    lowered(steps_of(stage, tall, "view"), tall, unless={})


def what_is_left(kata, weight, grad, made, words, kind):
    """Of weights of every kind that are stepped with their own `.grad`."""
    seen = {}
    for mode in (True, False):
        with torch.set_grad_enabled(mode):
            projector, state = kata.GaLoreProjector(**made), {}
            own, own_grad = start(weight, kind), grad[0].clone()
            trains = own.requires_grad
            if trains:
                own.grad = own_grad
            kata.galore_adam_step(own, own_grad, state, projector, **words)
        seen[mode] = {
            "weight": own.detach().clone(),
            "leaf": own.is_leaf and own.grad_fn is None,
            "trains": own.requires_grad == trains,
            "grad": own_grad.clone(),
        }
    return seen


@part("forward")
def test_what_a_step_leaves(stage, draw):
    """With and without grad mode: the weight is still a leaf, as trainable as before, and the
    gradient, if it is the weight's own `.grad` too, has the same values."""
    run = run_of(draw, WIDE, 1)
    for kind in ("Parameter", "tensor", "tensor that requires a gradient"):
        seen = steps_of(stage, run, kind, what_is_left)
        for mode, came in seen.items():
            at = f"after a step {'with' if mode else 'without'} grad mode"
            same(came["grad"], run.grads[0], f"the gradient {at}", "grad-changed-in-place")
            require(came["leaf"], f"the weight carries a graph {at}")
            require(came["trains"], f"requires_grad of the weight has changed {at}")
            lowered([came["weight"]], run, f"the change of the weight {at}", unless={})


def by_position(kata, weight, grad, made, words, kind):
    projector, state = kata.GaLoreProjector(**made), {}
    weight, seen = weight.clone(), []
    for one, args in zip(grad, words):
        kata.galore_adam_step(weight, one, state, projector, *args)
        seen.append(weight.clone())
    return seen


def by_name(kata, weight, grad, made, words, kind):
    projector, state = kata.GaLoreProjector(**made), {}
    weight, seen = weight.clone(), []
    for one in grad:
        first = {"weight": weight, "grad": one, "state": state, "projector": projector}
        kata.galore_adam_step(**words, **first)
        seen.append(weight.clone())
    return seen


@part("forward")
def test_arguments_of_a_step(stage, draw):
    """Arguments by place or by name; betas are (0.9, 0.999) and eps 1e-8 if not given."""
    run = run_of(draw, WIDE)
    args = (run.lr, run.betas, run.eps)
    lowered(steps_of(stage, run, probe=by_position, words=[args] * 3), run, unless={})
    lowered(steps_of(stage, run, probe=by_name), run, unless={})
    usual = replace(run, betas=(0.9, 0.999), eps=1e-8)
    what = "the changes of the weight with default betas and eps"
    lowered(steps_of(stage, usual, words={"lr": run.lr}), usual, what, unless={})
    # Gradients of eps's size tell it.
    tiny = replace(usual, weight=run.weight.double(), grads=1e-8 * run.grads.double())
    known = {"eps-before-correction": tiny.changes(eps_early)}
    what = "the changes of the weight under gradients of 1e-8, with the default eps"
    lowered(steps_of(stage, tiny, words={"lr": run.lr}), tiny, what, unless=known)


# state


MULTIPLES = (1.0, 4.0, 0.5, 200.0, 0.25, 8.0, 1.0)


@part("state")
def test_moments_survive_new_directions(stage, draw):
    """When the projector takes new directions, moments and step count go on as they are."""
    for shape, interval in ((WIDE, 2), (TALL, 3), (SQUARE, 1)):
        grad = gradient(draw, *shape)
        grads = torch.stack([factor * grad for factor in MULTIPLES])
        run = Run(draw(*shape), grads)
        lowered(steps_of(stage, run), run, "the changes under multiples of one gradient", unless={})
        seen = steps_of(stage, run, interval=interval)
        what = f"the changes, step by step, with new directions every {interval} steps"
        lowered(seen, run, what, unless=after_reset(run, interval))


def beside_own(kata, weight, grad, made, words, kind):
    """The weight after each step, and what each should subtract: Adam of the low-rank gradients
    that another projector gives, projected back by it."""
    own, state, other = kata.GaLoreProjector(**made), {}, kata.GaLoreProjector(**made)
    weight, lows, seen, wanted = weight.clone(), [], [], []
    for one in grad:
        kata.galore_adam_step(weight, one, state, own, **words)
        lows.append(other.project(one).double())
        step = adam(torch.stack(lows), words["betas"], words["eps"])
        wanted.append(words["lr"] * other.project_back(step.to(weight.dtype)))
        seen.append(weight.clone())
    return seen, torch.stack(wanted)


@part("state")
def test_moments_are_not_turned(stage, draw):
    """New directions leave the moments' values as they are, however the directions have turned."""
    for shape in (WIDE, TALL):
        run = run_of(draw, shape, 4)
        seen, want = steps_of(stage, run, probe=beside_own, interval=2)
        what = "the changes of the weight, step by step, with new directions every 2 steps"
        lowered(seen, run, what, want, {})


def handed_on(kata, weight, grad, made, words, kind):
    """Each step with another dict of the same contents, a copy of the weight, a new projector."""
    state, seen = {}, []
    for at, one in enumerate(grad):
        state, weight = dict(state), weight.clone()
        projector = kata.GaLoreProjector(**{**made, "scale": made["scale"] * (at + 1)})
        kata.galore_adam_step(weight, one, state, projector, **words)
        seen.append(weight.clone())
    return seen


@part("state")
def test_state_is_handed_on(stage, draw):
    """What state holds is enough to go on, in another dict, with a copy of the weight and with
    another projector, which is then the one that is used."""
    grad = gradient(draw, *WIDE)
    run = Run(draw(*WIDE), torch.stack([factor * grad for factor in MULTIPLES[:3]]))
    want = run.changes() * torch.arange(1, 4).view(-1, 1, 1)
    what = "the changes of the weight, each step with a copy of the state and a new projector"
    lowered(steps_of(stage, run, probe=handed_on), run, what, want, {})


def after_reset(run, interval):
    """Bug id -> the changes where moments, step count or both start anew with new directions."""

    def restarted(moments, count):
        def step(lows, betas, eps):
            t = len(lows)
            young = (t - 1) % interval + 1
            lows, steps = lows[-young:] if moments else lows, young if count else t
            m, v = (
                weighted(x, b) * (1 - b ** len(x)) / (1 - b**steps)
                for x, b in zip((lows, lows.square()), betas)
            )
            return m / (v.sqrt() + eps)

        return run.changes(step)

    known = {"state-reset": (True, True), "moments-reset": (True, False)}
    known["step-count-reset"] = False, True
    return {bug: restarted(*how) for bug, how in known.items()}


def project_after(kata, weight, grad, made, words, kind):
    """One step, then the projector's own calls."""
    projector = kata.GaLoreProjector(**made)
    kata.galore_adam_step(weight.clone(), grad[0], {}, projector, **words)
    return [projector.project(one) for one in grad[1:]]


@part("state")
def test_projects_once_a_step(stage, draw):
    """A step calls project once."""
    run = run_of(draw, WIDE, 6)
    lows = stage(sequence, run.grads, 2, 3, 2)
    follows(used(lows, run.grads, 2), 3, "with 2 of project_back after each", "")
    lows = steps_of(stage, run, probe=project_after, interval=3)
    numbers = used(lows, run.grads, 2, skipped=1)
    bug = "projects-twice" if numbers == renewed([1, 3, 6], 6) else ""
    follows(numbers, 3, "with a step in the place of the first", bug)


def in_turn(kata, weight, grad, made, words, kind):
    """Steps with one state, a step with a new one, and one more with the first."""
    projector, state = kata.GaLoreProjector(**made), {}
    weight, seen = weight.clone(), []
    for at, one in enumerate(grad):
        kata.galore_adam_step(weight, one, {} if at == 2 else state, projector, **words)
        seen.append(weight.clone())
    return seen


@part("state")
def test_all_is_in_the_state(stage, draw):
    """Moments and step count are in `state`: an empty one starts anew, and another is not changed
    by it."""
    run = run_of(draw, WIDE, 4)
    lowered(steps_of(stage, run), run)

    def own(lows, betas, eps):
        t = len(lows) - 1
        return adam(lows[2:3] if t == 2 else lows[[i for i in range(t + 1) if i != 2]], betas, eps)

    seen = steps_of(stage, run, probe=in_turn)
    what = "the changes of the weight with states in turn"
    lowered(seen, run, what, run.changes(own), {"state-not-used": run.changes()})


def two_weights(kata, weight, grad, others, made, words):
    pairs = [(weight.clone(), grad), (others[0].clone(), others)]
    kept = [(w, g, {}, kata.GaLoreProjector(**made), []) for w, g in pairs]
    for at in range(len(grad)):
        for w, g, state, projector, seen in kept:
            kata.galore_adam_step(w, g[at], state, projector, **words)
            seen.append(w.clone())
    return kept[0][-1], kept[1][-1]


@part("state")
def test_two_weights_in_turn(stage, draw):
    """Two weights, of one shape or of two, are trained in turn, each with its own."""
    for shape, other in ((WIDE, TALL), (WIDE, WIDE)):
        run, grads = run_of(draw, shape), several(draw, 3, other)
        made = {"rank": run.rank, "update_interval": 100, "scale": run.scale}
        both = stage(two_weights, run.weight, run.grads, grads, made, run.words)
        for seen, one in zip(both, (run, replace(run, weight=grads[0], grads=grads))):
            lowered(seen, one, "the changes of one of two weights", unless={})


def sizes(kata, weight, grad, made, words, kind):
    """Shapes of all tensors in the state, as far as it can be looked into."""
    projector, state = kata.GaLoreProjector(**made), {}
    weight = weight.clone()
    for one in grad:
        kata.galore_adam_step(weight, one, state, projector, **words)
    queue, seen, found = [state], set(), []
    while queue:
        item = queue.pop()
        if id(item) in seen or item is weight or item is projector:
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            found.append(tuple(item.shape))
        elif isinstance(item, dict):
            queue += item.values()
        elif isinstance(item, (list, tuple, set)):
            queue += item
        elif hasattr(item, "__dict__"):
            queue += vars(item).values()
    return found


@part("state")
def test_moments_are_small(stage, draw):
    """No tensor in the state is as large as the weight: the moments have the low-rank shape."""
    for shape in ((8, 12), (12, 8), (9, 9)):
        run = run_of(draw, shape, 2)
        found = [tuple(v) for v in steps_of(stage, run, probe=sizes)]
        large = [v for v in found if torch.Size(v).numel() >= run.weight.numel()]
        text = f"the state of a weight {shape} at rank 2 holds a tensor of shape {large[:1]}"
        require(not large, text, "state-as-large-as-weight")


def of_many(kata, weight, grad, made, words, kind):
    """The changes of some steps far on."""
    projector, state, weight, seen = kata.GaLoreProjector(**made), {}, weight.clone(), []
    for count in range(1, 261):
        before = weight.clone()
        kata.galore_adam_step(weight, grad[count % len(grad)], state, projector, **words)
        if count in FAR:
            seen.append(before - weight)
    return torch.stack(seen)


FAR = 12, 130, 260


@part("state")
def test_many_steps(stage, draw):
    """The step count goes on for hundreds of steps."""
    run = run_of(draw, (2, 3), 7, torch.float64, rank=1, betas=(0.9, 0.999))
    got = steps_of(stage, run, probe=of_many, interval=1000)
    order = [count % 7 for count in range(1, 261)]
    want = replace(run, grads=run.grads[order]).changes(at=FAR)
    what = f"the changes of the weight in steps {', '.join(map(str, FAR))}"
    near(got, want, what=what, dtype=torch.float64, rtol=1e-6, atol=1e-6)


# dtype and errors


@part("dtype")
def test_float64(stage, draw):
    """float64 gradients stay exact to 1e-9, projected and in steps."""
    for shape in (WIDE, TALL, SQUARE):
        run = run_of(draw, shape, dtype=torch.float64)
        low = stage(project, run.grads[0], 2)
        rows, right = upright(low), low_of(directions(run.grads[0], 2), run.grads[0])
        known = low.dtype == torch.float64 and alike(rows, right, torch.float32)
        turn = signs(rows, right)
        bug = "svd-in-float32" if known else None
        near(rows, turn @ right, what="project(grad)", dtype=torch.float64, bug=bug)
        lowered(steps_of(stage, run), run, unless={})


def make(kata, rank):
    kata.GaLoreProjector(rank)


@part("errors")
def test_rank_below_one(stage):
    """rank < 1 raises ValueError, naming rank, when the projector is made."""
    at_least_one(stage, make, "rank", "rank-unchecked", "rank-zero-accepted")
