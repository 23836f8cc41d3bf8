"""What is checked of `dora_linear`. Contract: DoRA (Liu et al. 2024), sections 4.1 and 4.3."""

from dataclasses import replace

import torch
from torch.nn import functional as F

from grader.exam.checks import near, part, require, tensor
from grader.exam.kit import linear, need
from grader.suites.shared import lowrank, plain, wrapped
from grader.suites.shared.lowrank import ALPHA, FACTORS, RANK
from grader.suites.shared.plain import Plain
from grader.suites.shared.wrapped import ABSENT, MODES, Kind

OUT, IN = 12, 18
SHARED = "to-linear-shares-storage"


def rows(weight):
    """The norm of each row, as a column."""
    return weight.norm(dim=1, keepdim=True)


def pieces(draw, dtype=torch.float32, out=OUT, into=IN, rank=RANK, share=0.7):
    """weight, bias, magnitude, A, B. Each row of the update has `share` of the length that the
    weight's has, or less where it is small by chance: their sum is not near zero. Magnitudes are
    of both signs, far from the start."""
    W, A, B = draw(out, into, std=0.5), draw(rank, into, std=0.4), draw(out, rank)
    W = W + 0.2 * W.sign()
    length = torch.maximum(rows(B @ A), 0.2 * rows(B) * A.norm())
    B = share * rows(W) / (ALPHA / rank * length) * B
    magnitude = rows(W)[:, 0] * (draw(out, std=0.6).abs() + 0.4)
    magnitude[::3] *= -2
    bias = draw(out, std=2.0)
    return tuple(v.to(dtype) for v in (W, bias, magnitude, A, B))


def summed(W, A, B, alpha=ALPHA, scale=lambda s, r: s):
    """V, the weight plus the update."""
    return W + scale(alpha / len(A), len(A)) * B @ A


def through(weight, bias=None, scale=lambda s, r: s):
    """As a formula: `weight` of W, magnitude as a column and V; and a `bias` that a mistake makes
    of the own and of magnitude over norm."""

    def formula(x, W, b, m, A, B, alpha=ALPHA):
        V, m = summed(W, A, B, alpha, scale), m[:, None]
        if bias is None:
            return F.linear(x, weight(W, m, V), b)
        return F.linear(x, weight(W, m, V)) + bias(given(b), (m / rows(V))[:, 0])

    return formula


def given(bias):
    return ABSENT if bias is None else bias


def adapted(W, m, V):
    """The weight that is right; its norm is a constant in gradients."""
    return m * V / rows(V).detach()


def in_two_terms(inputs):
    """As a formula: base and update taken apart, `inputs(x)` what goes into each of them."""

    def formula(x, W, b, m, A, B, alpha=ALPHA):
        of_base, of_update = inputs(x)
        V = summed(W, A, B, alpha)
        ratio = m[:, None] / rows(V).detach()
        return F.linear(of_base, ratio * W, b) + F.linear(of_update, ratio * (V - W))

    return formula


SCALES = {bug: lowrank.SCALES[bug] for bug in ("scale-missing", "scale-is-alpha")}
SLIPS = {bug: through(adapted, scale=scale) for bug, scale in SCALES.items()} | {
    "adapter-ignored": through(lambda W, m, V: W),
    "magnitude-ignored": through(lambda W, m, V: V),
    "magnitude-on-base-alone": through(lambda W, m, V: m * W / rows(W) + V - W),
    "norm-missing": through(lambda W, m, V: m * V),
    "norm-of-base": through(lambda W, m, V: m * V / rows(W)),
    "norm-of-columns": through(lambda W, m, V: m * V / V.norm(dim=0)),
    "norm-of-whole-matrix": through(lambda W, m, V: m * V / V.norm()),
    "bias-scaled": through(adapted, lambda b, ratio: b * ratio),
    "bias-dropped": through(adapted, lambda b, ratio: 0 * b),
}
DORA = Kind(
    name="DoRALinear",
    learned=("magnitude", *FACTORS),
    values=pieces,
    words=lambda W, b, m, A, B, alpha=ALPHA: {"rank": len(A), "alpha": alpha},
    right=through(adapted),
    slips=SLIPS,
    off=("adapter-ignored", "adapter-ignored"),
    cuts={"input-gradient-cut": in_two_terms(lambda x: (x.detach(), x))},
    bends={"norm-not-detached": through(lambda W, m, V: m * V / rows(V))},
)


