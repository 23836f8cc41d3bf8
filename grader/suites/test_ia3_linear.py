"""What is checked of `ia3_linear`. Contract: IA3 (Liu et al. 2022), section 3.3."""

import torch
from torch import nn

from grader.exam.checks import blame, close, near, part, rejects, require, same
from grader.exam.kit import CheapMeta, linear, need, set_

OUT, IN = 12, 18


def make(kata, weight, bias, scale):
    layer = kata.IA3Linear(linear(weight, bias))
    set_(layer, scale=scale)
    return layer


def pieces(draw, dtype=torch.float32, out=OUT, into=IN):
    """weight, bias, scale: the scale is far from one, and of both signs."""
    scale = draw(out, std=0.6).abs() + 0.4
    scale[::3] *= -2
    return draw(out, into, std=0.5, dtype=dtype), draw(out, std=2.0, dtype=dtype), scale.to(dtype)


def oracle(x, weight, bias, scale):
    """The product without bias, and the right output: both float64."""
    x, weight, scale = (t.double() for t in (x, weight, scale))
    product = x @ weight.T
    return product, (product if bias is None else product + bias.double()) * scale


def slips(x, weight, bias, scale):
    """What known mistakes make of the output."""
    product, _ = oracle(x, weight, bias, scale)
    b, s = bias.double(), scale.double()
    return {
        "scale-ignored": product + b,
        "bias-not-scaled": product * s + b,
        "bias-dropped": product * s,
        "scale-added": product + b + s,
        "residual-added": (product + b) * (1 + s),
        "scale-twice": (product + b) * s * s,
        "scale-divides": (product + b) / s,
    }


# shape


def run(kata, weight, bias, scale, x):
    return make(kata, weight, bias, scale)(x)


def _right(stage, values, x, bug=None):
    """The output for x; `bug` if it raises, or comes in another shape."""
    with blame(bug):
        y = stage(run, *values, x)
    want = oracle(x, *values)[1]
    reshaped = isinstance(y, torch.Tensor) and y.shape != want.shape and y.numel() == want.numel()
    near(
        y,
        want,
        what=f"the output for x {tuple(x.shape)}",
        unless=slips(x, *values),
        bug="leading-dims-lost" if reshaped else None,
    )


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """Inputs are (..., in_features): two, three and four dimensions, batches of one too."""
    values = pieces(draw)
    _right(stage, values, draw(5, IN))
    for lead in [(2, 7), (2, 3, 4), (1, 1), (1,), (12, 12)]:
        _right(stage, values, draw(*lead, IN), "leading-dims-lost")


@part("shape")
def test_single_vector(stage, draw):
    """A single vector (in_features,) gives (out_features,)."""
    values = pieces(draw)
    _right(stage, values, draw(5, IN))
    _right(stage, values, draw(IN), "leading-dims-lost")


def run_strided(kata, weight, bias, scale, x):
    layer = make(kata, weight, bias, scale)
    return layer(x.transpose(0, 1)), layer(x[:, ::2])


@part("shape")
def test_non_contiguous_input(stage, draw):
    """Inputs need not be contiguous."""
    values, x = pieces(draw), draw(4, 6, IN)
    turned, skipped = stage(run_strided, *values, x)
    for y, v in ((turned, x.transpose(0, 1)), (skipped, x[:, ::2])):
        near(y, oracle(v, *values)[1], unless=slips(v, *values))


def scale_shape(kata, weight, bias):
    return tuple(need(kata.IA3Linear(linear(weight, bias)), "scale").shape)


@part("shape")
def test_scale_shape(stage, draw):
    """scale is (out_features,)."""
    for out, into in ((OUT, IN), (IN, OUT)):
        shape = stage(scale_shape, draw(out, into), draw(out))
        bug = "scale-on-input" if shape == (into,) else None
        if shape in ((1, out), (out, 1)):
            bug = "scale-two-dimensional"
        require(shape == (out,), f"scale has shape {shape}, expected ({out},)", bug)


# init


def start(kata, weight, bias, x):
    layer, other = kata.IA3Linear(linear(weight, bias)), kata.IA3Linear(linear(weight, bias))
    return layer(x), need(layer, "scale"), need(other, "scale")


