"""What is checked of `lora_router`. Contract: Shazeer et al. 2017, section 2.1, for adapters."""

from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F

from grader.exam.checks import Raised, near, part, rejects, require, same, tensor
from grader.exam.kit import CheapMeta, linear, need, nn
from grader.suites.shared import lowrank, wrapped
from grader.suites.shared.lowrank import ALPHA, FACTORS, RANK
from grader.suites.shared.wrapped import ABSENT, MODES, Case, Kind, called, loaded, made, writing

OUT, IN, N, TOP = 12, 18, 5, 2
ROUTER = "router.weight"
LEARNED = (*FACTORS, ROUTER)
GAP = 0.8  # between the logits of a token


def pieces(draw, dtype=torch.float32, n=N, rank=RANK, out=OUT, into=IN):
    """weight, bias, A, B, router: the updates are as large as the base."""
    router = draw.orthonormal(n, into, dtype=torch.float64) * 0.7
    return (
        draw(out, into, std=0.5, dtype=dtype),
        draw(out, std=2.0, dtype=dtype),
        draw(n, rank, into, std=0.4, dtype=dtype),
        draw(n, out, rank, std=0.6, dtype=dtype),
        router.to(dtype),
    )


def spaced(draw, x, router, gap=GAP, centre=0.0):
    """x, moved so that the logits of each token keep clear margins, in an order of its own."""
    wide, rows = x.double(), router.double()
    n = len(rows)
    if n > rows.shape[1]:
        raise ValueError("more adapters than features: the logits are not free")
    levels = (torch.arange(n) - (n - 1) / 2) * gap
    order = draw(*x.shape[:-1], n).argsort(-1)
    jitter = gap / 8 * draw(*x.shape[:-1], n).double().clamp(-1, 1)
    want = levels.double()[order] + jitter + centre
    moved = wide + (want - wide @ rows.T) @ torch.linalg.pinv(rows.T)
    return moved.to(x.dtype)


class Tokens(Case):
    """A layer whose inputs keep the logits apart."""

    def at(self, draw, *lead):
        case = super().at(draw, *lead)
        return replace(case, x=spaced(draw, case.x, case.values[-1]))


@dataclass(frozen=True)
class Routed(Kind):
    def case(self, draw, *lead, dtype=torch.float32, bias=True, options=None, **sizes):
        weight, own, *learned = self.values(draw, dtype=dtype, **sizes)
        values = (weight, own if bias else None, *learned)
        return Tokens(self, values, None, None, (), options or {}).at(draw, *lead)


# Gates (..., n) of logits (..., n): what is right, and mistakes


def at_chosen(logits, k, gates):
    """Zero but at the k largest logits, where they are these (..., k)."""
    return torch.zeros_like(logits).scatter(-1, logits.topk(k)[1], gates)


def gates(logits, k):
    return at_chosen(logits, k, logits.topk(k)[0].softmax(-1))


def along(dim):
    """The softmax along another dimension."""

    def wrong(logits, k):
        if logits.ndim <= max(dim, 1):
            return logits * ABSENT
        return at_chosen(logits, k, logits.topk(k)[0].softmax(dim))

    return wrong


GATES = {
    "softmax-over-all": lambda z, k: at_chosen(z, k, z.softmax(-1).topk(k)[0]),
    "no-softmax": lambda z, k: at_chosen(z, k, z.topk(k)[0]),
    "sigmoid-gates": (
        lambda z, k: at_chosen(z, k, z.topk(k)[0].sigmoid()),
        lambda z, k: at_chosen(z, k, F.normalize(z.topk(k)[0].sigmoid(), p=1, dim=-1)),
    ),
    "gates-all-equal": lambda z, k: at_chosen(z, k, torch.ones_like(z[..., :k]) / k),
    "gates-swapped": lambda z, k: at_chosen(z, k, z.topk(k)[0].softmax(-1).flip(-1)),
    "all-adapters-used": lambda z, k: z.softmax(-1),
}
SEVERAL = {  # which show where there are several tokens
    "gates-swapped": (
        GATES["gates-swapped"],
        lambda z, k: torch.zeros_like(z).scatter(
            -1, z.topk(k)[1].sort(-1)[0], z.topk(k)[0].softmax(-1)
        ),
    ),
    "routed-by-sequence": (
        lambda z, k: gates(z.mean(-2, keepdim=True), k).expand_as(z),
        lambda z, k: gates(z[..., :1, :], k).expand_as(z),
        lambda z, k: gates(z[..., -1:, :], k).expand_as(z),
        lambda z, k: gates(z.flatten(0, -2).mean(0), k).expand_as(z),
    ),
    "softmax-wrong-dimension": (along(-2), along(0), along(1)),
}


