"""A linear with a low-rank update beside it: scale * B @ A, where scale is alpha / rank."""

import itertools
from dataclasses import replace

import torch

from grader.exam.checks import blame, fail, near, require, tensor
from grader.exam.kit import linear, need
from grader.suites.shared import wrapped
from grader.suites.shared.wrapped import ABSENT

RANK, ALPHA = 3, 10.5  # alpha / rank = 3.5
FACTORS = ("lora_A", "lora_B")

# What is taken for the scale s, by mistake; r is the rank.
SCALES = {
    "scale-missing": lambda s, r: 1.0,
    "scale-is-alpha": lambda s, r: s * r,
    "scale-inverted": lambda s, r: 1 / s,
    "scale-alpha-over-sqrt-rank": lambda s, r: s * r**0.5,
    "scale-twice": lambda s, r: s * s,
}


def beside(base, low, scales=SCALES, learned=FACTORS, **kind):
    """The kind of layer that computes base(x, weight, bias) + scale * low(x, A, B). What else its
    forward takes stands after x in `low`; its options, but alpha, go to `base`. scales: what is
    taken for the scale by mistake; learned: what trains, if it is not lora_A and lora_B, the first
    with rank rows; kind: the rest of it, with slips of its own."""

    def mixed(mix):
        def formula(x, *values, alpha=ALPHA, **options):
            *more, W, b = values[: -len(learned)]
            factors = values[-len(learned) :]
            rank = factors[0].shape[-2]
            own, bias = base(x, W, b, **options), ABSENT if b is None else b
            return mix(own, low(x, *more, *factors), alpha / rank, rank, bias)

        return formula

    def at(scale):
        return mixed(lambda base, low, s, r, b: base + scale(s, r) * low)

    slips = {bug: at(scale) for bug, scale in scales.items()} | {
        "base-dropped": mixed(lambda base, low, s, r, b: s * low),
        "update-subtracted": mixed(lambda base, low, s, r, b: base - s * low),
        "update-missing": mixed(lambda base, low, s, r, b: base + 0 * low),
        "bias-dropped": mixed(lambda base, low, s, r, b: base - b + s * low),
        "bias-twice": (
            mixed(lambda base, low, s, r, b: base + b + s * low),
            mixed(lambda base, low, s, r, b: base + s * (low + b)),
        ),
    }
    slips[kind.pop("on_sum", "scale-on-sum")] = mixed(lambda base, low, s, r, b: s * (base + low))
    cuts = {
        "input-gradient-cut": mixed(lambda base, low, s, r, b: base.detach() + s * low),
        "branch-input-detached": mixed(lambda base, low, s, r, b: base + s * low.detach()),
    }
    return wrapped.Kind(
        learned=learned,
        right=at(lambda s, r: s),
        slips=slips | kind.pop("slips", {}),
        off=("update-missing", kind.pop("in_eval", "eval-disables-adapter")),
        cuts=cuts,
        traced=tuple(scales),
        **kind,
    )


def called_with(weight, bias, A, B, alpha=ALPHA, **options):
    """What the class of a layer with one update is called with."""
    return {"rank": len(A), "alpha": alpha, **options}


# On the stage


def fresh_factors(kata, name, cases):
    """Both factors of two layers of each kind, and how many storages they have; what is left in
    memory must not pass for random, or for zero."""
    seen = []
    for weight, words in cases:
        rank, (out, into), held = words["rank"], weight.shape, []
        for _ in range(2):
            shapes = [(words.get("num_adapters", 1), rank, into), (rank, into), (out, rank)]
            stale = [torch.full(shape, 0.5) for shape in shapes for _ in range(4)]
            del stale
            layer = getattr(kata, name)(linear(weight), **words)
            held += [need(layer, "lora_A"), need(layer, "lora_B")]
        seen.append((held, len({t.untyped_storage().data_ptr() for t in held})))
    return seen


def settings(kata, name, weight, bias, calls):
    """Shapes of the factors and the scale, of layers made with these arguments and words."""
    seen = []
    for args, words in calls:
        base = linear(weight, bias)
        kind = need(kata, name)
        layer = kind(base, *args, **words) if args or not words else kind(base=base, **words)
        shapes = tuple(need(layer, "lora_A").shape), tuple(need(layer, "lora_B").shape)
        seen.append((shapes, float(need(layer, "scale"))))
    return seen


# Checks


def _fresh(stage, draw, kind, **sizes):
    """Both factors of two new layers, for layers of several sizes."""
    shapes = ((40, 256, 8), (30, 64, 1), (32, 32, 16), (16, 48, 24))
    cases = [kind.case(draw, 1, out=o, into=i, rank=r, **sizes) for o, i, r in shapes]
    told = [(case.values[0], case.fresh[-1]) for case in cases]
    seen = stage(fresh_factors, kind.name, told)
    for case, (held, storages) in zip(cases, seen, strict=True):
        right = [tuple(case.learned[name].shape) for name in FACTORS]
        yield [tensor(v, n) for v, n in zip(held, FACTORS * 2)], right, storages


def b_starts_at_zero(stage, draw, kind, **sizes):
    """lora_B starts at exactly zero."""
    for (_, B, *_), (_, shape), storages in _fresh(stage, draw, kind, **sizes):
        require(storages == 4, "two layers share a factor, or a layer's factors share storage")
        bug = "b-random" if tuple(B.shape) == shape else None
        near(B, torch.zeros(shape), what="lora_B at the start", rtol=0, atol=0, bug=bug)


