"""What is checked of `bottleneck_adapter`. Contract: Houlsby et al. 2019, section 2.1."""

from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from grader.exam.checks import CheckFailed, blame, close, near, part, require
from grader.exam.kit import need
from grader.suites.shared import bottlenecks, properties
from grader.suites.shared.bottlenecks import LOW, NAMES, PLACES, D, forward_delta, write
from grader.suites.shared.properties import LEADS, Layer


def pick(name):
    """The activation of that name, for the stage and for the examiner."""
    if name.startswith("prelu"):
        return nn.PReLU(init=float(name[5:] or 0.3))
    if name == "nested":
        return nn.Sequential(nn.Tanh(), nn.Sequential(nn.PReLU(init=0.3)))
    if name == "partial":
        from functools import partial  # a probe finds nothing that was imported above

        return partial(F.leaky_relu, negative_slope=0.3)  # has no __name__
    return {"gelu": F.gelu, "tanh": torch.tanh, "square": lambda h: h * h, "silu": nn.SiLU()}[name]


def make(kata, activation, residual, *values):
    low, d = values[0].shape
    module = kata.BottleneckAdapter(d, low, pick(activation), residual)
    return write(module.to(values[0].dtype), *values)


def delta(act):
    return lambda x, w1, b1, w2, b2: act(x @ w1.T + b1) @ w2.T + b2


def slips(act):
    """What known mistakes make of the delta."""

    def normalised(x, *values):
        return delta(act)(F.layer_norm(x, x.shape[-1:]), *values)

    return {
        "activation-missing": delta(lambda h: h),
        "activation-after-up": lambda x, *values: act(delta(lambda h: h)(x, *values)),
        "activation-twice": lambda x, *values: act(delta(act)(x, *values)),
        "activation-first": lambda x, *values: delta(lambda h: h)(act(x), *values),
        "up-bias-missing": lambda x, w1, b1, w2, b2: delta(act)(x, w1, b1, w2, 0),
        "down-bias-missing": lambda x, w1, b1, w2, b2: delta(act)(x, w1, 0, w2, b2),
        "input-normalised": normalised,
        "activation-is-relu": delta(F.relu),
    }


def plus(formula, size=1):
    """A formula and x added to it."""
    return lambda x, *values: size * x + formula(x, *values)


def layers(draw, activation="gelu", residual=True, values=None, **kind):
    """forward_delta of an adapter, and the whole of it."""
    act = pick(activation)
    act = act.double().requires_grad_(False) if isinstance(act, nn.Module) else act
    alone, known = delta(act), slips(act)
    if residual:
        wholes = {bug: plus(slip) for bug, slip in known.items()}
        wholes |= {"residual-missing": alone, "residual-twice": plus(alone, 2)}
    else:
        wholes = known | {"residual-always": plus(alone)}
    values = values or bottlenecks.pieces(draw, **kind)
    words = {"values": values, "width": values[0].shape[1], "options": (activation, residual)}
    note = "" if (activation, residual) == ("gelu", True) else f" ({activation=}, {residual=})"
    change, whole = f"forward_delta(x){note}", f"the output{note}"
    known = known | {"delta-with-residual": plus(alone)}
    return (
        Layer(make, write, alone, known, call=forward_delta, what=change, **words),
        Layer(make, write, plus(alone) if residual else alone, wholes, what=whole, **words),
    )


def whole(draw, *options, **kind):
    return layers(draw, *options, **kind)[1]


# shape


def drops(kata, arguments, x):
    """Two outputs of one x in training mode, and one in eval mode."""
    module = make(kata, *arguments)
    return module(x), module(x), module.eval()(x)


@contextmanager
def named(stage, draw, layer):
    """Name two mistakes that show anywhere: other names, and dropout (where nothing else fits)."""
    try:
        with blame("projections-renamed", "has no `down_proj`", "has no `up_proj`"):
            yield
    except CheckFailed as failure:
        if failure.bug is None and failure.started:
            x = draw(5, D)
            first, second, calm = stage(drops, layer.arguments, x)
            if close(calm, layer.output(x), 1e-4, 1e-5) and not torch.equal(first, second):
                failure.bug = "dropout-added"
        raise


def _leads(stage, draw, leads):
    change, output = layers(draw)
    with named(stage, draw, output):
        for layer in (change, output):
            properties.leading_dimensions(stage, draw, layer, leads)


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """Inputs are (..., d_model): two to five dimensions, batches of one too."""
    _leads(stage, draw, [lead for lead in LEADS if lead] + [(D,), (D, D)])