def layer(mix=None, scale=lambda s, r: s, weigh=gates, routed=lambda x: x):
    """As a formula: how base and update are put together, what is taken for the scale, how the
    gates are made, and what the router is given."""

    def formula(x, W, b, A, B, R, alpha=ALPHA, top_k=TOP):
        each = torch.einsum("...nr,nor->...no", torch.einsum("...i,nri->...nr", x, A), B)
        update = (weigh(routed(x) @ R.T, top_k).unsqueeze(-1) * each).sum(-2)
        rank, own = A.shape[1], F.linear(x, W, b)
        update = scale(alpha / rank, rank) * update
        return mix(own, update) if mix else own + update

    return formula


def weighed(table):
    """Formulas of gates as formulas of the layer."""
    forms = {bug: f if isinstance(f, tuple) else (f,) for bug, f in table.items()}
    return {bug: tuple(layer(weigh=form) for form in of) for bug, of in forms.items()}


SCALES = {bug: layer(scale=lowrank.SCALES[bug]) for bug in ("scale-missing", "scale-is-alpha")}
ROUTED = Routed(
    name="RoutedLoRALinear",
    learned=LEARNED,
    values=pieces,
    words=lambda W, b, A, B, R, alpha=ALPHA, top_k=TOP: {
        "num_adapters": len(A),
        "rank": A.shape[1],
        "alpha": alpha,
        "top_k": top_k,
    },
    right=layer(),
    slips={
        **SCALES,
        "update-missing": layer(lambda base, up: base + 0 * up),
        **weighed(GATES),
    },
    off=("update-missing", "eval-disables-adapters"),
    cuts={
        "input-gradient-cut": layer(lambda base, up: base.detach() + up),
        "branch-input-detached": layer(lambda base, up: base + up.detach()),
        "router-input-detached": layer(routed=lambda x: x.detach()),
    },
)


def at_top(case, top_k, **options):
    """The case with another top_k."""
    return replace(case, options={**case.options, "top_k": top_k, **options})


def chosen(case):
    """Which adapters its tokens choose, (..., top_k)."""
    logits = case.x.double() @ case.values[-1].double().T
    return logits.topk(case.options.get("top_k", TOP))[1]


# shape


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """Inputs are (..., in_features): any number of leading dimensions, batches of one too."""
    leads = (2, 7), (2, 3, 4), (1, 1), (1,), (N,), (N, N), (TOP, 3), (3, TOP), (2, 1, 3, 2)
    wrapped.leading_dimensions(stage, draw, ROUTED, leads, "leading-dims-lost")


@part("shape")
def test_single_vector(stage, draw):
    """A single vector (in_features,) gives (out_features,)."""
    wrapped.leading_dimensions(stage, draw, ROUTED, ((),), "leading-dims-lost")


def strided(kata, held, x):
    held = made(kata, *held)
    return [held(view) for view in (x.transpose(0, 1), x[:, ::2], x.transpose(0, 1).contiguous())]


@part("shape")
def test_non_contiguous_input(stage, draw):
    """Inputs need not be contiguous."""
    case = ROUTED.case(draw, 4, 6)
    got = stage(strided, case.layer, case.x)
    for y, x in zip(got, (case.x.mT.mT.transpose(0, 1), case.x[:, ::2], case.x.transpose(0, 1))):
        near(y, replace(case, x=x).output(), what="the output for a non-contiguous x")


def parts_of(kata, held):
    held = made(kata, *held)
    router = need(held, "router")
    plain = isinstance(router, nn.Linear)
    bias = plain and router.bias is not None
    shapes = [tuple(need(held, name).shape) for name in ("lora_A", "lora_B")]
    return plain, bias, tuple(need(router, "weight").shape), *shapes


