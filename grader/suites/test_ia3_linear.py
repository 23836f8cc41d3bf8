"""What is checked of `ia3_linear`. Contract: IA3 (Liu et al. 2022), section 3.3."""

from dataclasses import replace

import torch
from torch.nn import functional as F

from grader.exam.checks import blame, near, part, require, tensor
from grader.exam.kit import linear, need, set_
from grader.suites.shared import plain, wrapped
from grader.suites.shared.plain import Plain
from grader.suites.shared.wrapped import ABSENT, MODES, Kind, called, like, loaded, made, writing

OUT, IN = 12, 18


def pieces(draw, dtype=torch.float32, out=OUT, into=IN):
    """weight, bias, scale: the scale is far from one, and of both signs."""
    scale = draw(out, std=0.6).abs() + 0.4
    scale[::3] *= -2
    return draw(out, into, std=0.5, dtype=dtype), draw(out, std=2.0, dtype=dtype), scale.to(dtype)


def given(bias):
    return ABSENT if bias is None else bias


IA3 = Kind(
    name="IA3Linear",
    learned=("scale",),
    values=pieces,
    right=lambda x, W, b, s: F.linear(x, W, b) * s,
    slips={
        "scale-ignored": lambda x, W, b, s: F.linear(x, W, b),
        "scale-added": (
            lambda x, W, b, s: F.linear(x, W, b) + s,
            lambda x, W, b, s: F.linear(x, W, b) + s - 1,
        ),
        "residual-added": lambda x, W, b, s: F.linear(x, W, b) * (1 + s),
        "scale-twice": lambda x, W, b, s: F.linear(x, W, b) * s * s,
        "scale-divides": lambda x, W, b, s: F.linear(x, W, b) / s,
        "bias-not-scaled": lambda x, W, b, s: F.linear(x, W) * s + given(b),
        "bias-dropped": lambda x, W, b, s: F.linear(x, W) * s + 0 * given(b),
    },
    off=("scale-ignored", "eval-skips-scale"),
    cuts={"input-gradient-cut": lambda x, W, b, s: F.linear(x.detach(), W, b) * s},
)
ON_INPUT = {"scale-on-input": lambda x, W, b, s: F.linear(x * s, W, b)}
ALONG_ROWS = {"scale-along-rows": lambda x, W, b, s: F.linear(x, W, b) * s[:, None]}


def times(bias, scale):
    return None if bias is None else bias * scale


TO_LINEAR = Plain(
    "to_linear",
    "to-linear",
    lambda W, b, s: (W * s[:, None], times(b, s)),
    {
        "to-linear-not-scaled": lambda W, b, s: (W, b),
        "to-linear-bias-not-scaled": lambda W, b, s: (W * s[:, None], b),
        "to-linear-divides": (
            lambda W, b, s: (W / s[:, None], times(b, 1 / s)),
            lambda W, b, s: (W * s[:, None], times(b, 1 / s)),
            lambda W, b, s: (W / s[:, None], times(b, s)),
        ),
        "to-linear-scales-columns": lambda W, b, s: (
            W * (s if len(s) == W.shape[1] else ABSENT),
            times(b, s),
        ),
    },
    "to-linear-drops-bias",
)


def with_ones(case):
    """It with the scale as it starts."""
    return replace(case, values=(*case.values[:2], torch.ones_like(case.values[2])))


# shape


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """Inputs are (..., in_features): two, three and four dimensions, batches of one too."""
    leads = (2, 7), (2, 3, 4), (1, 1), (1,), (12, 12), (12, 12, 12)
    wrapped.leading_dimensions(stage, draw, IA3, leads, "leading-dims-lost")


@part("shape")
def test_single_vector(stage, draw):
    """A single vector (in_features,) gives (out_features,)."""
    wrapped.leading_dimensions(stage, draw, IA3, ((),), "single-vector-fails")


@part("shape")
def test_any_layer_size(stage, draw):
    """Layers are wide, tall or square, with a single input or output too; values may be zero."""
    sizes = ((IN, OUT), (1, IN), (OUT, 1), (1, 1))
    some = (torch.arange(OUT) % 3 > 0).float()
    cases = [IA3.case(draw, 5, out=out, into=into) for out, into in sizes]
    wrapped.all_right(stage, cases, named=lambda case: len(case.values[2]) > 1)
    vectors = [case.at(draw) for case in cases]
    with blame("single-vector-fails"):
        wrapped.all_right(stage, vectors, named=lambda case: len(case.values[2]) > 1)
    for kept in (some, some * 0):
        W, b, s = (case := IA3.case(draw, 5)).values
        zeros = [replace(case, values=values) for values in ((W, b * kept, s), (W, b, s * kept))]
        wrapped.all_right(stage, zeros, named=lambda case: False)