@part("init")
def test_scale_starts_at_one(stage, draw):
    """scale starts at exactly one, so that at the start the layer computes what the base does."""
    W, b, _ = pieces(draw)
    x = draw(5, IN)
    y, scale, other = stage(start, W, b, x)
    if bool((scale == 0).all()):
        require(False, "scale starts at zero; it should start at one", "scale-starts-at-zero")
    spread = float((scale.double() - scale.double().mean()).abs().max())
    bug = "scale-starts-random" if spread > 0 and not torch.equal(scale, other) else None
    ones = bool((scale == 1).all())
    require(ones, f"scale should start at one; its mean is {float(scale.mean()):.3g}", bug)
    base = x.double() @ W.double().T + b.double()
    near(y, base, what="the output at the start", unless={"residual-added": 2 * base})


def base_untouched(kata, weight, bias):
    base = linear(weight, bias)
    kept, kept_bias = base.weight, base.bias
    layer = kata.IA3Linear(base)
    inside = need(layer, "base")
    return {
        "same": inside is base and base.weight is kept and base.bias is kept_bias,
        "weight": base.weight,
        "bias": base.bias,
        "inside": inside.weight,
    }


@part("init")
def test_base_is_the_layer_passed_in(stage, draw):
    """`base` is the very layer passed in, its values untouched."""
    W, b, _ = pieces(draw)
    got = stage(base_untouched, W, b)
    same(got["inside"], W, "base.weight")
    same(got["weight"], W, "the weight of the layer passed in")
    same(got["bias"], b, "the bias of the layer passed in")
    require(got["same"], "`base` should be the very layer passed in, not a copy", "base-copied")
    got = stage(base_untouched, W, None)
    require(got["bias"] is None, "a base without bias has been given one")


# freeze


def after_backward(kata, weight, bias, scale, x):
    base = linear(weight, bias)
    layer = kata.IA3Linear(base)
    base = need(layer, "base")  # whether it is the one passed in, `init` tells
    at_once = not base.weight.requires_grad and not base.bias.requires_grad
    set_(layer, scale=scale)
    for mode in (True, False, True):
        layer.train(mode)
    y = layer(x)
    if y.requires_grad:
        y.square().sum().backward()
    return {
        "at_once": at_once,
        "weight": base.weight.requires_grad,
        "weight_grad": base.weight.grad,
        "bias": base.bias.requires_grad,
        "bias_grad": base.bias.grad,
        "trains": layer.scale.requires_grad,
        "registered": any(p is layer.scale for p in layer.parameters()),
        "extra": [
            n for n, p in layer.named_parameters() if p.requires_grad and p is not layer.scale
        ],
    }


@part("freeze")
def test_base_is_frozen(stage, draw):
    """Weight and bias of the base do not require and never receive a gradient."""
    got = stage(after_backward, *pieces(draw), draw(5, IN))
    weight, bias = got["weight"], got["bias"]
    bug = "bias-not-frozen" if bias and not weight else "base-not-frozen"
    require(not weight, "base.weight is not frozen (requires_grad is True)", bug)
    require(not bias, "base.bias is not frozen (requires_grad is True)", bug)
    require(got["at_once"], "the base is not yet frozen when the layer has been made")
    require(got["weight_grad"] is None, "base.weight receives a gradient", bug)
    require(got["bias_grad"] is None, "base.bias receives a gradient", bug)


@part("freeze")
def test_only_the_scale_trains(stage, draw):
    """scale is a registered parameter that trains, and no other one does."""
    got = stage(after_backward, *pieces(draw), draw(5, IN))
    known = "scale-no-parameter"
    require(got["registered"], "scale is not among parameters(): no optimizer sees it", known)
    require(got["trains"], "scale does not train (requires_grad is False)")
    others = [n for n in got["extra"] if not n.endswith(("base.weight", "base.bias"))]
    require(not others, f"another parameter trains: {', '.join(others)}", "extra-trainable")
    require(not got["extra"], f"another parameter trains: {', '.join(got['extra'])}")


# forward


@part("forward")
def test_rescales_every_output(stage, draw):
    """forward(x) = base(x) * scale, the bias scaled too."""
    values = pieces(draw)
    x = draw(3, 4, IN)
    near(stage(run, *values, x), oracle(x, *values)[1], unless=slips(x, *values))