@part("shape")
def test_shapes_of_what_trains(stage, draw):
    """router is an nn.Linear(in_features, num_adapters, bias=False); lora_A is (num_adapters, rank,
    in_features), lora_B (num_adapters, out_features, rank)."""
    plain, bias, *_ = stage(parts_of, ROUTED.case(draw, 1).fresh)
    require(plain, "router is no nn.Linear")
    require(not bias, "router has a bias", "router-has-bias")
    wrapped.shapes(stage, ROUTED.case(draw, 1), None)


# out, in, rank, adapters, top_k
SIZES = (18, 18, 3, 4, 2), (6, 6, 6, 6, 3), (5, 9, 1, 2, 1), (1, 7, 2, 3, 2), (4, 1, 1, 1, 1)
SIZES += (1, 1, 1, 1, 1), (6, 12, 8, 12, 11), (3, 3, 3, 3, 3), (8, 5, 2, 1, 1), (5, 20, 2, 20, 3)


def sizes(draw):
    for out, into, rank, n, k in SIZES:
        case = ROUTED.case(draw, n, out=out, into=into, rank=rank, n=n, options={"top_k": k})
        yield from (case, case.at(draw), case.at(draw, k, into))


@part("shape")
def test_any_sizes(stage, draw):
    """Any layer, rank and number of adapters: one, many, and all sizes alike."""
    wrapped.all_right(stage, list(sizes(draw)), named=lambda case: False)


# init


@part("init")
def test_starts_as_the_base(stage, draw):
    """At the start the layer computes what the base does, whatever the router chooses."""
    case = ROUTED.case(draw, 5)
    W, b, A, B, R = case.values
    wrapped.starts_as(stage, replace(case, values=(W, b, A, B * 0, R)))


@part("init")
def test_b_starts_at_zero(stage, draw):
    """lora_B starts at exactly zero."""
    lowrank.b_starts_at_zero(stage, draw, ROUTED, n=3)


@part("init")
def test_a_starts_random(stage, draw):
    """lora_A starts random: each adapter's own, 0 < std < 1.5, of full row rank, not the same every
    time."""
    lowrank.a_starts_random(stage, draw, ROUTED, n=3)


def settings(kata, weight, bias, x, router, calls):
    """Shapes and outputs of layers made with these arguments and words, filled with constants, each
    adapter's its own."""
    seen = []
    for args, words in calls:
        base, kind = linear(weight, bias), kata.RoutedLoRALinear
        held = kind(base, *args, **words) if args else kind(base=base, **words)
        with torch.no_grad():
            held.lora_A.fill_(0.25)
            held.lora_B.copy_(torch.arange(1.0, 4.0)[:, None, None].expand_as(held.lora_B))
            held.router.weight.copy_(router)
        seen.append((tuple(held.lora_A.shape), held(x)))
    return seen


@part("init")
def test_arguments(stage, draw):
    """rank 8, alpha 16 and top_k 1 by default; arguments by place or by name."""
    case = ROUTED.case(draw, 5, n=3)
    (W, b, _, _, R), x = case.values, case.x
    told = (
        ((), {"num_adapters": 3, "rank": 4, "alpha": 10.0, "top_k": 2}, (4, 10.0, 2), None),
        ((3, 4, 10, 2), {}, (4, 10.0, 2), None),
        ((3,), {"rank": 4, "alpha": 10, "top_k": 3}, (4, 10.0, 3), None),
        ((3,), {"rank": 8, "alpha": 16.0, "top_k": 1}, (8, 16.0, 1), None),
        ((3,), {}, (8, 16.0, 1), "default-differs"),
        ((3,), {"top_k": 2}, (8, 16.0, 2), "default-differs"),
        ((3, 4), {"top_k": 1}, (4, 16.0, 1), "default-differs"),
    )
    seen = stage(settings, W, b, x, R, [row[:2] for row in told])
    for (shape, y), (args, words, (rank, alpha, k), bug) in zip(seen, told, strict=True):
        given = [*map(str, args), *(f"{name}={value}" for name, value in words.items())]
        how = f"RoutedLoRALinear(base, {', '.join(given)})"
        require(shape == (3, rank, IN), f"lora_A of {how} has shape {shape}", bug)
        A = torch.full((3, rank, IN), 0.25)
        B = torch.arange(1.0, 4.0)[:, None, None].expand(3, OUT, rank)
        right = replace(case, values=(W, b, A, B, R), options={"alpha": alpha, "top_k": k})
        bug = None if wrapped.like(y, right.output(), 1e-2) else bug
        near(y, right.output(), what=f"the output of {how}, filled with constants", bug=bug)