@part("shape")
def test_non_contiguous_input(stage, draw):
    """Inputs need not be contiguous."""
    wrapped.non_contiguous(stage, draw, IA3, "contiguous-only")


def scale_shape(kata, layer, x, wide):
    layer = made(kata, *layer)
    shape = tuple(need(layer, "scale").shape)
    if shape != tuple(wide.shape):
        return shape, None
    set_(layer, scale=wide)
    try:
        return shape, layer(x)
    except RuntimeError:
        return shape, None


@part("shape")
def test_scale_shape(stage, draw):
    """scale is (out_features,)."""
    for out, into in ((OUT, IN), (IN, OUT)):
        case, wide = IA3.case(draw, 5, out=out, into=into), draw(into)
        shape, y = stage(scale_shape, case.fresh, case.x, wide)
        shape, bug = tuple(shape), None
        if shape == (into,):
            on_input = replace(case, values=(*case.values[:2], wide))
            inputs = like(y, on_input.output(ON_INPUT["scale-on-input"]), 1e-4)
            bug = "scale-on-input" if inputs else "scale-has-in-features"
        elif shape in ((1, out), (out, 1)):
            bug = "scale-two-dimensional"
        elif shape in ((), (1,)):
            bug = "one-scale-for-all"
        require(shape == (out,), f"scale has shape {shape}, expected ({out},)", bug)


# init


def scales(kata, name, weight, bias, learned, words):
    """Those of three layers, two of them around one base; and how many storages they have."""
    base = linear(weight, bias)
    layers = [getattr(kata, name)(one) for one in (base, linear(weight, bias), base)]
    held = [need(layer, "scale") for layer in layers]
    return held, len({s.untyped_storage().data_ptr() for s in held})


@part("init")
def test_scale_starts_at_one(stage, draw):
    """scale starts at exactly one, so that at the start the layer computes what the base does."""
    case = with_ones(IA3.case(draw, 5))
    (scale, other, _), storages = stage(scales, *case.fresh)
    require(storages == 3, "two layers share one scale")
    scale = tensor(scale, "scale")
    bug = "scale-starts-at-zero" if bool((scale == 0).all()) else None
    if scale.shape == (OUT,) and not torch.equal(scale, tensor(other, "scale")):
        bug = "scale-starts-random"
    near(scale, torch.ones(OUT), what="scale at the start", rtol=0, atol=0, bug=bug)
    wrapped.starts_as(stage, case)


@part("init")
def test_base_is_the_layer_passed_in(stage, draw):
    """`base` is the very layer passed in, its values untouched."""
    wrapped.keeps_base(stage, IA3.case(draw, 1), bias="bias-required")


# freeze


@part("freeze")
def test_base_is_frozen(stage, draw):
    """Weight and bias of the base do not require and never receive a gradient."""
    wrapped.base_frozen(stage, IA3.case(draw, 5))


@part("freeze")
def test_only_the_scale_trains(stage, draw):
    """scale is a registered parameter that trains, and no other one does. train() and eval()
    return the layer."""
    bugs = "scale-no-parameter", "scale-frozen"
    got = wrapped.only_learned_train(stage, IA3.case(draw, 5), *bugs)
    require(got["returned"], "train() and eval() should return the layer")


# forward


@part("forward")
def test_rescales_every_output(stage, draw):
    """forward(x) = base(x) * scale, the bias scaled too."""
    case = IA3.case(draw, 3, 4)
    for mode, y in zip(MODES, stage(wrapped.in_each_mode, *case.call)):
        wrapped.computes(y, case, mode=mode)


@part("forward")
def test_rescales_outputs_of_a_square_layer(stage, draw):
    """In a square layer it is the outputs that are rescaled, not the inputs."""
    case = IA3.case(draw, 5, out=IN)
    (y,) = stage(wrapped.outputs, *case.call, ("train",))
    wrapped.computes(y, case, "the output of a square layer", also=ON_INPUT)
    case = case.at(draw, IN)  # as many rows as outputs: a scale along the wrong axis still fits
    (y,) = stage(wrapped.outputs, *case.call, ("train",))
    wrapped.computes(y, case, "the output for as many rows as outputs", also=ALONG_ROWS)