@part("forward")
def test_rescales_outputs_of_a_square_layer(stage, draw):
    """In a square layer it is the outputs that are rescaled, not the inputs."""
    W, b, s = pieces(draw, out=IN)
    x = draw(5, IN)
    on_input = (x.double() * s.double()) @ W.double().T + b.double()
    known = {**slips(x, W, b, s), "scale-on-input": on_input}
    got = stage(run, W, b, s, x)
    near(got, oracle(x, W, b, s)[1], what="the output of a square layer", unless=known)
    square = draw(IN, IN)  # as many rows as outputs: a scale along the wrong axis still fits
    near(
        stage(run, W, b, s, square),
        oracle(square, W, b, s)[1],
        what="the output for as many rows as outputs",
        unless={
            "scale-along-rows": (square.double() @ W.double().T + b.double()) * s.double()[:, None]
        },
    )


@part("forward")
def test_without_a_bias(stage, draw):
    """A base without bias works."""
    W, _, s = pieces(draw)
    x = draw(5, IN)
    near(stage(run, W, None, s, x), oracle(x, W, None, s)[1], what="the output without bias")


def keeps_input(kata, weight, bias, scale, x, train):
    make(kata, weight, bias, scale).train(train)(x)
    return x


@part("forward")
def test_input_unchanged(stage, draw):
    """The input is not changed in place."""
    for train in (True, False):
        for out in (OUT, IN):
            x = draw(5, IN)
            got = stage(keeps_input, *pieces(draw, out=out), x, train)
            same(got, x, "the input", "changes-input-in-place")


def live(kata, weight, bias, scale, weight2, bias2, scale2, x, mode):
    layer = getattr(make(kata, weight, bias, scale), mode)()
    start = layer.base.weight.detach().clone()
    layer(x)
    held = start, layer.base.weight.detach().clone()
    set_(layer, scale=scale2)
    first = layer(x)
    set_(layer.base, weight=weight2, bias=bias2)
    return held, first, layer(x), layer(x), layer.base.weight


@part("forward")
def test_follows_its_parameters(stage, draw):
    """Each forward uses the values that scale and base have now, in either mode."""
    (W, b, s), (W2, b2, s2) = pieces(draw), pieces(draw)
    x = draw(5, IN)
    for mode in ("train", "eval"):
        (start, held), first, second, again, kept = stage(live, W, b, s, W2, b2, s2, x, mode)
        same(held, start, f"base.weight after a forward ({mode} mode)", "scales-base-in-place")
        near(
            first,
            oracle(x, W, b, s2)[1],
            what=f"the output after scale changed ({mode} mode)",
            unless={**slips(x, W, b, s2), "weight-cached": oracle(x, W, b, s)[1]},
        )
        near(
            second,
            oracle(x, W2, b2, s2)[1],
            what=f"the output after the base changed ({mode} mode)",
            unless={"weight-cached": oracle(x, W, b, s2)[1]},
        )
        near(again, oracle(x, W2, b2, s2)[1], what=f"the output of a second call ({mode} mode)")
        same(kept, W2, "base.weight after several forwards")


# gradient


def gradients(kata, weight, bias, scale, x, g, mode):
    layer = getattr(make(kata, weight, bias, scale), mode)()
    x = x.clone().requires_grad_()
    y = layer(x)
    if y.requires_grad:
        (y * g).sum().backward()
    return x.grad, layer.scale.grad