@part("init")
def test_base_is_the_layer_passed_in(stage, draw):
    """`base` is the very layer passed in, its values untouched."""
    wrapped.keeps_base(stage, ROUTED.case(draw, 1))


# freeze


@part("freeze")
def test_base_is_frozen(stage, draw):
    """Weight and bias of the base do not require and never receive a gradient."""
    wrapped.base_frozen(stage, ROUTED.case(draw, 5), thawed={"weight": None})


@part("freeze")
def test_router_and_factors_train(stage, draw):
    """lora_A, lora_B and the router's weight are registered parameters that train, also at top_k=1,
    and no other one does. train() and eval() return the layer."""
    for k in (TOP, 1):
        case = at_top(ROUTED.case(draw, 5), k)
        got = wrapped.only_learned_train(stage, case, frozen="router-frozen")
        require(got["returned"], "train() and eval() should return the layer")


# forward


@part("forward")
def test_mixes_the_chosen_adapters(stage, draw):
    """Per token: the top_k adapters by router logit, the softmax over those logits alone, and the
    weighted sum of their updates, scaled with alpha / rank, added to the base."""
    case = ROUTED.case(draw, 3, 4)
    for mode, y in zip(MODES, stage(wrapped.in_each_mode, *case.call)):
        wrapped.computes(y, case, mode=mode, also=weighed(SEVERAL))


@part("forward")
def test_any_top_k(stage, draw):
    """top_k is any number from 1, where the gate is 1, to num_adapters, where all are used."""
    for k, factor in ((1, 1.0), (2, 0.3), (3, 1.0), (N - 1, 3.0), (N, 0.3)):
        case = at_top(ROUTED.case(draw, 4, 3), k)
        case = replace(case, values=(*case.values[:-1], case.values[-1] * factor))
        for mode, y in zip(MODES, stage(wrapped.in_each_mode, *case.call)):
            known = case.mistakes(y, mode, weighed(SEVERAL))
            what = f"the output at top_k={k} of {N} ({mode} mode)"
            wrapped.agrees(y, case.output(), known, what)


def with_zeros(case):
    """The case with a zero token and an adapter whose logits are zero, all adapters being used."""
    W, b, A, B, R = case.values
    R, x = R.clone(), case.x.clone()
    R[1], x[0] = 0, 0
    return at_top(replace(case, values=(W, b, A, B, R), x=x), N)


@part("forward")
def test_logits_of_any_size(stage, draw):
    """The logits may all be large, negative, or zero."""
    cases = [with_zeros(ROUTED.case(draw, 4)), with_zeros(ROUTED.case(draw, 3, 4))]
    for centre in (30.0, -30.0):
        for k in (1, 3, N):
            case = at_top(ROUTED.case(draw, 6), k)
            cases.append(replace(case, x=spaced(draw, case.x, case.values[-1], centre=centre)))
    wrapped.all_right(stage, cases, named=lambda case: False)


@part("forward")
def test_same_in_training_and_eval(stage, draw):
    """No noise, no capacity: training and eval give the same, call after call, also where all
    tokens choose the same adapters."""
    case = ROUTED.case(draw, 40)
    alike = replace(case, x=case.x[:1] + 0 * case.x)
    # Logits 0.003 apart: far more than rounding, and less than the smallest noise.
    tight = replace(case, x=spaced(draw, draw(200, IN), case.values[-1], gap=0.003))
    for one in (alike, replace(alike, x=alike.x.unflatten(0, (2, 20))), case, tight):
        *ys, last = stage(wrapped.outputs, *one.call, ("eval", *["train"] * 4, "eval"))
        distinct = one is case or one is tight
        still = wrapped.like(ys[0], one.output()) and wrapped.like(last, one.output())
        noisy = still and any(not wrapped.like(y, tensor(ys[1]), 1e-6) for y in ys[2:])
        for mode, y in zip(("eval", *["train"] * 4, "eval"), (*ys, last), strict=True):
            bug = "noise-in-training" if noisy and mode == "train" else None
            bug = "capacity" if not distinct and _capacity(y, one) else bug
            known = {} if bug else one.mistakes(y, mode)
            tokens = f"{one.x.shape[:-1].numel()} tokens" + " alike" * (not distinct)
            what = f"the output of {tokens} ({mode} mode)"
            wrapped.agrees(y, one.output(), known, what, bug=bug)