def parts(weight, bias=lambda b, ratio: b, scale=lambda s, r: s):
    """As weight and bias of the plain layer."""

    def made_of(W, b, m, A, B, alpha=ALPHA):
        V, m = summed(W, A, B, alpha, scale), m[:, None]
        return weight(W, m, V), None if b is None else bias(b, (m / rows(V))[:, 0])

    return made_of


TO_LINEAR = Plain(
    "to_linear",
    "to-linear",
    parts(adapted),
    {
        "to-linear-without-magnitude": parts(lambda W, m, V: V),
        "to-linear-scales-bias": parts(adapted, lambda b, ratio: b * ratio),
    },
    "to-linear-drops-bias",
    unnamed=(
        "not-linear",
        "adds-bias",
        "needs-no-grad",
        "assigns-tensor",
        "needs-bias",
        "cannot-train",
    ),
)


def at_start(case):
    """It as it starts: lora_B zero, the magnitudes those of the base."""
    W, b, _, A, B = case.values
    return replace(case, values=(W, b, rows(W)[:, 0], A, 0 * B))


def zeros(case):
    """It with magnitudes of zero, all or some, and with a lora_B of zero."""
    W, b, m, A, B = case.values
    some = (0 * m, A, B), (m * (torch.arange(len(m)) % 2), A, B), (m, A, 0 * B)
    return [replace(case, values=(W, b, *one)) for one in some]


def wide(case):
    """Whether each mistake shows on it."""
    return min(case.values[0].shape) > 1


# shape


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """Inputs are (..., in_features), contiguous or not: a single vector (in_features,), batches
    of one, and up to four dimensions."""
    leads = (2, 7), (2, 3, 4), (1, 1), (1,), (12, 12), (18, 18)
    wrapped.leading_dimensions(stage, draw, DORA, ((), *leads), None)
    wrapped.non_contiguous(stage, draw, DORA, None)


@part("shape")
def test_parameter_shapes(stage, draw):
    """magnitude is (out_features,), one per output; lora_A is (rank, in_features), lora_B is
    (out_features, rank)."""
    for out, into in ((OUT, IN), (IN, OUT)):
        case = DORA.case(draw, 1, out=out, into=into)
        (value,) = stage(wrapped.attributes, case.fresh, ("magnitude",))
        shape = tuple(tensor(value, "magnitude").shape)
        of_columns = shape in ((into,), (1, into), (into, 1))
        extra = "magnitude-two-dimensional" if shape in ((1, out), (out, 1)) else None
        bug = "magnitude-per-input" if of_columns else extra
        require(shape == (out,), f"magnitude has shape {shape}, expected ({out},)", bug)
        wrapped.shapes(stage, case, None)


@part("shape")
def test_any_layer_size(stage, draw):
    """Layers are wide, tall or square, with a single input or output too, at any rank."""
    sizes = ((IN, OUT, RANK), (IN, IN, RANK), (6, 6, 6), (OUT, IN, 1), (OUT, IN, OUT + 2))
    single = ((1, IN, RANK), (OUT, 1, RANK), (1, 1, 1))
    cases = [DORA.case(draw, o, out=o, into=i, rank=r) for o, i, r in (*sizes, *single)]
    wrapped.all_right(stage, [*cases, *(case.at(draw) for case in cases)], wide)


# init


@part("init")
def test_base_is_the_layer_passed_in(stage, draw):
    """`base` is the very layer passed in, its values untouched."""
    wrapped.keeps_base(stage, DORA.case(draw, 1), "base-changed")


@part("init")
def test_starts_as_the_base(stage, draw):
    """magnitude starts at the norms of the rows of base.weight, so that at the start the layer
    computes what the base does."""
    for out, into in ((OUT, IN), (IN, IN)):
        case = at_start(DORA.case(draw, 5, out=out, into=into))
        held, storages = stage(magnitudes, *case.fresh)
        require(storages == 3, "two layers share one magnitude")
        W = case.values[0].double()
        known = {"magnitude-starts-at-ones": torch.ones(out)}
        if out == into:
            known["magnitude-per-input"] = W.norm(dim=0)
        for value in held:
            near(value, rows(W)[:, 0], what="magnitude at the start", unless=known)
        wrapped.starts_as(stage, case)