@part("shape")
def test_single_vector(stage, draw):
    """A single vector (d_model,) gives (d_model,)."""
    _leads(stage, draw, [()])


@part("shape")
def test_non_contiguous_input(stage, draw):
    """Inputs need not be contiguous."""
    for layer in layers(draw):
        properties.non_contiguous(stage, draw, layer)


def sizes(kata):
    module = kata.BottleneckAdapter(10, 4)
    default = kata.BottleneckAdapter(7)
    layers = {n: need(module, n) for n in ("down_proj", "up_proj")}
    return {
        "linear": [n for n, layer in layers.items() if not isinstance(layer, nn.Linear)],
        "bias": [n for n, layer in layers.items() if getattr(layer, "bias", None) is None],
        "shapes": [tuple(layer.weight.shape) for layer in layers.values()],
        "default": tuple(default.down_proj.weight.shape),
    }


@part("shape")
def test_projections(stage):
    """down_proj is nn.Linear(d_model, bottleneck_dim), up_proj its reverse; both with a bias."""
    got = stage(sizes)
    require(not got["linear"], f"{', '.join(got['linear'])} should be an nn.Linear")
    bias = ", ".join(got["bias"])
    known = "up-bias-missing" if "up" in bias else "down-bias-missing"
    require(not bias, f"{bias} should have a bias", known)
    shapes = [tuple(shape) for shape in got["shapes"]]
    require(shapes == [(4, 10), (10, 4)], f"the weights have shapes {shapes}")
    default = tuple(got["default"])
    text = f"BottleneckAdapter(7) has a down_proj.weight of shape {default}, expected (64, 7)"
    require(default == (64, 7), text)


def _sized(stage, draw, d, low):
    w1, b1, w2, b2 = bottlenecks.pieces(draw, d=d, low=low)
    values, x = (w1, b1 / 3, w2, b2), draw(12, d)  # hidden values of both signs, for relu
    for layer in layers(draw, values=values):
        what = f"{layer.what} at d_model {d} and bottleneck_dim {low}"
        properties.computes(stage, layer, x, what=what)


@part("shape")
def test_bottleneck_of_one(stage, draw):
    """A bottleneck_dim of 1 is legal."""
    with blame("dim-one-refused", "bottleneck_dim"):
        _sized(stage, draw, D, 1)


@part("shape")
def test_any_bottleneck_dim(stage, draw):
    """bottleneck_dim may be as large as d_model, or larger; d_model may be 1."""
    for d, low in ((6, 6), (4, 9), (1, 3)):
        with blame("wide-refused", "bottleneck_dim"):
            _sized(stage, draw, d, low)


# init


def start(kata, x, residual):
    module = kata.BottleneckAdapter(10, 4, residual=residual)
    return module(x), module.up_proj.weight, module.up_proj.bias


def by_default(kata, x):
    return kata.BottleneckAdapter(10, 4)(x)


@part("init")
def test_up_projection_starts_at_zero(stage, draw):
    """up_proj starts with weight and bias zero, so that the adapter starts as the identity."""
    x = draw(5, D)
    zero = torch.zeros(5, D, dtype=torch.float64)
    for residual in (True, False):
        y, weight, bias = stage(start, x, residual)
        where = "" if residual else " (residual=False)"
        text = "should start at zero" + where
        require(bool((weight == 0).all()), f"up_proj.weight {text}", "up-not-zero")
        require(bias is not None, "up_proj should have a bias", "up-bias-missing")
        require(bool((bias == 0).all()), f"up_proj.bias {text}", "up-bias-not-zero")
        known = {"residual-missing": zero} if residual else {"residual-always": x}
        want = x if residual else zero
        near(y, want, what=f"the output at the start{where}", unless=known)
    y = stage(by_default, x)
    known = {"residual-missing": zero}
    near(y, x, what="the output at the start, residual not given", unless=known)


def down_start(kata):
    first, second = kata.BottleneckAdapter(30, 20), kata.BottleneckAdapter(30, 20)
    return first.down_proj.weight, second.down_proj.weight