def _capacity(y, case):
    """Whether some tokens are right and the others have no update."""
    if tensor(y).shape != case.output().shape:
        return False
    bare = case.output(ROUTED.slips["update-missing"])
    right = ((y.double() - case.output()).abs() < 1e-2).all(-1)
    none = ((y.double() - bare).abs() < 1e-2).all(-1)
    return bool((right | none).all() and right.any() and none.any())


@part("forward")
def test_without_a_bias(stage, draw):
    """A base without bias works."""
    wrapped.without_bias(stage, draw, ROUTED, None)


@part("forward")
def test_alpha_of_any_size(stage, draw):
    """Also where alpha is smaller than rank, negative or zero, or far above it."""
    wrapped.any_alpha(stage, ROUTED.case(draw, 5), (2.0, 3000.0, -7.5, 0.0))


@part("forward")
def test_input_unchanged(stage, draw):
    """The input is not changed in place."""
    square = ROUTED.case(draw, 5, out=IN)
    wrapped.inputs_unchanged(stage, [ROUTED.case(draw, 5), square, square.at(draw)])


def other_order(draw, case):
    """Another layer, whose router chooses with the same margins, but other adapters."""
    other = ROUTED.case(draw, 1)
    order = torch.randperm(N, generator=draw.generator)
    while (order == torch.arange(N)).any():
        order = torch.randperm(N, generator=draw.generator)
    return replace(other, values=(*other.values[:-1], case.values[-1][order].contiguous()))


def walked(stage, draw, mode, *lead):
    """A layer in this mode of which all there is changes, in place and in `.data`."""
    first = at_top(ROUTED.case(draw, *lead), 3)
    second = at_top(other_order(draw, first), 3)
    third = at_top(other_order(draw, second), 3)
    steps = [called(first, mode)]
    for names, other, verb in (
        ((ROUTER,), second, "set"),
        (FACTORS, second, "set"),
        (("base.weight", "base.bias"), second, "set"),
        ((ROUTER,), first, "data"),
        (("base.weight", "base.bias"), first, "replace"),
        (LEARNED, third, "replace"),
    ):
        words = f"{' and '.join(names)} changed" + f" ({verb})" * (verb != "set")
        steps.append(writing(steps[-1].now, other, *names, verb=verb, words=words))
    steps.append(loaded(steps[-1].now, second))
    return wrapped.walked(stage, first, steps)


@part("forward")
def test_follows_its_parameters(stage, draw):
    """Each forward uses the values that router, factors and base have now, in either mode, with and
    without gradients."""

    def stale(step, past):
        return {"weight-cached": past[:1]} if past else {}

    for mode in MODES:
        wrapped.outputs_follow(walked(stage, draw, mode, 5), mode, stale)


# gradient


def gradient_cases(draw):
    several = [ROUTED.case(draw, 2, 3), ROUTED.case(draw), ROUTED.case(draw, 4, bias=False)]
    return [*several, with_zeros(ROUTED.case(draw, 3)), ROUTED.case(draw, 2, 1, 2, out=IN)]


def router_gradient(got, case, how):
    """The router's gradient is right; at top_k=1 it may be absent."""
    want, grad = case.gradients()[-1], got["learned"][-1]
    others_there = all(value is not None for value in got["learned"][:2])
    if grad is None and case.options.get("top_k", TOP) == 1:
        return
    right = others_there and wrapped.like(got["y"], case.output())
    bug = "router-gets-no-gradient" if right else None
    require(grad is not None, f"the router gets no gradient {how}", bug)
    cut = like_zero(grad) and not like_zero(want)
    near(grad, want, what=f"the gradient of the router {how}", bug=bug if cut else None)


def like_zero(value):
    return isinstance(value, torch.Tensor) and not bool(value.any())


BOTH = tuple(((mode,), True, True) for mode in MODES)