@part("gradient")
def test_gradient_of_the_scale(stage, draw):
    """scale gets the gradient summed over all leading dimensions, in training and in eval mode."""
    W, b, s = pieces(draw)
    x, g = draw(2, 3, IN), draw(2, 3, OUT)
    product, _ = oracle(x, W, b, s)
    want = (g.double() * (product + b.double())).sum((0, 1))
    for mode in ("train", "eval"):
        _, got = stage(gradients, W, b, s, x, g, mode)
        require(got is not None, f"scale gets no gradient ({mode} mode)", "scale-gets-no-gradient")
        near(
            got,
            want,
            what="the gradient of scale",
            unless={"bias-not-scaled": (g.double() * product).sum((0, 1))},
        )


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to the input, through the frozen base and the scale."""
    W, b, s = pieces(draw)
    x, g = draw(2, 3, IN), draw(2, 3, OUT)
    want = (g.double() * s.double()) @ W.double()
    for mode in ("train", "eval"):
        got, _ = stage(gradients, W, b, s, x, g, mode)
        require(got is not None, "no gradient reaches the input", "input-gradient-cut")
        near(
            got,
            want,
            what="the gradient to the input",
            unless={"scale-ignored": g.double() @ W.double(), "input-gradient-cut": want * 0},
        )


# merge


def to_plain(kata, weight, bias, scale, x, train):
    layer = kata.IA3Linear(linear(weight, bias)).train(train)
    base = need(layer, "base")
    if scale is not None:
        set_(layer, scale=scale)
    kept = base.weight, base.bias
    before = [p.detach().clone() for p in base.parameters()]
    plain = layer.to_linear()
    y = plain(x.clone())
    got = {
        "linear": isinstance(plain, nn.Linear),
        "fresh": plain is not base and plain is not layer,
        "ours": any(m is base or m is layer for m in plain.modules()),
        "state": sorted(plain.state_dict()),
        "leaf": all(p.is_leaf for p in plain.parameters()),
        "y": y.detach().clone(),
        "before": before,
        "base": [p.detach().clone() for p in base.parameters()],
        "frozen": not any(p.requires_grad for p in base.parameters()),
        "trains": layer.scale.requires_grad,
        "scale": layer.scale.detach().clone(),
        "same": layer.base is base and base.weight is kept[0] and base.bias is kept[1],
        "after": layer(x.clone()).detach().clone(),
        "shares": [
            name
            for name, p in plain.named_parameters()
            for q in (*base.parameters(), layer.scale)
            if p.untyped_storage().data_ptr() == q.untyped_storage().data_ptr()
        ],
    }
    with torch.no_grad():
        for p in (*base.parameters(), layer.scale):
            p.add_(1.0)
    got["later"] = plain(x).detach().clone()
    return got


def _to_plain(stage, values, x, train=True, scale=True):
    W, b, s = values
    got = stage(to_plain, W, b, s if scale else None, x, train)
    s = s if scale else torch.ones_like(s)
    W, s = W.double(), s.double()
    product = x.double() @ W.T
    bias = 0.0 if b is None else b.double()
    return got, (product + bias) * s, product, bias, s


@part("merge")
def test_to_linear_computes_the_same(stage, draw):
    """to_linear() is an nn.Linear that computes the same, with and without a bias."""
    for out in (OUT, IN):
        W, b, s = pieces(draw, out=out)
        x = draw(5, IN)
        got, want, product, bias, scale = _to_plain(stage, (W, b, s), x)
        known = {
            "to-linear-not-scaled": product + bias,
            "to-linear-bias-not-scaled": product * scale + bias,
            "to-linear-drops-bias": product * scale,
        }
        if out == IN:
            known["to-linear-scales-columns"] = (x.double() * scale) @ W.double().T + bias * scale
        near(got["y"], want, what="the output of to_linear()", unless=known)
        require(got["linear"], "to_linear() should return an nn.Linear")
        names = ["bias", "weight"]
        require(got["state"] == names, f"to_linear() is no plain layer; it holds {got['state']}")
        got, want, *_ = _to_plain(stage, (W, None, s), x, train=False)
        near(got["y"], want, what="the output of to_linear() without a bias")
        require(got["leaf"], "the parameters of to_linear() carry a gradient graph")


@part("merge")
def test_to_linear_leaves_the_layer_as_it_was(stage, draw):
    """base and scale stay as they were, and the layer goes on computing the same."""
    for scaled in (True, False):
        values, x = pieces(draw), draw(5, IN)
        got, want, *_ = _to_plain(stage, values, x, scale=scaled)
        known = "to-linear-changes-base"
        for name, was, now in zip(("weight", "bias"), got["before"], got["base"]):
            same(now, was, f"base.{name} after to_linear()", known)
        require(got["same"], "base or its parameters are other objects after to_linear()")
        near(got["scale"], values[2] if scaled else torch.ones(OUT), what="scale after to_linear()")
        near(got["after"], want, what="the layer's output after to_linear()")
        require(got["frozen"], "base is no longer frozen after to_linear()")
        require(got["trains"], "scale no longer trains after to_linear()")


@part("merge")
def test_to_linear_shares_nothing(stage, draw):
    """to_linear() is a new layer that shares no storage: what comes later does not reach it."""
    for scaled in (True, False):
        for bias in (True, False):
            W, b, s = pieces(draw)
            x = draw(5, IN)
            got, *_ = _to_plain(stage, (W, b if bias else None, s), x, scale=scaled)
            known = "to-linear-shares-storage"
            require(got["fresh"], "to_linear() returns the layer that was there", known)
            require(not got["ours"], "to_linear() holds the layer that was there", known)
            names = " and ".join(got["shares"])
            require(not names, f"{names} of to_linear() shares storage with the layer", known)
            what = "its output after the layer's values changed"
            near(got["later"], got["y"].double(), what=what, bug=known)


def plain_twice(kata, weight, bias, scale, scale2, x):
    layer = make(kata, weight, bias, scale)
    first = layer.to_linear()
    set_(layer, scale=scale2)
    second = layer.to_linear()
    return first(x), second(x), first is second


@part("merge")
def test_to_linear_uses_the_values_of_the_moment(stage, draw):
    """Each call of to_linear() gives another layer with the values of that moment."""
    W, b, s = pieces(draw)
    s2, x = pieces(draw)[2], draw(5, IN)
    first, second, one = stage(plain_twice, W, b, s, s2, x)
    require(not one, "two calls of to_linear() return one and the same layer")
    near(first, oracle(x, W, b, s)[1], what="the output of the first to_linear()")
    near(second, oracle(x, W, b, s2)[1], what="the output of to_linear() after scale changed")


# state


def state_names(kata, weight, bias):
    return list(kata.IA3Linear(linear(weight, bias)).state_dict())


@part("state")
def test_state_names(stage, draw):
    """scale and the base's tensors are in the state dict under these names."""
    names = stage(state_names, draw(OUT, IN), draw(OUT))
    for name in ("scale", "base.weight", "base.bias"):
        require(name in names, f"`{name}` is not in the state dict; it holds: {', '.join(names)}")