def magnitudes(kata, name, weight, bias, learned, words):
    """Those of three layers, two of them around one base; and how many storages they have."""
    base = linear(weight, bias)
    layers = [getattr(kata, name)(one, **words) for one in (base, linear(weight, bias), base)]
    held = [need(layer, "magnitude") for layer in layers]
    return held, len({m.untyped_storage().data_ptr() for m in held})


@part("init")
def test_b_starts_at_zero(stage, draw):
    """lora_B starts at exactly zero."""
    lowrank.b_starts_at_zero(stage, draw, DORA)


@part("init")
def test_a_starts_random(stage, draw):
    """lora_A starts random: 0 < std < 1.5, full row rank, not the same every time."""
    lowrank.a_starts_random(stage, draw, DORA, constant=None)


@part("init")
def test_arguments(stage, draw):
    """rank 8, alpha 16; arguments by place or by name."""
    told = (
        (4, 10.0, (), {"rank": 4, "alpha": 10.0}, "rank 4 and alpha 10"),
        (4, 10, (), {"alpha": 10, "rank": 4}, "alpha 10, a whole number, and rank 4"),
        (8, 16.0, (), {}, "the default rank and alpha"),
        (4, 16.0, (), {"rank": 4}, "rank 4 and the default alpha"),
        (4, 6, (4, 6), {}, "4 and 6 by place"),
    )
    calls = [
        (DORA.case(draw, 5, rank=rank, share=0.3, options={"alpha": alpha}), *rest, None)
        for rank, alpha, *rest in told
    ]
    wrapped.by_arguments(stage, calls)


# freeze


@part("freeze")
def test_only_factors_and_magnitude_train(stage, draw):
    """Weight and bias of the base do not require and never receive a gradient. lora_A, lora_B and
    magnitude are registered parameters that train, and no other one does. train() and eval()
    return the layer."""
    case = DORA.case(draw, 5)
    wrapped.base_frozen(stage, case)
    got = wrapped.only_learned_train(stage, case, "no-parameter")
    require(got["returned"], "train() and eval() should return the layer")


# forward


@part("forward")
def test_gives_the_direction_its_magnitude(stage, draw):
    """forward(x) = x @ W'.T + bias, W' = magnitude * V / the norm of V's rows, V the weight plus
    the scaled update; the bias is not rescaled."""
    case = DORA.case(draw, 3, 4)
    for mode, y in zip(MODES, stage(wrapped.in_each_mode, *case.call)):
        wrapped.computes(y, case, mode=mode)
    wrapped.all_right(stage, zeros(case), named=lambda case: False)


@part("forward")
def test_without_a_bias(stage, draw):
    """A base without bias works."""
    wrapped.without_bias(stage, draw, DORA, None)


@part("forward")
def test_any_alpha(stage, draw):
    """Also where alpha is smaller than rank, negative or zero."""
    wrapped.any_alpha(stage, DORA.case(draw, 5), (2.0, -7.5, 0.0))


@part("forward")
def test_small_and_large_weights(stage, draw):
    """Nothing is added to the norm but, at most, 1e-12, nor is it held above more than that: small
    weights have a direction too, and large ones."""
    case = DORA.case(draw, 5, bias=False)
    W, _, m, A, B = case.values
    for size in (1e-3, 1e-4, 1e-7):
        small = replace(case, values=(W * size, None, m, A, B * size))
        (y,) = stage(wrapped.outputs, *small.call, ("train",))
        forms = [padded(eps) for eps in EPS if eps > size / 2000]  # those that show
        forms += [floored(eps) for eps in EPS if eps > 9 * size]
        eps = small.lazily(y, tuple(forms))
        what = "the output of a layer with small weights"
        near(y, small.output(), what=what, unless={"norm-with-eps": eps})
    large = replace(case, values=(W * 1e4, None, m * 1e4, A, B * 1e4))
    (y,) = stage(wrapped.outputs, *large.call, ("train",))
    near(y, large.output(), what="the output of a layer with large weights")


EPS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-8)


