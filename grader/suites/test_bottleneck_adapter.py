"""What is checked of `bottleneck_adapter`. Contract: Houlsby et al. 2019, section 2.1."""

import torch
import torch.nn.functional as F
from torch import nn

from grader.exam.checks import (
    CheckFailed,
    Raised,
    blame,
    close,
    near,
    part,
    rejects,
    require,
    same,
)
from grader.exam.kit import CheapMeta, need, set_

D, LOW = 10, 4


def pick(name):
    """The activation of that name, for the stage and for the examiner."""
    if name == "prelu":
        return nn.PReLU(init=0.3)
    if name == "nested":
        return nn.Sequential(nn.Tanh(), nn.Sequential(nn.PReLU(init=0.3)))
    if name == "partial":
        from functools import partial  # a probe finds nothing that was imported above

        return partial(F.leaky_relu, negative_slope=0.3)  # has no __name__
    return {"gelu": F.gelu, "tanh": torch.tanh, "square": lambda h: h * h, "silu": nn.SiLU()}[name]


def fill(module, values):
    w1, b1, w2, b2 = values
    set_(need(module, "down_proj"), weight=w1, bias=b1)
    set_(need(module, "up_proj"), weight=w2, bias=b2)
    return module


def make(kata, values, activation="gelu", residual=True):
    module = kata.BottleneckAdapter(10, 4, pick(activation), residual)
    return fill(module.to(values[0].dtype), values)


def pieces(draw, dtype=torch.float32):
    """Weights and biases of both projections: the delta is as large as x."""
    return (
        draw(LOW, D, std=0.4, dtype=dtype),
        draw(LOW, std=0.8, dtype=dtype),
        draw(D, LOW, std=0.8, dtype=dtype),
        draw(D, std=1.0, dtype=dtype),
    )


def hidden(x, values):
    return x.double() @ values[0].double().T + values[1].double()


def up(h, values):
    return h @ values[2].double().T + values[3].double()


def delta(x, values, activation="gelu"):
    act = pick(activation)
    act = act.double() if isinstance(act, nn.Module) else act
    return up(act(hidden(x, values)), values)


def slips(x, values, activation="gelu"):
    """What known mistakes make of the delta."""
    act = pick(activation)
    h, x = hidden(x, values), x.double()
    w1, b1, w2 = (v.double() for v in values[:3])
    return {
        "activation-missing": up(h, values),
        "activation-after-up": act(up(h, values)),
        "activation-twice": act(up(act(h), values)),
        "activation-first": up(act(x) @ w1.T + b1, values),
        "up-bias-missing": act(h) @ w2.T,
        "down-bias-missing": up(act(x @ w1.T), values),
        "input-normalised": up(act(F.layer_norm(x, x.shape[-1:]) @ w1.T + b1), values),
        "activation-is-relu": up(F.relu(h), values),
    }


def wholes(x, values, activation="gelu"):
    """What known mistakes make of x + delta."""
    x = x.double()
    right = delta(x, values, activation)
    known = {k: x + v for k, v in slips(x, values, activation).items()}
    return {**known, "residual-missing": right, "residual-twice": 2 * x + right}


# shape


def run(kata, values, x, activation="gelu", residual=True):
    module = make(kata, values, activation, residual)
    return module(x), module.forward_delta(x)


def drops(kata, values, x):
    """Two outputs of one x in training mode, and one in eval mode."""
    module = make(kata, values)
    return module(x), module(x), module.eval()(x)


def _dropout(stage, values, x, want):
    """Whether what is wrong is that the output is random, and in training mode only."""
    first, second, calm = stage(drops, values, x)
    return close(calm, want, 1e-4, 1e-5) and not torch.equal(first, second)


def _right(stage, values, x, bug=None):
    renamed = ("has no `down_proj`", "has no `up_proj`")
    with blame(bug), blame("projections-renamed", *renamed):
        y, change = stage(run, values, x)
    want = delta(x, values)
    for got, exact, what, known in (
        (change, want, "forward_delta(x)", {**slips(x, values), "delta-with-residual": x + want}),
        (y, x.double() + want, "the output", wholes(x, values)),
    ):
        lost = isinstance(got, torch.Tensor) and got.shape != want.shape
        try:
            near(
                got,
                exact,
                what=f"{what} for x {tuple(x.shape)}",
                unless=known,
                bug="leading-dims-lost" if lost and got.numel() == want.numel() else None,
            )
        except CheckFailed as failure:
            if failure.bug is None and _dropout(stage, values, x, x.double() + want):
                failure.bug = "dropout-added"
            raise


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """Inputs are (..., d_model): two to five dimensions, batches of one too."""
    values = pieces(draw)
    _right(stage, values, draw(5, D))
    for lead in [(2, 7), (2, 3, 4), (1, 1), (1,), (2, 1, 3, 2)]:
        _right(stage, values, draw(*lead, D), "leading-dims-lost")