def round_trip(kata, weight, bias, scale, weight2, bias2, x):
    first = make(kata, weight, bias, scale)
    second = kata.IA3Linear(linear(weight2, bias2))
    second(x)
    second.load_state_dict(first.state_dict())
    return second(x)


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs."""
    values, x = pieces(draw), draw(5, IN)
    y = stage(round_trip, *values, draw(OUT, IN), draw(OUT), x)
    near(y, oracle(x, *values)[1], what="the output after load_state_dict")


# dtype and device


def kind(kata, weight, bias):
    return str(kata.IA3Linear(linear(weight, bias)).scale.dtype)


def plain_kind(kata, weight, bias):
    return str(kata.IA3Linear(linear(weight, bias)).to_linear().weight.dtype)


def in_dtype(kata, weight, bias, scale, x):
    layer = make(kata, weight, bias, scale)
    y = layer(x)
    (y * y).sum().backward()
    plain = layer.to_linear()
    return y, layer.scale.grad, plain.weight, plain.bias, plain(x)


def _dtype(stage, draw, dtype):
    W, b, s = pieces(draw, dtype)
    x = draw(5, IN, dtype=dtype)
    got = stage(kind, W, b)
    require(got == str(dtype), f"scale is {got}, the base is {dtype}", "float32-scale")
    known = "to-linear-float32"
    got = stage(plain_kind, W, b)
    require(got == str(dtype), f"to_linear() is {got}, the base is {dtype}", known)
    y, gradient, weight, bias, plain = stage(in_dtype, W, b, s, x)
    product, want = oracle(x, W, b, s)
    near(y, want, dtype=dtype, unless=slips(x, W, b, s))
    base = product + b.double()
    require(gradient is not None, "scale gets no gradient")
    if dtype == torch.float64:
        near(gradient, (2 * want * base).sum(0), what="the gradient of scale", dtype=dtype)
    right = W.double() * s.double()[:, None]
    coarse = isinstance(weight, torch.Tensor) and close(weight, right, 1e-5, 1e-6)
    known = known if coarse else None  # right to float32's precision, and no better
    near(weight, right, what="the weight of to_linear()", dtype=dtype, bug=known)
    near(bias, b.double() * s.double(), what="the bias of to_linear()", dtype=dtype)
    near(plain, want, what="the output of to_linear()", dtype=dtype)


@part("dtype")
def test_float64(stage, draw):
    """A float64 base gives a float64 scale and outputs, exact to 1e-9."""
    _dtype(stage, draw, torch.float64)


@part("dtype")
def test_bfloat16(stage, draw):
    """A bfloat16 base gives a bfloat16 scale and outputs."""
    _dtype(stage, draw, torch.bfloat16)


def on_meta(kata):
    with CheapMeta():
        layer = kata.IA3Linear(nn.Linear(18, 12, device="meta", dtype=torch.bfloat16))
    x = torch.empty(2, 5, 18, device="meta", dtype=torch.bfloat16)
    scale = layer.scale
    if scale.device.type != "meta":
        return scale.device.type, str(scale.dtype), None
    with CheapMeta():
        return "meta", str(scale.dtype), layer(x)


def plain_on_meta(kata):
    layer = kata.IA3Linear(nn.Linear(18, 12, device="meta"))
    with CheapMeta():
        plain = layer.to_linear()
    return [p.device.type for p in plain.parameters()], tuple(plain.weight.shape)


@part("device")
def test_meta_device(stage):
    """A base on the meta device gives a scale, outputs and a plain layer there."""
    device, dtype, y = stage(on_meta)
    require(device == "meta", f"scale is on {device}; the base is on meta", "cpu-scale")
    require(y.device.type == "meta", f"the output is on {y.device.type}, expected meta")
    require(tuple(y.shape) == (2, 5, 12), f"the output has shape {tuple(y.shape)}")
    require(dtype == "torch.bfloat16", f"scale is {dtype}; the base is bfloat16", "float32-scale")
    devices, shape = stage(plain_on_meta)
    require(devices, "to_linear() has no parameters")
    known = "to-linear-on-cpu"
    require(set(devices) == {"meta"}, f"to_linear() is on {', '.join(devices)}, not meta", known)
    require(shape == (12, 18), f"the weight of to_linear() has shape {shape}, expected (12, 18)")


# errors


def bad_base(kata, which):
    made = {
        "Conv1d": lambda: nn.Conv1d(6, 6, 1),
        "Embedding": lambda: nn.Embedding(6, 6),
        "Sequential": lambda: nn.Sequential(nn.Linear(6, 6)),
        "look-alike": look_alike,
    }[which]()
    kata.IA3Linear(made)


def look_alike():
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(6, 6))
    module.bias = None
    module.in_features = module.out_features = 6
    return module


def after_bad_base(kata):
    base = nn.Conv1d(6, 6, 1)
    try:
        kata.IA3Linear(base)
    except TypeError:
        return base.weight.requires_grad and base.bias.requires_grad
    return True


def heir(kata, weight, bias, x):
    class Heir(nn.Linear):
        pass

    base = Heir(weight.shape[1], weight.shape[0])
    set_(base, weight=weight, bias=bias)
    return kata.IA3Linear(base)(x)


@part("errors")
def test_base_must_be_linear(stage, draw):
    """A base that is no nn.Linear raises TypeError naming base, before anything is changed; a
    subclass of it is one."""
    for which in ("look-alike", "Conv1d", "Embedding", "Sequential"):
        rejects(
            stage.attempt(bad_base, which),
            "TypeError",
            "base",
            what=f"a base of type {which}",
            bug="base-type-unchecked",
        )
    trains = stage(after_bad_base)
    require(trains, "the base was frozen before TypeError was raised", "checked-after-freeze")
    W, b, _ = pieces(draw)
    x = draw(5, IN)
    y = x.double() @ W.double().T + b
    near(stage(heir, W, b, x), y, what="the output with a subclass of nn.Linear as the base")


# gpu


def place(kata, weight, bias, device):
    return kata.IA3Linear(linear(weight, bias).to(device)).scale.device.type


def on_device(kata, weight, bias, scale, x, device):
    weight, bias, scale, x = (t.to(device) for t in (weight, bias, scale, x))
    layer = make(kata, weight, bias, scale)
    x = x.requires_grad_()
    y = layer(x)
    (y * y).sum().backward()
    plain = layer.to_linear()
    return y, x.grad, layer.scale.grad, plain.weight.device.type, plain(x)


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU, and nothing stays behind."""
    W, b, s = pieces(draw)
    x = draw(4, 5, IN)
    where = stage(place, W, b, stage.device)
    require(where == stage.device, f"scale is on {where}; the base is not", "cpu-scale")
    y, gx, gs, plain_device, plain = stage(on_device, W, b, s, x, stage.device)
    product, want = oracle(x, W, b, s)
    near(y, want, rtol=1e-3, atol=1e-3)
    g = 2 * want
    near(gx, (g * s.double()) @ W.double(), what="the gradient to the input", rtol=1e-3, atol=1e-3)
    near(
        gs,
        (g * (product + b.double())).sum((0, 1)),
        what="the gradient of scale",
        rtol=1e-3,
        atol=1e-3,
    )
    known = "to-linear-on-cpu"
    require(plain_device == stage.device, f"to_linear() is on {plain_device}", known)
    near(plain, want, what="the output of to_linear()", rtol=1e-3, atol=1e-3)