@part("gradient")
def test_gradient_of_the_router(stage, draw):
    """The router gets the exact gradient, through the gates, in training and in eval mode."""
    for case, (calls, *_), got in wrapped.seen_gradients(stage, gradient_cases(draw), BOTH):
        router_gradient(got, case, f"({calls[0]} mode, {wrapped.shown(case)})")


@part("gradient")
def test_gradients_of_the_factors(stage, draw):
    """lora_A and lora_B get the exact gradients, in training and in eval mode."""
    wrapped.learned_gradients(stage, gradient_cases(draw), "factors-get-no-gradient")


@part("gradient")
def test_gradients_at_top_one(stage, draw):
    """At top_k=1 factors and input get the exact gradients; the router's is zero, or there is
    none."""
    cases = [at_top(ROUTED.case(draw, *lead), 1) for lead in ((2, 3), (4,))]
    cases.append(ROUTED.case(draw, 3, n=1, options={"top_k": 1}))
    for case, (calls, *_), got in wrapped.seen_gradients(stage, cases, BOTH):
        how = f"at top_k=1 ({calls[0]} mode)"
        names = ("x", *FACTORS)
        for name, value, want in zip(names, (got["x"], *got["learned"]), case.gradients()):
            require(value is not None, f"{name} gets no gradient {how}")
            near(value, want, what=f"the gradient of {name} {how}")
        router_gradient(got, case, how)