@part("shape")
def test_single_vector(stage, draw):
    """A single vector (d_model,) gives (d_model,)."""
    values = pieces(draw)
    _right(stage, values, draw(5, D))
    _right(stage, values, draw(D), "leading-dims-lost")


def run_strided(kata, values, x):
    module = make(kata, values)
    return [(module(v), module.forward_delta(v)) for v in turned(x)]


def turned(x):
    """Three views of x (4, 6, 2, D) that are not contiguous."""
    return x[:, :, 0].transpose(0, 1), x[:, ::2, 0], x.transpose(0, 1)


@part("shape")
def test_non_contiguous_input(stage, draw):
    """Inputs need not be contiguous."""
    values, x = pieces(draw), draw(4, 6, 2, D)
    for (y, change), v in zip(stage(run_strided, values, x), turned(x)):
        want = delta(v, values)
        near(y, v.double() + want, unless=wholes(v, values))
        near(change, want, what="forward_delta(x)", unless=slips(v, values))


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


def sized(kata, values, x):
    low, wide = values[0].shape
    module = fill(kata.BottleneckAdapter(wide, low), values)
    return module(x), module.forward_delta(x)


def _sized(stage, draw, wide, low):
    values = (
        draw(low, wide, std=0.4),
        draw(low, std=0.3),
        draw(wide, low, std=0.8),
        draw(wide, std=1.0),
    )
    x = draw(12, wide)  # hidden values of both signs: else relu is no activation at all
    y, change = stage(sized, values, x)
    where = f"at d_model {wide} and bottleneck_dim {low}"
    near(change, delta(x, values), what=f"forward_delta(x) {where}", unless=slips(x, values))
    near(y, x.double() + delta(x, values), what=f"the output {where}", unless=wholes(x, values))


@part("shape")
def test_bottleneck_of_one(stage, draw):
    """A bottleneck_dim of 1 is legal."""
    with blame("dim-one-refused", "bottleneck_dim"):
        _sized(stage, draw, D, 1)


@part("shape")
def test_any_bottleneck_dim(stage, draw):
    """bottleneck_dim may be as large as d_model, or larger; d_model may be 1."""
    for wide, low in ((6, 6), (5, 5), (4, 9), (1, 3)):  # x is (5, wide)
        with blame("wide-refused", "bottleneck_dim"):
            _sized(stage, draw, wide, low)


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
    return fill(module, values)(x=x), module.forward_delta(x=x)


@part("init")
def test_arguments(stage, draw):
    """d_model, bottleneck_dim, activation and residual, by place or by name."""
    values, x = pieces(draw), draw(5, D)
    y, change = stage(by_name, values, x)
    want = delta(x, values, "tanh")
    known = {"residual-always": x + want, "activation-hard-coded": delta(x, values)}
    near(y, want, what="the output with arguments given by name", unless=known)
    near(change, want, what="forward_delta(x=x)")


# freeze


def training(kata, values, x, activation):
    module = make(kata, values, activation)
    returned = all(module.train(mode) is module for mode in (False, True))
    y = module(x)
    if y.requires_grad:
        y.square().sum().backward()
    named = ("down_proj.weight", "down_proj.bias", "up_proj.weight", "up_proj.bias")
    params = dict(module.named_parameters(remove_duplicate=False))
    ours = {id(p) for m in (module.down_proj, module.up_proj) for p in m.parameters()}
    others = {id(p): (n, p) for n, p in params.items() if id(p) not in ours}
    slopes = [p for m in module.modules() if isinstance(m, nn.PReLU) for p in m.parameters()]
    return {
        "returned": returned,
        "missing": [n for n in named if n not in params],
        "still": [n for n in named if n in params and not params[n].requires_grad],
        "extra": [n for n, p in others.values() if p.requires_grad],
        "slopes": [p.requires_grad for p in slopes],
        "moved": [p.grad is not None for p in slopes],
        "grads": [n for n in named if n in params and params[n].grad is None],
    }


@part("freeze")
def test_both_projections_train(stage, draw):
    """Weights and biases of both projections train, and no other parameter does."""
    got = stage(training, pieces(draw), draw(5, D), "gelu")
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
        got = stage(training, pieces(draw), draw(5, D), name)
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
    _right(stage, pieces(draw), draw(3, 4, D))