@part("init")
def test_down_projection_starts_random(stage):
    """down_proj starts random, not the same every time."""
    weight, other = stage(down_start)
    require(bool(torch.isfinite(weight).all()), "down_proj.weight holds values that are not finite")
    zero = bool((weight == 0).all())
    require(not zero, "down_proj.weight is all zero at the start", "down-zero")
    spread = float(weight.double().std())
    require(spread > 0, "down_proj.weight starts constant", "down-constant")
    rows = weight.double()
    alike = bool((rows == rows[0]).all()) or bool((rows == rows[:, :1]).all())
    require(not alike, "the rows of down_proj.weight are all alike", "down-constant")
    require(not torch.equal(weight, other), "two adapters start alike: down_proj is not random")


def by_name(kata, values, x):
    module = kata.BottleneckAdapter(
        residual=False, activation=torch.tanh, bottleneck_dim=4, d_model=10
    )
    return write(module, *values)(x=x), module.forward_delta(x=x)


@part("init")
def test_arguments(stage, draw):
    """d_model, bottleneck_dim, activation and residual, by place or by name."""
    x, layer = draw(5, D), whole(draw, "tanh", False)
    y, change = stage(by_name, layer.values, x)
    want, hard_coded = layer.output(x), whole(draw, "gelu", False, layer.values).output(x)
    known = {"residual-always": x + want, "activation-hard-coded": hard_coded}
    near(y, want, what="the output with arguments given by name", unless=known)
    near(change, want, what="forward_delta(x=x)")


# freeze


def training(kata, arguments, x):
    module = make(kata, *arguments)
    returned = all(module.train(mode) is module for mode in (False, True))
    y = module(x)
    if y.requires_grad:
        y.square().sum().backward()
    params = dict(module.named_parameters(remove_duplicate=False))
    ours = {id(p) for m in (module.down_proj, module.up_proj) for p in m.parameters()}
    others = {id(p): (n, p) for n, p in params.items() if id(p) not in ours}
    slopes = [p for m in module.modules() if isinstance(m, nn.PReLU) for p in m.parameters()]
    return {
        "returned": returned,
        "missing": [n for n in NAMES if n not in params],
        "still": [n for n in NAMES if n in params and not params[n].requires_grad],
        "extra": [n for n, p in others.values() if p.requires_grad],
        "slopes": [p.requires_grad for p in slopes],
        "moved": [p.grad is not None for p in slopes],
        "grads": [n for n in NAMES if n in params and params[n].grad is None],
    }


@part("freeze")
def test_both_projections_train(stage, draw):
    """Weights and biases of both projections train, and no other parameter does."""
    got = stage(training, whole(draw).arguments, draw(5, D))
    missing, still = ", ".join(got["missing"]), ", ".join(got["still"])
    require(not missing, f"{missing} is not among the named parameters")
    require(not still, f"{still} does not train (requires_grad is False)", "projection-frozen")
    below = got["grads"] == ["down_proj.weight", "down_proj.bias"]
    known = "delta-detached" if len(got["grads"]) == 4 else "hidden-detached" if below else None
    require(not got["grads"], f"{', '.join(got['grads'])} gets no gradient", known)
    extra = ", ".join(got["extra"])
    require(not extra, f"{extra} trains too", "extra-trainable")
    require(got["returned"], "train() and eval() should return the module itself")


@part("freeze")
def test_parameters_of_an_activation_train(stage, draw):
    """An activation that is a module is registered: its parameters train too."""
    for name in ("prelu", "nested"):
        got = stage(training, whole(draw, name).arguments, draw(5, D))
        slope = f"the slope of nn.PReLU{'' if name == 'prelu' else ' in an nn.Sequential'}"
        require(all(got["slopes"]), f"{slope} has requires_grad False", "activation-frozen")
        known, count = None if got["slopes"] else "activation-not-registered", len(got["extra"])
        require(count > 0, f"{slope} is not among the trainable parameters", known)
        extra = ", ".join(got["extra"])
        require(count == 1, f"besides {slope}, other parameters train: {extra}")
        require(all(got["moved"]), f"{slope} gets no gradient")


# forward


@part("forward")
def test_adds_the_delta(stage, draw):
    """forward_delta(x) = up_proj(activation(down_proj(x))); forward(x) = x + forward_delta(x)."""
    change, output = layers(draw)
    with named(stage, draw, output):
        for layer in (change, output):
            properties.computes(stage, layer, draw(3, 4, D))


@part("forward")
def test_without_a_residual(stage, draw):
    """With residual=False forward gives the delta alone; forward_delta never has a residual."""
    for layer in reversed(layers(draw, "gelu", False)):
        properties.computes(stage, layer, draw(5, D))