@part("forward")
def test_without_a_bias(stage, draw):
    """A base without bias works."""
    wrapped.without_bias(stage, draw, IA3, "bias-required")


@part("forward")
def test_input_unchanged(stage, draw):
    """The input is not changed in place."""
    cases = [IA3.case(draw, *lead, out=out) for out, lead in ((OUT, (5,)), (IN, (5,)), (IN, ()))]
    wrapped.inputs_unchanged(stage, cases)


def walked(stage, draw, mode, *lead):
    """A layer in this mode of which scale and base change, in place and in `.data`."""
    first, second, third = (IA3.case(draw, *lead) for _ in range(3))
    steps = [called(first, mode)]
    for name, other, verb in (
        ("scale", second, "set"),
        ("base", second, "set"),
        ("scale", first, "data"),
        ("base.weight", first, "replace"),
    ):
        names = ("base.weight", "base.bias") if name == "base" else (name,)
        words = f"{name} changed" + f" ({verb})" * (verb != "set")
        steps.append(writing(steps[-1].now, other, *names, verb=verb, words=words))
    steps.append(loaded(steps[-1].now, third))
    return wrapped.walked(stage, first, steps)


@part("forward")
def test_follows_its_parameters(stage, draw):
    """Each forward uses the values that scale and base have now, in either mode and under
    no_grad."""
    for mode in MODES:
        steps = walked(stage, draw, mode, 5)
        wrapped.outputs_follow(steps, mode, kept_values, "scales-base-in-place")


def kept_values(step, past):
    """The case before the step, where it has changed something."""
    return {"weight-cached": past[:1]} if past else {}


# gradient


SHAPES = (  # out, in, leading shape
    (OUT, IN, (2, 3)),
    (OUT, IN, ()),
    (OUT, IN, (1,)),
    (OUT, IN, (4, 4)),
    (OUT, OUT, (OUT,)),
    (1, IN, (3,)),
    (OUT, 1, (3,)),
    (OUT, IN, (2, 2, 3)),
)


def of_all_shapes(draw):
    """Layers of these shapes; one without a bias."""
    cases = [IA3.case(draw, *lead, out=out, into=into) for out, into, lead in SHAPES]
    return [*cases, IA3.case(draw, 2, 3, bias=False)]