@part("forward")
def test_without_a_residual(stage, draw):
    """With residual=False forward gives the delta alone; forward_delta never has a residual."""
    values, x = pieces(draw), draw(5, D)
    y, change = stage(run, values, x, "gelu", False)
    want = delta(x, values)
    known = slips(x, values)
    near(y, want, what="the output without residual", unless={**known, "residual-always": x + want})
    near(change, want, what="forward_delta(x) without residual", unless=known)


def beside_another(kata, values, x):
    module = make(kata, values, "tanh")
    make(kata, values, "square", residual=False)(x)
    return module(x)


@part("forward")
def test_adapters_are_independent(stage, draw):
    """Another adapter with another activation changes nothing."""
    values, x = pieces(draw), draw(5, D)
    want = x.double() + delta(x, values, "tanh")
    near(stage(beside_another, values, x), want, what="the output after another adapter was made")


def in_modes(kata, values, x, activation):
    """Output and delta in training mode, in eval mode, and there under no_grad."""
    module, outputs = make(kata, values, activation), []
    for mode, grad in ((True, True), (False, True), (False, False)):
        module.train(mode)
        with torch.set_grad_enabled(grad):
            outputs.append((module(x), module.forward_delta(x)))
    return outputs


@part("forward")
def test_any_activation(stage, draw):
    """The activation is the one passed in, whatever the mode: a function, a lambda or a module."""
    values, x = pieces(draw), draw(5, D)
    for name in ("tanh", "square", "silu", "prelu", "partial"):
        (y, change), *others = stage(in_modes, values, x, name)
        want = delta(x, values, name)
        known = {**slips(x, values, "tanh"), "activation-hard-coded": delta(x, values)}
        known = known if name == "tanh" else {"activation-hard-coded": delta(x, values)}
        near(change, want, what=f"forward_delta(x) with {name} as activation", unless=known)
        near(y, x.double() + want, what=f"the output with {name} as activation")
        for (y, change), mode in zip(others, ("eval mode", "eval mode, no_grad")):
            where = f"with {name} as activation ({mode})"
            near(change, want, what=f"forward_delta(x) {where}")
            near(y, x.double() + want, what=f"the output {where}", unless={"eval-skips-adapter": x})


def default_activation(kata, values, x):
    return fill(kata.BottleneckAdapter(10, 4), values).forward_delta(x)


@part("forward")
def test_default_activation(stage, draw):
    """The default activation is F.gelu, the exact one."""
    values, x = pieces(draw), draw(5, D)
    # Near -2.3 the exact GELU is small, and its approximation is off by a fiftieth.
    low = values[0] * 0.01, draw(LOW, std=0.1) - 2.3, values[2], torch.zeros(D)
    approximate = up(F.gelu(hidden(x, low), approximate="tanh"), low)
    near(
        stage(default_activation, low, x),
        delta(x, low),
        what="forward_delta(x) by default, where the hidden values are near -2.3",
        unless={"gelu-approximate": approximate},
    )
    got = stage(default_activation, values, x)
    near(got, delta(x, values), what="forward_delta(x) by default", unless=slips(x, values))


def keeps_input(kata, values, x, residual):
    module = make(kata, values, residual=residual)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            module(x)
            module.forward_delta(x)
    return x


@part("forward")
def test_input_unchanged(stage, draw):
    """The input is not changed in place."""
    values = pieces(draw)
    for x, residual in ((draw(5, D), True), (draw(5, D), False), (draw(D), True)):
        same(stage(keeps_input, values, x, residual), x, "the input", "changes-input-in-place")


def live(kata, values, values2, x, mode, residual):
    grad = "no_grad" not in mode
    with torch.set_grad_enabled(grad):
        module = make(kata, values, residual=residual)
        module.train(mode == "train")
        module(x), module.forward_delta(x)
        fill(module, values2)
        outputs = [module(x), module(x), module.forward_delta(x)]
        return torch.is_grad_enabled() == grad, *outputs


@part("forward")
def test_follows_its_parameters(stage, draw):
    """Each forward uses the values of the moment, in either mode, also under no_grad."""
    values, values2, x = pieces(draw), pieces(draw), draw(2, 3, D)
    w1, b1, w2, b2 = values2
    bare = w1, b1, 0 * w2, b2  # nothing but up_proj's bias is left
    cases = [(mode, values2) for mode in ("train", "eval", "eval, no_grad")]
    for mode, later in (*cases, ("eval, no_grad", bare)):
        change = delta(x, later)
        for residual in (True, False):
            kept, *outputs, alone = stage(live, values, later, x, mode, residual)
            require(kept, "a call under no_grad leaves gradients switched on")
            want = x.double() + change if residual else change
            skips = {"eval-skips-adapter": x if residual else 0 * x}
            known = {} if mode == "train" or later is bare else skips
            known["residual-missing" if residual else "residual-always"] = (
                change if residual else x.double() + change
            )
            where = f"after the parameters changed (residual={residual}, {mode} mode)"
            for y in outputs:
                near(y, want, what=f"the output {where}", unless=known)
            known = {"delta-with-residual": x.double() + change}
            near(alone, change, what=f"forward_delta(x) {where}", unless=known)


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