@part("gradient")
def test_unchosen_adapters_get_none(stage, draw):
    """Adapters that no token has chosen get a zero gradient."""
    for k in (1, 2):
        case = at_top(ROUTED.case(draw, 2, n=9), k)
        unchosen = sorted(set(range(9)) - set(chosen(case).flatten().tolist()))
        for _, _, got in wrapped.seen_gradients(stage, [case], BOTH):
            for name, grad in zip(FACTORS, got["learned"]):
                require(grad is not None, f"{name} gets no gradient")
                some = [i for i in unchosen if bool((grad[i] != 0).any())]
                text = f"{name} of the adapters {some} gets a gradient, though no token chose them"
                right = wrapped.like(got["y"], case.output())
                require(not some, text, "unchosen-get-gradients" if right else None)


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to x through base, adapters and router."""
    wrapped.input_gradients(stage, gradient_cases(draw))


@part("gradient")
def test_first_gradients(stage, draw):
    """At the start lora_B gets its gradient, though it is zero and the others get none but zero."""
    case = ROUTED.case(draw, 4)
    W, b, A, B, R = case.values
    start = replace(case, values=(W, b, A, B * 0, R))
    for _, (calls, *_), got in wrapped.seen_gradients(stage, [start], BOTH):
        how = f"({calls[0]} mode, lora_B zero)"
        require(got["learned"][1] is not None, f"lora_B gets no gradient {how}")
        near(got["learned"][1], start.gradients()[2], what=f"the gradient of lora_B {how}")


@part("gradient")
def test_gradients_follow_the_parameters(stage, draw):
    """Each gradient is that of the values that router, factors and base have now."""
    for mode in MODES:
        wrapped.gradients_follow(walked(stage, draw, mode, 2, 3), mode)


@part("gradient")
def test_two_calls_in_one_graph(stage, draw):
    """A layer that is called twice before the backward pass gets the sum of both gradients."""
    case = ROUTED.case(draw, 4)
    wrapped.gradients_add_up(stage, case, case.at(draw, 4))


# state


@part("state")
def test_state_names(stage, draw):
    """router.weight, lora_A, lora_B and the base's tensors are in the state dict by these names."""
    wrapped.state_names(stage, ROUTED.case(draw, 1), (*LEARNED, "base.weight", "base.bias"))


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs."""
    wrapped.state_round_trip(stage, draw, ROUTED)


# dtype and device


def right_in_dtype(stage, draw, dtype):
    for mode, lead, bias in (("train", (5,), True), ("eval", (2, 3), False), ("eval", (), True)):
        # A scale that is not exact in any dtype: one kept in a coarser dtype shows.
        case = ROUTED.case(draw, *lead, dtype=dtype, bias=bias, options={"alpha": 10.0})
        wrapped.learned_are(stage, case, "float32-factors")
        # The router's gradient is a small difference of large terms: bfloat16 leaves little of it.
        rough = {"atol": 0.4} if dtype == torch.bfloat16 else {}
        wrapped.in_dtype(stage, case, mode, **rough)


@part("dtype")
def test_float64(stage, draw):
    """A float64 base gives float64 router, factors and outputs, exact to 1e-9."""
    right_in_dtype(stage, draw, torch.float64)


@part("dtype")
def test_bfloat16(stage, draw):
    """A bfloat16 base gives bfloat16 router, factors and outputs."""
    right_in_dtype(stage, draw, torch.bfloat16)


def cast(kata, held, x):
    return made(kata, *held).to(x.dtype)(x)


@part("dtype")
def test_after_a_cast(stage, draw):
    """A layer that was made in float32 works after .to(float64)."""
    case = ROUTED.case(draw, 5)
    y = stage(cast, case.layer, case.x.double())
    near(y, case.output(), what="the output after .to(float64)", dtype=torch.float64)


def kinds_on_meta(kata):
    with CheapMeta():
        base = nn.Linear(7, 5, device="meta", dtype=torch.bfloat16)
        held = kata.RoutedLoRALinear(base, 3, 2)
    names = ("lora_A", "lora_B", "router.weight")
    parts = [held.lora_A, held.lora_B, held.router.weight]
    return [(name, p.device.type, str(p.dtype)[6:]) for name, p in zip(names, parts)]


def output_on_meta(kata):
    with CheapMeta():
        held = kata.RoutedLoRALinear(nn.Linear(7, 5, device="meta"), 3, 2, top_k=2)
        return held(torch.empty(2, 4, 7, device="meta"))


@part("device")
def test_meta_device(stage, draw):
    """A base on the meta device gives router and factors there; the forward makes nothing on the
    CPU."""
    for name, device, dtype in stage(kinds_on_meta):
        bug = None if name == ROUTER else "cpu-factors"
        require(device == "meta", f"{name} is on {device}; the base is on meta", bug)
        text = f"{name} is {dtype}; the base is bfloat16"
        require(dtype == "bfloat16", text, "float32-factors")
    got = stage.attempt(output_on_meta)
    if isinstance(got, Raised):  # picking tokens by their values is legal, and cannot be done there
        mixed = "same device" in got.text or "expected device" in got.text
        require(not mixed, f"on meta, forward mixes devices: {got.text}")
        return
    shape = tuple(tensor(got).shape)
    require(got.device.type == "meta", f"the output on meta is on {got.device.type}")
    require(shape == (2, 4, 5), f"the output on meta has shape {shape}, expected (2, 4, 5)")


# errors


def with_top_k(kata, weight, n, k):
    kata.RoutedLoRALinear(linear(weight), num_adapters=n, rank=2, top_k=k)


def base_after(kata, weight, n, k):
    base = linear(weight)
    try:
        kata.RoutedLoRALinear(base, num_adapters=n, rank=2, top_k=k)
    except ValueError as error:
        del error
    return base.weight.requires_grad, base.weight


@part("errors")
def test_top_k_out_of_range(stage, draw):
    """top_k outside 1..num_adapters raises ValueError naming top_k, before anything is changed."""
    weight = draw(4, 6)
    for n, k in ((3, 1), (3, 3), (1, 1)):
        stage(with_top_k, weight, n, k)
    outcomes = {
        (n, k): stage.attempt(with_top_k, weight, n, k)
        for n, k in ((3, 0), (3, -1), (3, 4), (3, 30), (1, 2), (1, 0))
    }
    passed = {case: not isinstance(y, Raised) for case, y in outcomes.items()}
    low, high = all(passed[3, k] for k in (0, -1)), all(passed[3, k] for k in (4, 30))
    for (n, k), outcome in outcomes.items():
        bug = "top-k-unchecked" if low and high else None
        rejects(outcome, "ValueError", "top_k", what=f"top_k={k} of {n}", bug=bug)
        trains, value = stage(base_after, weight, n, k)
        text = "the base was frozen before ValueError was raised"
        require(trains, text, "checked-after-freeze")
        same(value, weight, "the base's weight after the ValueError")


# gpu


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU, and nothing stays behind."""
    wrapped.accelerator(stage, ROUTED.case(draw, 4, 5))