def a_starts_random(stage, draw, kind, largest=1.5, constant="a-constant", **sizes):
    """lora_A starts random: 0 < std < `largest`, full row rank, not the same every time; of a
    stack each one."""
    for (A, _, other, _), (shape, _), _ in _fresh(stage, draw, kind, **sizes):
        right = tuple(A.shape) == shape and A.dtype == torch.float32
        require(right, f"lora_A should be {shape} of float32; it is {tuple(A.shape)}, {A.dtype}")
        require(bool(torch.isfinite(A).all()), "lora_A holds values that are not finite")
        text = "lora_A starts at zero: lora_B never gets a gradient"
        require(bool((A != 0).any()), text, "a-zero")
        values = A.double()
        alike = bool((values == values.reshape(-1)[0]).all())
        require(not alike, "lora_A starts constant", constant)
        each = values.reshape(-1, *values.shape[-2:])
        for factor in each:
            std = float(factor.std())
            require(std < largest, f"lora_A starts with std {std:.3g}, expected below {largest}")
            singular = torch.linalg.svdvals(factor)
            full = bool(singular[-1] > 1e-4 * singular[0])
            require(full, "lora_A does not start with full row rank: its rows depend on each other")
        close = any(nearly_alike(each[k], each[k - 1]) for k in range(1, len(each)))
        require(not close, "two adapters start with the same lora_A: it is not random")
        text = "two layers start with the same lora_A: it is not random"
        require(not nearly_alike(values, other.double()), text)


def nearly_alike(one, other):
    """Whether two values that are drawn apart differ by as good as nothing."""
    return bool((one - other).norm() <= 1e-3 * one.norm())


def defaults(
    stage, case, scales=SCALES, default=None, reordered=None, renamed=None, before=(), after=()
):
    """rank 8, alpha 16, scale = alpha / rank; arguments by place or by name. before, after: what
    stands by place before rank and after alpha, the former with their names. The mistakes:
    default, that one is another; reordered and renamed, that arguments are."""
    name, W, b, *_ = case.fresh
    first = tuple(value for _, value in before)
    told = (
        ((), {"rank": 4, "alpha": 10.0}, 4, 2.5, "rank 4 and alpha 10", None),
        ((), {"rank": 4, "alpha": 10}, 4, 2.5, "rank 4 and alpha 10, a whole number", None),
        ((), {"rank": 8, "alpha": 2.0}, 8, 0.25, "rank 8 and alpha 2", None),
        (first, {}, 8, 2.0, "the default rank 8 and alpha 16", default),
        ((), {"rank": 4}, 4, 4.0, "rank 4 and the default alpha", default),
        ((*first, 4, 10, *after), {}, 4, 2.5, "4 and 10 by place", reordered),
    )
    calls = [
        (args, words if args or not words else {**dict(before), **words})
        for args, words, *_ in told
    ]
    with blame(renamed, f"{name}.__init__() got an unexpected keyword argument"):
        seen = stage(settings, name, W, b, calls)
    (out, into), stacked = W.shape, first
    for ((a_shape, b_shape), scale), (*_, rank, want, words, bug) in zip(seen, told, strict=True):
        for factor, shape, right in (
            ("lora_A", tuple(a_shape), (*stacked, rank, into)),
            ("lora_B", tuple(b_shape), (*stacked, out, rank)),
        ):
            text = f"{factor} has shape {shape}, expected {right}, with {words}"
            turned = shape == (*right[:-2], *right[:-3:-1])
            require(shape == right, text, "factor-transposed" if turned else bug)
        named = bug is None and want == 2.5  # on which each mistake shows
        known = {slip: value(want, rank) for slip, value in scales.items()} if named else {}
        near(scale, want, what=f"scale with {words}", unless=known, bug=bug)


def any_rank(stage, draw, kind, ranks, bug):
    """These ranks are legal; `bug` where one is refused."""
    plain = kind.case(draw, 5)
    wrapped.computes(stage(wrapped.outputs, *plain.call, ("train",))[0], plain)
    for rank in ranks:
        case = kind.case(draw, 5, rank=rank)
        with blame(bug, "rank"):
            got = stage(wrapped.in_each_mode, *case.call)
        for y in got:
            near(y, case.output(), what=f"the output at rank {rank}")


def at_start(case):
    """It with lora_B, the last of its values, zero."""
    return replace(case, values=(*case.values[:-1], case.values[-1] * 0))


def b_learns_from_the_start(stage, case, skipped=None):
    """While lora_B is still zero it gets its gradient all the same, in both modes, whether or not
    the base was frozen beforehand. skipped: the mistake that it gets one only when it is not."""
    start, ways = at_start(case), list(itertools.product(wrapped.MODES, (False, True)))
    seen = stage(wrapped.first_gradients, *case.call, case.g, "lora_A", ways)
    for got, (mode, frozen) in zip(seen, ways, strict=True):
        how = f"({mode} mode{', a base frozen beforehand' * frozen})"
        if got is None:
            ((_, _, later),) = wrapped.seen_gradients(stage, [case], (((mode,), True, True),))
            bug = skipped if later["learned"][-1] is not None else None
            fail(f"lora_B gets no gradient at the start {how}", bug)
        known = wrapped.in_gradients(start, -1, start.kind.bends)
        wrapped.agrees(got, start.gradients()[-1], known, f"the first gradient of lora_B {how}")