@part("forward")
def test_adapters_are_independent(stage, draw):
    """Another adapter with another activation changes nothing."""
    other = whole(draw, "square", False)
    for layer in layers(draw, "tanh"):
        properties.independent(stage, draw, layer, other)


def in_modes(kata, arguments, x):
    """Output and delta in training mode, in eval mode, and there under no_grad."""
    module, outputs = make(kata, *arguments), []
    for mode, grad in ((True, True), (False, True), (False, False)):
        module.train(mode)
        with torch.set_grad_enabled(grad):
            outputs.append((module(x), module.forward_delta(x)))
    return outputs


@part("forward")
def test_any_activation(stage, draw):
    """The activation is the one passed in, whatever the mode: a function, a lambda or a module."""
    values, x = bottlenecks.pieces(draw), draw(5, D)
    hard_coded = {"activation-hard-coded": layers(draw, values=values)[0].output(x)}
    for name in ("tanh", "square", "silu", "prelu", "partial"):
        alone, both = layers(draw, name, values=values)
        (y, change), *others = stage(in_modes, alone.arguments, x)
        known = alone.mistakes(x) | hard_coded if name == "tanh" else hard_coded
        near(change, alone.output(x), what=alone.what, unless=known)
        near(y, both.output(x), what=both.what)
        for (y, change), mode in zip(others, ("eval mode", "eval mode, no_grad")):
            near(change, alone.output(x), what=f"{alone.what}, {mode}")
            asleep = {"eval-skips-adapter": x}
            near(y, both.output(x), what=f"{both.what}, {mode}", unless=asleep)


def default_activation(kata, values, x):
    return write(kata.BottleneckAdapter(10, 4), *values).forward_delta(x)


@part("forward")
def test_default_activation(stage, draw):
    """The default activation is F.gelu, the exact one."""
    (alone, _), x = layers(draw), draw(5, D)
    # Near -2.3 the exact GELU is small, and its approximation is off by a fiftieth.
    w1, _, w2, b2 = alone.values
    low = replace(alone, values=(w1 * 0.01, draw(LOW, std=0.1) - 2.3, w2, 0 * b2))
    approximate = delta(lambda h: F.gelu(h, approximate="tanh"))
    known = {"gelu-approximate": approximate, "activation-is-relu": delta(F.relu)}
    what = "forward_delta(x) by default, where the hidden values are near -2.3"
    got = stage(default_activation, low.values, x)
    near(got, low.output(x), what=what, unless=low.mistakes(x, slips=known))
    got = stage(default_activation, alone.values, x)
    near(got, alone.output(x), what="forward_delta(x) by default", unless=alone.mistakes(x))


@part("forward")
def test_input_unchanged(stage, draw):
    """The input is not changed in place."""
    for layer in (*layers(draw), whole(draw, "gelu", False)):
        properties.input_unchanged(stage, draw, layer)


def delta_after_forward(module, x):
    module(x)
    return module.forward_delta(x)


@part("forward")
def test_follows_its_parameters(stage, draw):
    """Each forward uses the values of the moment, in either mode, also under no_grad."""
    w1, b1, w2, b2 = bottlenecks.pieces(draw)
    bare = w1, b1, 0 * w2, b2  # nothing but up_proj's bias is left
    for residual in (True, False):
        alone, first = layers(draw, "gelu", residual)
        alone = replace(alone, call=delta_after_forward)
        then, second = layers(draw, "gelu", residual)
        asleep = {"eval-skips-adapter": (lambda x, *_: x) if residual else lambda x, *_: 0 * x}
        missing = "residual-missing" if residual else "residual-always"
        known = {"slips": {missing: second.slips[missing]}, "in_eval": asleep}
        properties.follows_its_values(stage, draw, first, second, **known)
        known = {"delta-with-residual": then.slips["delta-with-residual"]}
        properties.follows_its_values(stage, draw, alone, then, slips=known)
        for layer in (alone, first):
            later, modes = replace(layer, values=bare), ("eval, no_grad",)
            properties.follows_its_values(stage, draw, layer, later, modes=modes)