def gradients(
    kata, values, x, g, mode, residual=True, alone=False, before=False, activation="gelu"
):
    """Gradients to x and the projections; `alone`: through forward_delta."""
    module = make(kata, values, activation, residual)
    module.train(mode == "train")
    x = x.clone().requires_grad_()
    call = module.forward_delta if alone else module
    if before:
        with torch.no_grad():
            call(x)
    y = call(x)
    if y.requires_grad:
        (y * g).sum().backward()
    down, above = module.down_proj, module.up_proj
    return x.grad, down.weight.grad, down.bias.grad, above.weight.grad, above.bias.grad


def exact(x, values, g, detach=False, alone=False, activation="gelu"):
    x = x.double().requires_grad_()
    values = [v.double().clone().requires_grad_() for v in values]
    y = delta(x.detach() if detach else x, values, activation)
    y = y if alone else x + y
    (y * g.double()).sum().backward()
    return x.grad, *(v.grad for v in values)


NAMES = ("down_proj.weight", "down_proj.bias", "up_proj.weight", "up_proj.bias")


@part("gradient")
def test_gradients_of_the_projections(stage, draw):
    """Both projections get the exact gradients, in training and in eval mode."""
    values = pieces(draw)
    x, g = draw(2, 3, D), draw(2, 3, D)
    cases = [("train", "gelu", True), ("eval", "gelu", True)]
    more = [("train", "partial", True), ("eval", "gelu", False), ("eval", "prelu", True)]
    for mode, activation, residual in (*cases, *more):
        got = stage(gradients, values, x, g, mode, residual, activation=activation)[1:]
        none = [value is None for value in got]
        below = none == [True, True, False, False]
        known = "delta-detached" if all(none) else "hidden-detached" if below else None
        where = f"({activation} as activation, residual={residual}, {mode} mode)"
        wants = exact(x, values, g, alone=not residual, activation=activation)[1:]
        for name, value, want in zip(NAMES, got, wants):
            require(value is not None, f"{name} gets no gradient {where}", known)
            near(value, want, what=f"the gradient of {name} {where}")


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to the input, past the adapter and through it."""
    values = pieces(draw)
    x, g = draw(2, 3, D), draw(2, 3, D)
    for mode in ("train", "eval"):
        got = stage(gradients, values, x, g, mode)[0]
        require(got is not None, f"no gradient reaches the input ({mode} mode)")
        near(
            got,
            exact(x, values, g)[0],
            what="the gradient to the input",
            unless={"input-gradient-cut": lambda: exact(x, values, g, detach=True)[0]},
        )
    alone, *others = stage(gradients, values, x, g, "train", False)
    text = "no gradient reaches the input without residual"
    known = None if others[0] is None else "input-gradient-cut"
    require(alone is not None, text, known)
    want = exact(x, values, g, alone=True)[0]
    near(alone, want, what="the gradient to the input without residual")


@part("gradient")
def test_gradients_of_forward_delta(stage, draw):
    """forward_delta called on its own gives the exact gradients, to the input too."""
    values = pieces(draw)
    x, g = draw(2, 3, D), draw(2, 3, D)
    wants = exact(x, values, g, alone=True)
    for mode, residual in (("train", True), ("eval", False)):
        got = stage(gradients, values, x, g, mode, residual, alone=True)
        known = "forward-delta-detached" if all(value is None for value in got) else None
        for name, value, want in zip(("the input", *NAMES), got, wants):
            text = f"{name} gets no gradient through forward_delta ({mode} mode)"
            require(value is not None, text, known)
            near(value, want, what=f"the gradient of {name} through forward_delta")


@part("gradient")
def test_gradients_after_no_grad(stage, draw):
    """Nothing of a call under no_grad is kept for the next one."""
    values = pieces(draw)
    x, g = draw(2, 3, D), draw(2, 3, D)
    for mode, alone in (("train", False), ("eval", False), ("eval", True)):
        got = stage(gradients, values, x, g, mode, alone=alone, before=True)
        wants = exact(x, values, g, alone=alone)
        for name, value, want in zip(("the input", *NAMES), got, wants):
            what = f"the gradient of {name}, after a call under no_grad ({mode} mode)"
            require(value is not None, f"{what} is None")
            near(value, want, what=what)


# state


def state_names(kata):
    return list(kata.BottleneckAdapter(10, 4).state_dict())


@part("state")
def test_state_names(stage):
    """The projections' tensors are in the state dict under their names."""
    names = stage(state_names)
    for name in ("down_proj.weight", "down_proj.bias", "up_proj.weight", "up_proj.bias"):
        require(name in names, f"`{name}` is not in the state dict; it holds: {', '.join(names)}")