@part("gradient")
def test_gradient_of_the_scale(stage, draw):
    """scale gets the gradient summed over all leading dimensions, in training and in eval mode,
    also where x needs none."""
    none = "scale-gets-no-gradient"
    wrapped.learned_gradients(stage, of_all_shapes(draw), none, none)


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to the input, through the frozen base and the scale."""
    wrapped.input_gradients(stage, of_all_shapes(draw))


@part("gradient")
def test_gradients_follow_the_parameters(stage, draw):
    """Each gradient is that of the values that scale and base have now."""
    for mode in MODES:
        wrapped.gradients_follow(walked(stage, draw, mode, 2, 3), mode)


@part("gradient")
def test_two_calls_in_one_graph(stage, draw):
    """A layer that is called twice before the backward pass gets the sum of both gradients."""
    case = IA3.case(draw, 4)
    wrapped.gradients_add_up(stage, case, case.at(draw, 4))


# merge


@part("merge")
def test_to_linear_computes_the_same(stage, draw):
    """to_linear() is an nn.Linear that computes the same; it has a bias if the base has one."""
    sizes = ((IN, IN), (OUT, IN), (IN, OUT), (1, IN), (OUT, 1), (1, 1))
    words = [{"out": out, "into": into} for out, into in sizes]
    plain.computes_the_same(stage, draw, IA3, TO_LINEAR, words, SHARED)


SHARED = "to-linear-shares-storage"


def both_ways(draw):
    """Layers with the scale drawn, and with that of the start."""
    return [IA3.case(draw, 5), with_ones(IA3.case(draw, 5))]


@part("merge")
def test_to_linear_leaves_the_layer_as_it_was(stage, draw):
    """base and scale stay as they were, and the layer goes on computing the same."""

    def changed(name):
        bug = "to-linear-changes-scale" if name == "scale" else None
        return "to-linear-changes-base" if name.startswith("base.") else bug

    thawed = "to-linear-unfreezes-base"
    plain.leaves_the_layer(stage, both_ways(draw), TO_LINEAR, changed, thawed, SHARED)


@part("merge")
def test_to_linear_shares_nothing(stage, draw):
    """to_linear() is a new layer that shares no storage: what comes later does not reach it."""
    for bias in (True, False):
        cases = [IA3.case(draw, 5, bias=bias), with_ones(IA3.case(draw, 5, bias=bias))]
        plain.shares_nothing(stage, cases, TO_LINEAR, SHARED, SHARED, "to-linear-cached")


@part("merge")
def test_to_linear_uses_the_values_of_the_moment(stage, draw):
    """Each call of to_linear() gives another layer with the values of that moment."""
    first, second = IA3.case(draw, 5), IA3.case(draw, 5)
    second.values[2][::4], second.values[1][1::4] = 0, 0
    for mode in MODES:
        steps = [called(first, mode), writing(first, second, "scale")]
        steps.append(writing(steps[-1].now, second, "base.weight", "base.bias"))
        steps.append(writing(steps[-1].now, first, "scale", verb="data"))
        plain.of_the_moment(stage, first, TO_LINEAR, steps, "to-linear-cached")


@part("merge")
def test_both_train_after_to_linear(stage, draw):
    """The new layer can be trained, and the layer itself goes on training, each for itself."""
    plain.each_trains(stage, IA3.case(draw, 4), TO_LINEAR)


# state


@part("state")
def test_state_names(stage, draw):
    """scale and the base's tensors are in the state dict under these names."""

    def bug(name, there):
        hidden = "base.weight" not in there and "base.bias" not in there
        return "base-not-in-state" if hidden and name != "scale" else None

    names = ("scale", "base.weight", "base.bias")
    wrapped.state_names(stage, IA3.case(draw, 1), names, bug)


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs."""
    wrapped.state_round_trip(stage, draw, IA3)
    plain.after_loading(stage, draw, IA3, TO_LINEAR)


# dtype and device


def right_in_dtype(stage, draw, dtype):
    for bias in (True, False):
        case = IA3.case(draw, 1, dtype=dtype, bias=bias)
        wrapped.learned_are(stage, case, "float32-scale")
    for lead, mode, bias in (((5,), "train", True), ((2, 3), "eval", False), ((), "eval", True)):
        case = IA3.case(draw, *lead, dtype=dtype, bias=bias)
        plain.in_dtype(stage, case, TO_LINEAR, "to-linear-float32", "to-linear-other-dtype")
        wrapped.in_dtype(stage, case, mode)


@part("dtype")
def test_float64(stage, draw):
    """A float64 base gives a float64 scale and outputs, exact to 1e-9."""
    right_in_dtype(stage, draw, torch.float64)


@part("dtype")
def test_bfloat16(stage, draw):
    """A bfloat16 base gives a bfloat16 scale and outputs."""
    right_in_dtype(stage, draw, torch.bfloat16)


def cast(kata, layer, x):
    return made(kata, *layer).to(x.dtype)(x)


@part("dtype")
def test_after_a_cast(stage, draw):
    """A layer that was made in float32 works after .to(float64)."""
    case = IA3.case(draw, 5)
    case = replace(case, x=draw(5, IN, dtype=torch.float64))
    near(stage(cast, case.layer, case.x), case.output(), dtype=torch.float64)


@part("device")
def test_meta_device(stage, draw):
    """A base on the meta device gives a scale, outputs and a plain layer there."""
    case = IA3.case(draw, 2, 5)
    wrapped.meta_device(stage, case, ("cpu-scale", "float32-scale"))
    plain.on_meta(stage, case, TO_LINEAR, "to-linear-on-cpu")


# errors


@part("errors")
def test_base_must_be_linear(stage, draw):
    """A base that is no nn.Linear raises TypeError naming base, before anything is changed; a
    subclass of it is one."""
    wrapped.base_checked(stage, IA3.case(draw, 5), "checked-after-freeze")


# gpu


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU, and nothing stays behind."""
    case = IA3.case(draw, 4, 5)
    wrapped.accelerator(stage, case, (), "cpu-scale", "to_linear", "to-linear-on-cpu")