def modes(kata, x):
    class Noting(nn.Module):
        def __init__(self):
            super().__init__()
            self.seen = set()

        def forward(self, h):
            self.seen.add(self.training)
            return h

    noting, all_seen = Noting(), []
    module = kata.BottleneckAdapter(10, 4, noting)
    for mode in (None, True, False, True):
        noting.seen = set()
        if mode is not None:
            module.train(mode)
        module(x)
        all_seen.append(sorted(noting.seen))
    return all_seen, any(part is noting for part in module.modules())


@part("forward")
def test_activation_follows_the_mode_of_the_adapter(stage, draw):
    """An activation that is a module runs in each forward and follows train() and eval()."""
    all_seen, registered = stage(modes, draw(5, D))
    arrived, *seen = [list(modes) for modes in all_seen]
    text = "a forward did not run the activation that was passed in"
    require(all([arrived, *seen]), text)
    known = None if registered or seen != [[True]] * 3 else "activation-not-registered"
    text = f"under train, eval, train the activation ran with training = {seen}"
    require(seen == [[True], [False], [True]], text, known)
    text = "the activation came in training mode, and the new adapter runs it in eval mode"
    require(arrived == [True], text)


# gradient


@part("gradient")
def test_gradients_of_the_projections(stage, draw):
    """Both projections get the exact gradients, in training and in eval mode."""
    cases = [("gelu", True, "train"), ("gelu", True, "eval"), ("partial", True, "train")]
    lost = {NAMES: "delta-detached", NAMES[:2]: "hidden-detached"}
    for *options, mode in (*cases, ("gelu", False, "eval"), ("prelu", True, "eval")):
        layer = whole(draw, *options)
        properties.gradients_of(stage, draw, layer, PLACES, lost=lost, modes=(mode,))


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to the input, past the adapter and through it."""
    cut = {"input-gradient-cut": lambda x, *values: x + delta(F.gelu)(x.detach(), *values)}
    properties.gradient_to_the_input(stage, draw, whole(draw), cut)
    words = {"none": "input-gradient-cut", "needs": NAMES[:1]}
    properties.gradient_to_the_input(stage, draw, whole(draw, "gelu", False), {}, **words)


@part("gradient")
def test_gradients_of_forward_delta(stage, draw):
    """forward_delta called on its own gives the exact gradients, to the input too."""
    lost = {("the input", *NAMES): "forward-delta-detached"}
    for residual, mode in ((True, "train"), (False, "eval")):
        alone, _ = layers(draw, "gelu", residual)
        words = {"to_input": True, "lost": lost, "modes": (mode,)}
        properties.gradients_of(stage, draw, alone, PLACES, **words)


@part("gradient")
def test_gradients_after_no_grad(stage, draw):
    """Nothing of a call under no_grad is kept for the next one."""
    for layer in layers(draw):
        words = {"to_input": True, "after_no_grad": True}
        properties.gradients_of(stage, draw, layer, PLACES, **words)


# state


@part("state")
def test_state_names(stage, draw):
    """The projections' tensors are in the state dict under their names."""
    properties.state_names(stage, whole(draw), NAMES)


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs, activation and all."""
    properties.state_round_trip(stage, draw, whole(draw), whole(draw))
    properties.state_round_trip(stage, draw, whole(draw, "prelu0.7"), whole(draw, "prelu0.1"))


# dtype and device


@part("dtype")
def test_float64(stage, draw):
    """After .to(torch.float64) the outputs are float64, exact to 1e-9."""
    for layer in layers(draw, dtype=torch.float64):
        properties.in_dtype(stage, draw, layer, "float32-inside")


@part("dtype")
def test_bfloat16(stage, draw):
    """After .to(torch.bfloat16) the outputs are bfloat16."""
    for layer in layers(draw, dtype=torch.bfloat16):
        properties.in_dtype(stage, draw, layer)


@part("device")
def test_meta_device(stage, draw):
    """After .to("meta") the outputs are there too."""
    with blame("made-on-the-cpu", "Expected all tensors to be on the same device"):
        for residual in (True, False):
            properties.meta_device(stage, whole(draw, "gelu", residual), moved=True)


# errors


def of_size(kata, size):
    kata.BottleneckAdapter(10, size)


@part("errors")
def test_bottleneck_below_one(stage):
    """bottleneck_dim < 1 raises ValueError naming bottleneck_dim."""
    zero = "zero-accepted"
    properties.at_least_one(stage, of_size, "bottleneck_dim", "dim-unchecked", zero)


# gpu


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU."""
    properties.accelerator(stage, draw, whole(draw), PLACES)