def round_trip(kata, values, values2, x, activation):
    first, second = make(kata, values, activation), make(kata, values2, activation)
    if activation == "prelu":
        for module, slope in ((first, 0.7), (second, 0.1)):
            for part in module.modules():
                if isinstance(part, nn.PReLU):
                    part.weight.data.fill_(slope)
    second(x)
    second.load_state_dict(first.state_dict())
    return second(x)


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs, activation and all."""
    values, values2, x = pieces(draw), pieces(draw), draw(5, D)
    y = stage(round_trip, values, values2, x, "gelu")
    near(y, x.double() + delta(x, values), what="the output after load_state_dict")
    y = stage(round_trip, values, values2, x, "prelu")
    h = hidden(x, values)
    want = x.double() + up(torch.where(h > 0, h, 0.7 * h), values)
    near(y, want, what="the output with nn.PReLU after load_state_dict")


# dtype and device


def _dtype(stage, draw, dtype):
    values = pieces(draw, dtype)
    x = draw(5, D, dtype=dtype)
    y, change = stage(run, values, x)
    want = delta(x, values)
    known = "float32-inside" if _rounded(change, want) else None
    near(change, want, what="forward_delta(x)", dtype=dtype, bug=known)
    near(y, x.double() + delta(x, values), dtype=dtype)


def _rounded(got, want):
    """Whether a float64 tensor is right to the digits of a float32."""
    wide = isinstance(got, torch.Tensor) and got.dtype == torch.float64
    return wide and close(got, want, 1e-6, 1e-6)


@part("dtype")
def test_float64(stage, draw):
    """After .to(torch.float64) the outputs are float64, exact to 1e-9."""
    _dtype(stage, draw, torch.float64)


@part("dtype")
def test_bfloat16(stage, draw):
    """After .to(torch.bfloat16) the outputs are bfloat16."""
    _dtype(stage, draw, torch.bfloat16)


def on_meta(kata):
    x, got = torch.empty(2, 5, 10, device="meta"), []
    with CheapMeta():
        for residual in (True, False):
            module = kata.BottleneckAdapter(10, 4, residual=residual).to("meta")
            y = module(x)
            got.append((y.device.type, tuple(y.shape)))
    return got


@part("device")
def test_meta_device(stage):
    """After .to("meta") the outputs are there too."""
    with blame("made-on-the-cpu", "Expected all tensors to be on the same device"):
        evidence = stage(on_meta)
    for device, shape in evidence:
        require(device == "meta", f"the output is on {device}, expected meta")
        require(tuple(shape) == (2, 5, 10), f"the output has shape {shape}")


# errors


def bad_size(kata, size):
    kata.BottleneckAdapter(10, size)


@part("errors")
def test_bottleneck_below_one(stage):
    """bottleneck_dim < 1 raises ValueError naming bottleneck_dim."""
    zero, below = (stage.attempt(bad_size, size) for size in (0, -1))
    checked = isinstance(below, Raised) and below.deliberate
    rejects(
        zero,
        "ValueError",
        "bottleneck_dim",
        what="bottleneck_dim=0",
        bug="zero-accepted" if checked else "dim-unchecked",
    )
    rejects(below, "ValueError", "bottleneck_dim", what="bottleneck_dim=-1", bug="dim-unchecked")


# gpu


def on_device(kata, values, x, g, device):
    module = make(kata, values).to(device)
    x = x.to(device).requires_grad_()
    y = module(x)
    (y * g.to(device)).sum().backward()
    return y, x.grad, module.down_proj.weight.grad, module.up_proj.weight.grad


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU."""
    values = pieces(draw)
    x, g = draw(4, 5, D), draw(4, 5, D)
    y, gx, gd, gu = stage(on_device, values, x, g, stage.device)
    wx, wd, _, wu, _ = exact(x, values, g)
    near(y, x.double() + delta(x, values), rtol=1e-3, atol=1e-3)
    for got, want, name in ((gx, wx, "the input"), (gd, wd, "down_proj"), (gu, wu, "up_proj")):
        near(got, want, what=f"the gradient of {name}", rtol=1e-3, atol=1e-3)