def padded(eps):
    """As a formula: with this added to the norm."""
    return through(lambda W, m, V: m * V / (rows(V) + eps))


def floored(eps):
    """As a formula: with no norm below this."""
    return through(lambda W, m, V: m * V / rows(V).clamp(min=eps))


@part("forward")
def test_input_unchanged(stage, draw):
    """The input is not changed in place."""
    cases = [DORA.case(draw, *lead) for lead in ((5,), ())]
    wrapped.inputs_unchanged(stage, [*cases, DORA.case(draw, 5, out=IN, into=IN)])


def walked(stage, draw, mode, *lead):
    """A layer in this mode of which magnitude, factors and base change, in place and in `.data`;
    its bias is zero at first."""
    first, second, third, fourth = (DORA.case(draw, *lead) for _ in range(4))
    W, b, *learned = first.values
    first = replace(first, values=(W, 0 * b, *learned))
    steps = wrapped.changes(
        first,
        mode,
        (second, "set", "magnitude"),
        (second, "set", *FACTORS),
        (second, "set", "base.weight", "base.bias"),
        (third, "data", "lora_B"),
        (third, "data", "lora_A"),
        (first, "data", "magnitude"),
        (first, "replace", "base.weight"),
        (fourth, "load"),
    )
    return wrapped.walked(stage, first, steps)


def kept_values(step, past):
    """The cases where the weight, its direction or its norm is that of the step before."""
    if not past:
        return {}
    now, old = step.now, past[0]
    (W, b, m, A, B), (W0, _, _, A0, B0) = now.values, old.values
    ratio = rows(summed(W, A, B)) / rows(summed(W0, A0, B0))
    stale = replace(now, values=(W, b, m * ratio[:, 0], A, B))
    return {"weight-kept": [old, now.having(old, 0, 3, 4)], "norm-kept": [stale]}


@part("forward")
def test_follows_its_parameters(stage, draw):
    """Each forward uses the values that base, factors and magnitude have now, in either mode and
    under no_grad."""
    for mode in MODES:
        steps = walked(stage, draw, mode, 5)
        wrapped.outputs_follow(steps, mode, kept_values, "merges-in-place")


# gradient


SHAPES = (  # out, in, rank, leading shape
    (OUT, IN, RANK, (2, 3)),
    (OUT, IN, RANK, ()),
    (OUT, IN, 1, (1,)),
    (IN, IN, RANK, (IN,)),
    (6, 6, 6, (6, 6)),
    (1, IN, 1, (3,)),
    (OUT, 1, RANK, (3,)),
    (OUT, IN, RANK, (2, 2, 3)),
)


def of_all_shapes(draw):
    """Layers of these shapes; one without a bias."""
    cases = [DORA.case(draw, *lead, out=o, into=i, rank=r) for o, i, r, lead in SHAPES]
    negative = DORA.case(draw, 2, 3, options={"alpha": -ALPHA})
    return [*cases, negative, DORA.case(draw, 2, 3, bias=False)]


@part("gradient")
def test_gradients_with_the_norm_a_constant(stage, draw):
    """magnitude, lora_A and lora_B get the gradients of the formula with the norm of V held
    constant, in training and in eval mode, also where x needs none."""
    wrapped.learned_gradients(stage, of_all_shapes(draw), "gets-no-gradient", "gets-no-gradient")


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to x, through the base's part and through the update's."""
    wrapped.input_gradients(stage, of_all_shapes(draw), wide)


@part("gradient")
def test_gradients_follow_the_parameters(stage, draw):
    """Each gradient is that of the values that base, factors and magnitude have now."""
    for mode in MODES:
        wrapped.gradients_follow(walked(stage, draw, mode, 2, 3), mode)


@part("gradient")
def test_two_calls_in_one_graph(stage, draw):
    """A layer that is called twice before the backward pass gets the sum of both gradients."""
    case = DORA.case(draw, 4)
    wrapped.gradients_add_up(stage, case, case.at(draw, 4))


@part("gradient")
def test_b_learns_from_the_start(stage, draw):
    """While lora_B is still zero it gets its gradient all the same."""
    lowrank.b_learns_from_the_start(stage, at_start(DORA.case(draw, 6)))


# merge


@part("merge")
def test_to_linear_computes_the_same(stage, draw):
    """to_linear() is an nn.Linear that computes the same; it has a bias if the base has one."""
    sizes = ((IN, IN), (OUT, IN), (IN, OUT), (1, IN), (OUT, 1), (1, 1))
    words = [{"out": out, "into": into} for out, into in sizes]
    also = zeros(DORA.case(draw, 5))
    plain.computes_the_same(stage, draw, DORA, TO_LINEAR, words, SHARED, also)


@part("merge")
def test_to_linear_leaves_the_layer_as_it_was(stage, draw):
    """base, factors and magnitude stay as they were, and the layer goes on computing the same."""
    case, changed = DORA.case(draw, 5), "to-linear-changes-layer"
    cases = [case, at_start(case)]
    plain.leaves_the_layer(stage, cases, TO_LINEAR, lambda name: changed, None, SHARED)


@part("merge")
def test_to_linear_shares_nothing(stage, draw):
    """to_linear() is a new layer that shares no storage: what comes later does not reach it."""
    for bias in (True, False):
        case = DORA.case(draw, 5, bias=bias)
        cases = [case, at_start(case)]
        plain.shares_nothing(stage, cases, TO_LINEAR, SHARED, SHARED)


@part("merge")
def test_to_linear_uses_the_values_of_the_moment(stage, draw):
    """Each call of to_linear() gives another layer with the values of that moment."""
    first, second = DORA.case(draw, 5), DORA.case(draw, 5)
    for mode in MODES:
        steps = wrapped.changes(
            first,
            mode,
            (second, "set", "magnitude"),
            (second, "set", *FACTORS),
            (second, "set", "base.weight", "base.bias"),
            (first, "data", "magnitude"),
        )
        plain.of_the_moment(stage, first, TO_LINEAR, steps)


@part("merge")
def test_both_train_after_to_linear(stage, draw):
    """The new layer can be trained, and the layer itself goes on training, each for itself."""
    plain.each_trains(stage, DORA.case(draw, 4), TO_LINEAR)


# state


@part("state")
def test_state(stage, draw):
    """magnitude, the factors and the base's tensors are in the state dict under these names;
    load_state_dict of another instance's state reproduces its outputs."""
    names = (*DORA.learned, "base.weight", "base.bias")
    wrapped.state_names(stage, DORA.case(draw, 1), names)
    wrapped.state_round_trip(stage, draw, DORA)
    plain.after_loading(stage, draw, DORA, TO_LINEAR)


# dtype and device


def right_in_dtype(stage, draw, dtype):
    for bias in (True, False):
        case = at_start(DORA.case(draw, 5, dtype=dtype, bias=bias))
        wrapped.learned_are(stage, case)
        (value,) = stage(wrapped.attributes, case.fresh, ("magnitude",))
        near(value, rows(case.values[0].double())[:, 0], what="magnitude at the start", dtype=dtype)
    for lead, mode, bias in (((5,), "train", True), ((2, 3), "eval", False), ((), "eval", True)):
        case = DORA.case(draw, *lead, dtype=dtype, bias=bias)
        wrapped.in_dtype(stage, case, mode)
        plain.in_dtype(stage, case, TO_LINEAR, None)


@part("dtype")
def test_float64(stage, draw):
    """A float64 base gives float64 factors, magnitude and outputs, exact to 1e-9."""
    right_in_dtype(stage, draw, torch.float64)


@part("dtype")
def test_bfloat16(stage, draw):
    """A bfloat16 base gives bfloat16 factors, magnitude and outputs."""
    right_in_dtype(stage, draw, torch.bfloat16)


@part("dtype")
def test_after_a_cast(stage, draw):
    """A layer that was made in float32 works after .to(float64)."""
    wrapped.after_move(stage, DORA.case(draw, 5), torch.float64, dtype=torch.float64)


@part("device")
def test_meta_device(stage, draw):
    """A base on the meta device gives factors, a magnitude, outputs and a plain layer there."""
    case = DORA.case(draw, 2, 5)
    wrapped.meta_device(stage, case, (None, "float32-factors"))
    plain.on_meta(stage, case, TO_LINEAR)


# gpu


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU, and nothing stays behind."""
    case = DORA.case(draw, 4, 5)
    wrapped.accelerator(stage, case, (), None, "to_linear")
