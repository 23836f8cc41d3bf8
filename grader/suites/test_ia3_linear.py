"""What is checked of `ia3_linear`. Contract: IA3 (Liu et al. 2022), section 3.3."""

import torch
from torch import nn

from grader.exam.checks import (
    Raised,
    blame,
    close,
    described,
    fail,
    near,
    part,
    rejects,
    require,
    same,
    tensor,
)
from grader.exam.kit import CheapMeta, Missing, linear, need, set_

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


def slips(x, weight, bias, scale, got=None):
    """What known mistakes make of the output; `got` is what came."""
    product, _ = oracle(x, weight, bias, scale)
    s, b = scale.double(), 0.0 if bias is None else bias.double()
    known = {
        "scale-ignored": product + b,
        "scale-added": nearest(got, product + b + s, product + b + s - 1),
        "residual-added": (product + b) * (1 + s),
        "scale-twice": (product + b) * s * s,
        "scale-divides": (product + b) / s,
    }
    if bias is not None:
        known |= {"bias-not-scaled": product * s + b, "bias-dropped": product * s}
    return known


def nearest(got, *forms):
    """Of the forms that one mistake takes, the one that `got` comes nearest to."""
    if not isinstance(got, torch.Tensor) or got.shape != forms[0].shape or got.is_complex():
        return forms[0]
    return min(forms, key=lambda form: float((got.double() - form).abs().sum()))


# shape


def run(kata, weight, bias, scale, x):
    return make(kata, weight, bias, scale)(x)


def _right(stage, values, x, bug=None, texts=()):
    """The output for x; `bug` if it raises (one of `texts`), or comes in another shape."""
    with blame(bug, *texts):
        y = stage(run, *values, x)
    want = oracle(x, *values)[1]
    reshaped = isinstance(y, torch.Tensor) and y.shape != want.shape and y.numel() == want.numel()
    near(
        y,
        want,
        what=f"the output for x {tuple(x.shape)}",
        unless=slips(x, *values, y),
        bug=bug if reshaped else None,
    )


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """Inputs are (..., in_features): two, three and four dimensions, batches of one too."""
    values = pieces(draw)
    _right(stage, values, draw(5, IN))
    for lead in [(2, 7), (2, 3, 4), (1, 1), (1,), (12, 12), (12, 12, 12)]:
        _right(stage, values, draw(*lead, IN), "leading-dims-lost")


@part("shape")
def test_single_vector(stage, draw):
    """A single vector (in_features,) gives (out_features,)."""
    values = pieces(draw)
    _right(stage, values, draw(5, IN))
    _right(stage, values, draw(IN), "single-vector-fails")


def run_all(kata, cases):
    return [make(kata, *values)(x) for values, x in cases]


@part("shape")
def test_any_layer_size(stage, draw):
    """Layers are wide, tall or square, with a single input or output too; values may be zero."""
    _right(stage, pieces(draw), draw(5, IN))
    sizes = ((IN, OUT), (1, IN), (OUT, 1), (1, 1))
    rows = [(pieces(draw, out=out, into=into), draw(5, into)) for out, into in sizes]
    W, b, s = pieces(draw)
    some = (torch.arange(OUT) % 3 > 0).float()
    rows += [((W, b * some, s), draw(5, IN)), ((W, b, s * some), draw(5, IN))]
    rows += [((W, b * 0, s), draw(5, IN)), ((W, b, s * 0), draw(5, IN))]
    vectors = [(values, draw(values[0].shape[1])) for values, _ in rows[: len(sizes)]]
    outputs = stage(run_all, rows)
    with blame("single-vector-fails"):
        outputs += stage(run_all, vectors)
    for (values, x), y in zip(rows + vectors, outputs, strict=True):
        what = f"the output of a layer {tuple(values[0].shape)} for x {tuple(x.shape)}"
        known = slips(x, *values, y) if len(values[2]) > 1 and all(map(_no_zero, values)) else None
        near(y, oracle(x, *values)[1], what=what, unless=known)


def _no_zero(values):
    return bool((values != 0).all())


def run_strided(kata, weight, bias, scale, x):
    layer = make(kata, weight, bias, scale)
    return layer(x.transpose(0, 1)), layer(x[:, ::2])


@part("shape")
def test_non_contiguous_input(stage, draw):
    """Inputs need not be contiguous."""
    values, x = pieces(draw), draw(4, 6, IN)
    _right(stage, values, x)
    with blame("contiguous-only", "view size is not compatible", "contiguous"):
        turned, skipped = stage(run_strided, *values, x)
    for y, v in ((turned, x.transpose(0, 1)), (skipped, x[:, ::2])):
        near(y, oracle(v, *values)[1], unless=slips(v, *values, y))


def scale_shape(kata, weight, bias, x, wide):
    scale = need(layer := kata.IA3Linear(linear(weight, bias)), "scale")
    shape = tuple(scale.shape)
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
        W, b, _ = pieces(draw, out=out, into=into)
        x, wide = draw(5, into), draw(into)
        shape, y = stage(scale_shape, W, b, x, wide)
        shape = tuple(shape)
        bug = None
        if shape == (into,):
            want = (x.double() * wide.double()) @ W.double().T + b.double()
            inputs = isinstance(y, torch.Tensor) and close(y, want, 1e-4, 1e-5)
            bug = "scale-on-input" if inputs else "scale-has-in-features"
        elif shape in ((1, out), (out, 1)):
            bug = "scale-two-dimensional"
        elif shape in ((), (1,)):
            bug = "one-scale-for-all"
        require(shape == (out,), f"scale has shape {shape}, expected ({out},)", bug)


# init


def start(kata, weight, bias, x):
    base = linear(weight, bias)
    layer, other = kata.IA3Linear(base), kata.IA3Linear(linear(weight, bias))
    scales = need(layer, "scale"), need(other, "scale"), need(kata.IA3Linear(base), "scale")
    return layer(x), scales[0], scales[1], len({s.untyped_storage().data_ptr() for s in scales})


@part("init")
def test_scale_starts_at_one(stage, draw):
    """scale starts at exactly one, so that at the start the layer computes what the base does."""
    W, b, _ = pieces(draw)
    x = draw(5, IN)
    y, scale, other, storages = stage(start, W, b, x)
    require(storages == 3, "two layers share one scale")
    scale = tensor(scale, "scale")
    ones = torch.ones(OUT, dtype=torch.float64)
    bug = "scale-starts-at-zero" if bool((scale == 0).all()) else None
    if scale.shape == ones.shape and not torch.equal(scale, tensor(other, "scale")):
        bug = "scale-starts-random"
    near(scale, ones, what="scale at the start", rtol=0, atol=0, bug=bug)
    base = x.double() @ W.double().T + b.double()
    known = {"residual-added": 2 * base, "scale-added": base + 1, "bias-dropped": base - b}
    near(y, base, what="the output at the start", unless=known)


def base_untouched(kata, weight, bias):
    base = linear(weight, bias)
    kept, kept_bias = base.weight, base.bias
    layer = kata.IA3Linear(base)
    inside = need(layer, "base")
    own = getattr(inside, "weight", None)
    return {
        "itself": inside is base,
        "kind": type(inside).__name__,
        "copied": isinstance(own, torch.Tensor)
        and own.untyped_storage().data_ptr() != kept.untyped_storage().data_ptr(),
        "weight kept": base.weight is kept,
        "bias kept": base.bias is kept_bias,
        "weight": base.weight,
        "bias": base.bias,
        "inside": own,
    }


@part("init")
def test_base_is_the_layer_passed_in(stage, draw):
    """`base` is the very layer passed in, its values untouched."""
    W, b, _ = pieces(draw)
    got = stage(base_untouched, W, b)
    same(got["inside"], W, "base.weight")
    same(got["weight"], W, "the weight of the layer passed in")
    same(got["bias"], b, "the bias of the layer passed in")
    bug = "base-copied" if got["copied"] else None
    kind = "a copy of it" if bug else f"another object ({got['kind']})"
    require(got["itself"], f"`base` should be the very layer passed in, not {kind}", bug)
    for name in ("weight", "bias"):
        require(got[f"{name} kept"], f"base.{name} is another object than before")
    with blame("bias-required", "NoneType"):
        got = stage(base_untouched, W, None)
    require(got["bias"] is None, "a base without bias has been given one")


# freeze


def after_backward(kata, weight, bias, scale, x):
    base = linear(weight, bias)
    layer = kata.IA3Linear(base)
    base = need(layer, "base")  # whether it is the one passed in, `init` tells
    at_once = not base.weight.requires_grad and not base.bias.requires_grad
    set_(layer, scale=scale)
    returned = [layer.train(), layer.eval(), layer.train()]
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
        "parameter": isinstance(layer.scale, nn.Parameter),
        "registered": any(p is layer.scale for p in layer.parameters()),
        "returned": all(module is layer for module in returned),
        "extra": {
            n: any(p is q for q in base.parameters())
            for n, p in layer.named_parameters()
            if p.requires_grad and p is not layer.scale
        },
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
    require(got["weight_grad"] is None, "base.weight receives a gradient")
    require(got["bias_grad"] is None, "base.bias receives a gradient")


@part("freeze")
def test_only_the_scale_trains(stage, draw):
    """scale is a registered parameter that trains, and no other one does. train() and eval()
    return the layer."""
    got = stage(after_backward, *pieces(draw), draw(5, IN))
    bug = None if got["parameter"] else "scale-no-parameter"
    require(got["registered"], "scale is not among parameters(): no optimizer sees it", bug)
    require(got["trains"], "scale does not train (requires_grad is False)", "scale-frozen")
    ours = [n for n, of_base in got["extra"].items() if not of_base]
    require(not ours, f"another parameter trains: {', '.join(ours)}", "extra-trainable")
    require(not got["extra"], f"a parameter of the base trains: {', '.join(got['extra'])}")
    require(got["returned"], "train() and eval() should return the layer")


# forward


@part("forward")
def test_rescales_every_output(stage, draw):
    """forward(x) = base(x) * scale, the bias scaled too."""
    values = pieces(draw)
    x = draw(3, 4, IN)
    y = stage(run, *values, x)
    near(y, oracle(x, *values)[1], unless=slips(x, *values, y))


@part("forward")
def test_rescales_outputs_of_a_square_layer(stage, draw):
    """In a square layer it is the outputs that are rescaled, not the inputs."""
    W, b, s = pieces(draw, out=IN)
    x = draw(5, IN)
    on_input = (x.double() * s.double()) @ W.double().T + b.double()
    got = stage(run, W, b, s, x)
    known = {**slips(x, W, b, s, got), "scale-on-input": on_input}
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
    for shape in ((5, IN), (2, 3, IN), (IN,)):
        x = draw(*shape)
        with blame("bias-required", "NoneType"):
            y = stage(run, W, None, s, x)
        known = slips(x, W, None, s, y)
        near(y, oracle(x, W, None, s)[1], what="the output without bias", unless=known)


def keeps_input(kata, weight, bias, scale, x, train):
    layer = make(kata, weight, bias, scale).train(train)
    layer(x)
    with torch.no_grad():
        layer(x)
    return x


@part("forward")
def test_input_unchanged(stage, draw):
    """The input is not changed in place."""
    for train in (True, False):
        for out, lead in ((OUT, (5,)), (IN, (5,)), (IN, ())):
            x = draw(*lead, IN)
            got = stage(keeps_input, *pieces(draw, out=out), x, train)
            same(got, x, "the input", "changes-input-in-place")


STEPS = (
    "its parameters were set",
    "scale changed",
    "the base changed",
    "scale.data changed",
    "base.weight.data was replaced",
    "load_state_dict",
)


def live(kata, values, x, g, train):
    """Outputs and gradients after each of STEPS, first under no_grad."""
    layer = make(kata, *values[0]).train(train)
    base = need(layer, "base")
    seen = []

    def look():
        with torch.no_grad():
            quiet = layer(x)
            if torch.is_grad_enabled():
                raise Missing("A forward under no_grad() turns gradients on")
        kept = base.weight.detach().clone()
        inside = x.clone().requires_grad_()
        layer.scale.grad = None
        y = layer(inside)
        if y.requires_grad:
            (y * g).sum().backward()
        seen.append((quiet, y.detach().clone(), inside.grad, layer.scale.grad, kept))

    for step, (weight, bias, scale) in zip(STEPS, values):
        if step == "scale changed":
            set_(layer, scale=scale)
        elif step == "the base changed":
            set_(base, weight=weight, bias=bias)
        elif step == "scale.data changed":
            layer.scale.data.copy_(scale)
        elif step == "base.weight.data was replaced":
            base.weight.data = weight.clone()
        elif step == "load_state_dict":
            layer.load_state_dict(make(kata, weight, bias, scale).state_dict())
        look()
    return seen


def _live(stage, draw, train, lead):
    """What each step should give, and what came: (step, values, earlier values, evidence)."""
    (W, b, s), (W2, b2, s2), (W3, b3, s3) = (pieces(draw) for _ in range(3))
    values = [(W, b, s), (W, b, s2), (W2, b2, s2), (W2, b2, s), (W, b2, s), (W3, b3, s3)]
    x, g = draw(*lead, IN), draw(*lead, OUT)
    got = stage(live, values, x, g, train)
    return x, g, list(zip(STEPS, values, [None, *values], got, strict=False))


@part("forward")
def test_follows_its_parameters(stage, draw):
    """Each forward uses the values that scale and base have now, in either mode and under
    no_grad."""
    for train in (True, False):
        x, _, steps = _live(stage, draw, train, (5,))
        mode = "train" if train else "eval"
        for step, values, earlier, (quiet, y, _, _, kept) in steps:
            if step == STEPS[0]:
                turned = close(kept, values[0].double() * values[2].double()[:, None], 1e-5, 1e-6)
                bug = "scales-base-in-place" if turned else None
                same(kept, values[0], f"base.weight after a forward ({mode} mode)", bug)
            for out, how in ((quiet, f"{mode} mode, no_grad"), (y, f"{mode} mode")):
                known = slips(x, *values, out)
                if not train:  # training has just been right
                    known["eval-skips-scale"] = known.pop("scale-ignored")
                if earlier is not None:
                    known["weight-cached"] = oracle(x, *earlier)[1]
                want = oracle(x, *values)[1]
                near(out, want, what=f"the output after {step} ({how})", unless=known)
            same(kept, values[0], f"base.weight after {step} and a forward ({mode} mode)")


# gradient


def gradients(kata, cases):
    return [gradient(kata, *case) for case in cases]


def gradient(kata, weight, bias, scale, x, g, train, x_trains):
    layer = make(kata, weight, bias, scale).train(train)
    inside = x.clone().requires_grad_(x_trains)
    y = layer(inside)
    if y.requires_grad:
        (y * g).sum().backward()
    return inside.grad, layer.scale.grad, inside


def _to_scale(x, g, weight, bias):
    """The gradient of scale, float64."""
    product = x.double() @ weight.double().T
    product = product if bias is None else product + bias.double()
    return (g.double() * product).reshape(-1, weight.shape[0]).sum(0)


SHAPES = (
    (OUT, IN, (2, 3)),
    (OUT, IN, ()),
    (OUT, IN, (1,)),
    (OUT, IN, (4, 4)),
    (OUT, OUT, (OUT,)),
    (1, IN, (3,)),
    (OUT, 1, (3,)),
    (OUT, IN, (2, 2, 3)),
)


def _gradients(stage, draw, ways):
    """The cases, each a layer and how it runs, with the evidence (gradients of x and scale, x):
    all SHAPES in the first of the ways, the first shape in all of them."""
    cases = []
    for out, into, lead in SHAPES:
        W, b, s = pieces(draw, out=out, into=into)
        for with_bias, *way in ways if not cases else ways[:1]:
            bias = b if with_bias else None
            cases.append((W, bias, s, draw(*lead, into), draw(*lead, out), *way))
    return zip(cases, stage(gradients, cases), strict=True)


@part("gradient")
def test_gradient_of_the_scale(stage, draw):
    """scale gets the gradient summed over all leading dimensions, in training and in eval mode,
    also where x needs none."""
    ways = (True, True, True), (True, False, False), (False, True, False)
    for (W, b, _, x, g, train, _), (_, got, _) in _gradients(stage, draw, ways):
        mode = "train" if train else "eval"
        what = f"the gradient of scale ({mode} mode, x {tuple(x.shape)})"
        require(got is not None, f"{what} is missing", "scale-gets-no-gradient")
        near(got, _to_scale(x, g, W, b), what=what)


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to the input, through the frozen base and the scale."""
    ways = (True, True, True), (True, False, True), (False, True, True)
    for (W, _, s, x, g, *_), (got, _, kept) in _gradients(stage, draw, ways):
        want = (g.double() * s.double()) @ W.double()
        require(got is not None, "no gradient reaches the input", "input-gradient-cut")
        known = {"input-gradient-cut": want * 0}
        same(kept, x, "an input that requires a gradient", "changes-input-in-place")
        near(got, want, what="the gradient to the input", unless=known)


@part("gradient")
def test_gradients_follow_the_parameters(stage, draw):
    """Each gradient is that of the values that scale and base have now."""
    for train in (True, False):
        x, g, steps = _live(stage, draw, train, (2, 3))
        mode = "train" if train else "eval"
        for step, (W, b, s), _, (_, _, gx, gs, _) in steps:
            where = f"after {step} ({mode} mode)"
            require(gx is not None, f"no gradient reaches the input {where}")
            require(gs is not None, f"scale gets no gradient {where}")
            want = (g.double() * s.double()) @ W.double()
            near(gx, want, what=f"the gradient to the input {where}")
            near(gs, _to_scale(x, g, W, b), what=f"the gradient of scale {where}")


def two_calls(kata, weight, bias, scale, x, x2, g):
    layer = kata.IA3Linear(linear(weight, bias).requires_grad_(False))
    set_(layer, scale=scale)
    x, x2 = x.clone().requires_grad_(), x2.clone().requires_grad_()
    y, y2 = layer(x), layer(x2)
    total = (y * g).sum() + (y2 * g).sum()
    if total.requires_grad:
        total.backward()
    return x.grad, x2.grad, layer.scale.grad


@part("gradient")
def test_two_calls_in_one_graph(stage, draw):
    """A layer that is called twice before the backward pass gets the sum of both gradients."""
    W, b, s = pieces(draw)
    x, x2, g = draw(4, IN), draw(4, IN), draw(4, OUT)
    first, second, got = stage(two_calls, W, b, s, x, x2, g)
    both = _to_scale(x, g, W, b) + _to_scale(x2, g, W, b)
    require(got is not None, "scale gets no gradient where the base was frozen beforehand")
    near(got, both, what="the gradient of scale after two calls")
    for value in (first, second):
        require(value is not None, "no gradient reaches the input")
        near(value, (g.double() * s.double()) @ W.double(), what="the gradient to the input")


# merge


def to_plain(kata, weight, bias, scale, x, g, train):
    layer = kata.IA3Linear(linear(weight, bias)).train(train)
    base = need(layer, "base")
    if scale is not None:
        set_(layer, scale=scale)
    kept = base.weight, base.bias
    before = [p.detach().clone() for p in base.parameters()]
    (layer(x) * g).sum().backward()
    held = layer.scale.grad.clone()
    start = layer.scale.detach().clone()
    trained = [p.requires_grad for p in (*base.parameters(), layer.scale)]
    plain = layer.to_linear()
    with torch.no_grad():
        other = layer.to_linear()
        if torch.is_grad_enabled():
            raise Missing("to_linear() under no_grad() turns gradients on")
    if not isinstance(plain, nn.Linear):
        return {"plain": plain, "kind": type(plain).__name__}
    got = {
        "kind": None,
        "fresh": plain is not base and plain is not other,
        "ours": any(m is base or m is layer for m in plain.modules()),
        "state": sorted(plain.state_dict()),
        "sizes": (plain.in_features, plain.out_features),
        "leaf": all(p.is_leaf for p in plain.parameters()),
        "weight": plain.weight.detach().clone(),
        "bias": None if plain.bias is None else plain.bias.detach().clone(),
        "other bias": None if other.bias is None else other.bias.detach().clone(),
        "y": plain(x.clone()).detach().clone(),
        "before": before,
        "base": [p.detach().clone() for p in base.parameters()],
        "base bias": base.bias is not None,
        "thawed": any(p.requires_grad and not t for p, t in zip(base.parameters(), trained)),
        "stopped": trained[-1] and not layer.scale.requires_grad,
        "others": [
            n for n, p in layer.named_parameters() if p.requires_grad and p is not layer.scale
        ],
        "mode": layer.training == train and base.training == train,
        "start": start,
        "scale": layer.scale.detach().clone(),
        "grad": layer.scale.grad is not None and torch.equal(layer.scale.grad, held),
        "same": layer.base is base and base.weight is kept[0] and base.bias is kept[1],
        "after": layer(x.clone()).detach().clone(),
        "shares": [
            name
            for name, p in plain.named_parameters()
            for q in (*base.parameters(), layer.scale)
            if p.untyped_storage().data_ptr() == q.untyped_storage().data_ptr()
        ],
        "ties": [
            name
            for name, p in plain.named_parameters()
            for q in other.parameters()
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
    g = torch.ones(*x.shape[:-1], W.shape[0])
    got = stage(to_plain, W, b, s if scale else None, x, g, train)
    wrong = f"to_linear() should return an nn.Linear, not {got['kind']}"
    require(got["kind"] is None, wrong, "to-linear-not-linear")
    s = s.double() if scale else torch.ones_like(s).double()
    product = x.double() @ W.double().T
    bias = 0.0 if b is None else b.double()
    return got, product, bias, s


@part("merge")
def test_to_linear_computes_the_same(stage, draw):
    """to_linear() is an nn.Linear that computes the same; it has a bias if the base has one."""
    _right(stage, pieces(draw), draw(5, IN))
    for out, into in ((IN, IN), (OUT, IN), (IN, OUT), (1, IN), (OUT, 1), (1, 1)):
        W, b, s = pieces(draw, out=out, into=into)
        x = draw(5, into)
        leaf = blame("to-linear-needs-no-grad", "leaf Variable")
        with leaf, blame("to-linear-assigns-tensor", "cannot assign"):
            got, product, bias, scale = _to_plain(stage, (W, b, s), x)
        _plain_is_right(got, x, W, product, bias, scale)
        with blame("to-linear-needs-bias", "NoneType"):
            got, *_ = _to_plain(stage, (W, None, s), x, train=False)
        names = got["state"]
        text = f"without a bias in base, to_linear() holds {names}, expected only a weight"
        added = names == ["bias", "weight"] and not got["base bias"]
        bug = "to-linear-adds-bias" if added else None
        require(names == ["weight"], text, bug)
        near(got["y"], product * scale, what="the output of to_linear() without a bias")
        near(got["weight"], W.double() * scale[:, None], what="the weight of to_linear()")
        got, product, bias, scale = _to_plain(stage, (W, b, s), x, train=False)
        near(got["y"], (product + bias) * scale, what="the output of to_linear() in eval mode")


def _plain_is_right(got, x, W, product, bias, scale):
    out, into = W.shape
    want = (product + bias) * scale
    known = {
        "to-linear-not-scaled": product + bias,
        "to-linear-bias-not-scaled": product * scale + bias,
        "to-linear-drops-bias": product * scale,
        "to-linear-divides": nearest(
            got["y"],
            (product + bias) / scale,
            product * scale + bias / scale,
            product / scale + bias * scale,
        ),
    }
    if out == 1:  # a single scale or bias may be such that a mistake does not show
        known = {}
    elif out == into:
        known["to-linear-scales-columns"] = (x.double() * scale) @ W.double().T + bias * scale
    # The bias that a new nn.Linear draws is another one at each call.
    drawn = got["bias"] is not None and not torch.equal(got["bias"], got["other bias"])
    bug = "to-linear-drops-bias" if drawn else None
    near(got["y"], want, what="the output of to_linear()", unless=known, bug=bug)
    names = got["state"]
    require(names == ["bias", "weight"], f"to_linear() is no plain layer; it holds {names}")
    near(got["weight"], W.double() * scale[:, None], what="the weight of to_linear()")
    near(got["bias"], bias * scale, what="the bias of to_linear()")
    require(got["leaf"], "the parameters of to_linear() carry a gradient graph")
    sizes = tuple(got["sizes"])
    text = f"in_features, out_features of to_linear() are {sizes}, expected {(into, out)}"
    require(sizes == (into, out), text)


@part("merge")
def test_to_linear_leaves_the_layer_as_it_was(stage, draw):
    """base and scale stay as they were, and the layer goes on computing the same."""
    for scaled in (True, False):
        for train in (True, False):
            values, x = pieces(draw), draw(5, IN)
            got, product, bias, s = _to_plain(stage, values, x, train, scaled)
            known = "to-linear-changes-base"
            for name, was, now in zip(("weight", "bias"), got["before"], got["base"]):
                same(now, was, f"base.{name} after to_linear()", known)
            require(got["same"], "base or its parameters are other objects after to_linear()")
            known = "to-linear-changes-scale"
            same(got["scale"], got["start"], "scale after to_linear()", known)
            near(got["after"], (product + bias) * s, what="the layer's output after to_linear()")
            unfrozen = "base is no longer frozen after to_linear()"
            require(not got["thawed"], unfrozen, "to-linear-unfreezes-base")
            require(not got["stopped"], "scale no longer trains after to_linear()", known)
            text = f"after to_linear() more parameters train: {', '.join(got['others'])}"
            require(not got["others"], text)
            require(got["grad"], "the gradient of scale is another one after to_linear()")
            require(got["mode"], "to_linear() changes the layer between train() and eval()")


@part("merge")
def test_to_linear_shares_nothing(stage, draw):
    """to_linear() is a new layer that shares no storage: what comes later does not reach it."""
    for scaled in (True, False):
        for bias, train in ((True, True), (False, True), (True, False), (False, False)):
            W, b, s = pieces(draw)
            x = draw(5, IN)
            got, *_ = _to_plain(stage, (W, b if bias else None, s), x, train, scaled)
            known = "to-linear-shares-storage"
            require(not got["ours"], "to_linear() returns or holds the layer that was there", known)
            require(got["fresh"], "two calls of to_linear() return one layer", "to-linear-cached")
            names = " and ".join(got["shares"])
            require(not names, f"{names} of to_linear() shares storage with the layer", known)
            names = " and ".join(got["ties"])
            require(not names, f"two calls of to_linear() give layers that share their {names}")
            what = "its output after the layer's values changed"
            near(got["later"], got["y"].double(), what=what)


def plain_moments(kata, values, x, train):
    layer = make(kata, *values[0]).train(train)
    seen = [layer.to_linear()]
    set_(layer, scale=values[1][2])
    seen.append(layer.to_linear())
    set_(layer.base, weight=values[2][0], bias=values[2][1])
    seen.append(layer.to_linear())
    layer.scale.data.copy_(values[3][2])
    seen.append(layer.to_linear())
    return [plain(x) for plain in seen]


@part("merge")
def test_to_linear_uses_the_values_of_the_moment(stage, draw):
    """Each call of to_linear() gives another layer with the values of that moment."""
    (W, b, s), (W2, b2, s2) = pieces(draw), pieces(draw)
    s2[::4], b2[1::4] = 0, 0
    x = draw(5, IN)
    values = [(W, b, s), (W, b, s2), (W2, b2, s2), (W2, b2, s)]
    outputs = [*stage(plain_moments, values, x, True), *stage(plain_moments, values, x, False)]
    for i, (y, now) in enumerate(zip(outputs, values * 2, strict=True)):
        i %= 4
        known = {"to-linear-cached": oracle(x, *values[i - 1])[1]} if i else {}
        what = f"the output of to_linear(), call {i + 1}, after a change" if i else "the output"
        near(y, oracle(x, *now)[1], what=what, unless=known)


def both_train(kata, weight, bias, scale, x, g):
    layer = make(kata, weight, bias, scale)
    plain = layer.to_linear()
    for p in plain.parameters():
        p.requires_grad_(True)
    (plain(x) * g).sum().backward()
    grads = [p.grad for p in (plain.weight, plain.bias)]
    untouched = [p.grad is None for p in (layer.scale, *layer.base.parameters())]
    if any(grad is None for grad in grads):
        return {"grads": grads}
    with torch.no_grad():
        for p, grad in zip((plain.weight, plain.bias), grads, strict=True):
            p.sub_(0.1 * grad)
    got = {"grads": grads, "untouched": all(untouched), "trained": plain(x).detach().clone()}
    got["layer"] = layer(x).detach().clone()
    (layer(x) * g).sum().backward()
    got["scale"] = layer.scale.grad
    with torch.no_grad():
        layer.scale.sub_(0.1 * layer.scale.grad)
    return {**got, "moved": layer(x), "still": plain(x)}


@part("merge")
def test_both_train_after_to_linear(stage, draw):
    """The new layer can be trained, and the layer itself goes on training, each for itself."""
    W, b, s = pieces(draw)
    x, g = draw(4, IN), draw(4, OUT)
    _to_plain(stage, (W, b, s), x)
    with blame("to-linear-cannot-train", "inference", "Inference"):
        got = stage(both_train, W, b, s, x, g)
    for name, grad in zip(("weight", "bias"), got["grads"]):
        require(grad is not None, f"the {name} of to_linear() gets no gradient")
    require(got["untouched"], "training the new layer gives the old one gradients")
    gd, xd = g.double(), x.double()
    near(got["grads"][0], gd.T @ xd, what="the gradient of the new layer's weight")
    near(got["grads"][1], gd.sum(0), what="the gradient of the new layer's bias")
    weight = W.double() * s.double()[:, None] - 0.1 * gd.T @ xd
    bias = b.double() * s.double() - 0.1 * gd.sum(0)
    trained = xd @ weight.T + bias
    near(got["trained"], trained, what="the output of the new layer after a step")
    want = oracle(x, W, b, s)[1]
    near(got["layer"], want, what="the layer's output after the new one was trained")
    to_scale = _to_scale(x, g, W, b)
    require(got["scale"] is not None, "scale gets no gradient after to_linear()")
    near(got["scale"], to_scale, what="the gradient of scale after to_linear()")
    moved = oracle(x, W, b, s.double() - 0.1 * to_scale)[1]
    near(got["moved"], moved, what="the layer's output after a step")
    near(got["still"], trained, what="the new layer's output after the old one was trained")


# state


def state_names(kata, weight, bias):
    return list(kata.IA3Linear(linear(weight, bias)).state_dict())


@part("state")
def test_state_names(stage, draw):
    """scale and the base's tensors are in the state dict under these names."""
    names = stage(state_names, draw(OUT, IN), draw(OUT))
    hidden = "base.weight" not in names and "base.bias" not in names
    for name in ("scale", "base.weight", "base.bias"):
        bug = "base-not-in-state" if hidden and name != "scale" else None
        there = f"`{name}` is not in the state dict; it holds: {', '.join(names)}"
        require(name in names, there, bug)


def round_trip(kata, weight, bias, scale, weight2, bias2, x, train):
    first = make(kata, weight, bias, scale)
    second = kata.IA3Linear(linear(weight2, bias2)).train(train)
    second(x)
    held = sorted(n for n, p in second.named_parameters() if p.requires_grad)
    second.load_state_dict(first.state_dict())
    if held != sorted(n for n, p in second.named_parameters() if p.requires_grad):
        raise Missing("After load_state_dict other parameters train than before")
    return second(x), second.to_linear()(x)


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs."""
    for train in (True, False):
        values, x = pieces(draw), draw(5, IN)
        y, plain = stage(round_trip, *values, draw(OUT, IN), draw(OUT), x, train)
        near(y, oracle(x, *values)[1], what="the output after load_state_dict")
        near(plain, oracle(x, *values)[1], what="the output of to_linear() after load_state_dict")


# dtype and device


def kinds(kata, weight, bias):
    layer = kata.IA3Linear(linear(weight, bias))
    plain = layer.to_linear()
    made = [need(layer, "scale"), plain.weight] + ([] if bias is None else [plain.bias])
    return [str(t.dtype).removeprefix("torch.") for t in made]


def in_dtype(kata, weight, bias, scale, x, train):
    layer = make(kata, weight, bias, scale).train(train)
    inside = x.clone().requires_grad_()
    y = layer(inside)
    (y * y).sum().backward()
    plain = layer.to_linear()
    return y, layer.scale.grad, inside.grad, plain.weight, plain.bias, plain(x)


def cast(kata, weight, bias, scale, x):
    return make(kata, weight, bias, scale).to(x.dtype)(x)


def _dtype(stage, draw, dtype):
    for lead, train, bias in (((5,), True, True), ((2, 3), False, False), ((), False, True)):
        W, b, s = pieces(draw, dtype)
        _in_dtype(stage, (W, b if bias else None, s), draw(*lead, IN, dtype=dtype), train)


def _in_dtype(stage, values, x, train):
    (W, b, s), dtype = values, x.dtype
    name = str(dtype).removeprefix("torch.")
    scale, *plain = stage(kinds, W, b)
    bug = "float32-scale" if scale == "float32" else None
    require(scale == name, f"scale is {scale}, the base is {name}", bug)
    for what, kind in zip(("weight", "bias"), plain):
        bug = "to-linear-float32" if kind == "float32" else "to-linear-other-dtype"
        require(kind == name, f"the {what} of to_linear() is {kind}, the base is {name}", bug)
    y, gradient, to_x, weight, bias, out = stage(in_dtype, W, b, s, x, train)
    want = oracle(x, W, b, s)[1]
    near(y, want, dtype=dtype, unless=slips(x, W, b, s, y))
    require(gradient is not None, "scale gets no gradient")
    require(to_x is not None, "no gradient reaches the input")
    near(gradient, _to_scale(x, 2 * want, W, b), what="the gradient of scale", dtype=dtype)
    right = (2 * want * s.double()) @ W.double()
    near(to_x, right, what="the gradient to the input", dtype=dtype)
    right = W.double() * s.double()[:, None]
    coarse = isinstance(weight, torch.Tensor) and close(weight, right, 1e-5, 1e-6)
    known = "to-linear-float32" if coarse else None  # right to float32's precision, no better
    near(weight, right, what="the weight of to_linear()", dtype=dtype, bug=known)
    if b is None:
        require(bias is None, "without a bias in base, to_linear() has one")
    else:
        near(bias, b.double() * s.double(), what="the bias of to_linear()", dtype=dtype)
    near(out, want, what="the output of to_linear()", dtype=dtype)


@part("dtype")
def test_float64(stage, draw):
    """A float64 base gives a float64 scale and outputs, exact to 1e-9."""
    _dtype(stage, draw, torch.float64)


@part("dtype")
def test_bfloat16(stage, draw):
    """A bfloat16 base gives a bfloat16 scale and outputs."""
    _dtype(stage, draw, torch.bfloat16)


@part("dtype")
def test_after_a_cast(stage, draw):
    """A layer that was made in float32 works after .to(float64)."""
    values = pieces(draw)
    x = draw(5, IN, dtype=torch.float64)
    near(stage(cast, *values, x), oracle(x, *values)[1], dtype=torch.float64)


def on_meta(kata):
    with CheapMeta():
        layer = kata.IA3Linear(nn.Linear(18, 12, device="meta", dtype=torch.bfloat16))
    x = torch.empty(2, 5, 18, device="meta", dtype=torch.bfloat16)
    scale = need(layer, "scale")
    if scale.device.type != "meta":
        return scale, None
    with CheapMeta():
        return scale, layer(x)


def plain_on_meta(kata):
    layer = kata.IA3Linear(nn.Linear(18, 12, device="meta"))
    with CheapMeta():
        plain = layer.to_linear()
    return [p.device.type for p in plain.parameters()], tuple(plain.weight.shape)


@part("device")
def test_meta_device(stage):
    """A base on the meta device gives a scale, outputs and a plain layer there."""
    scale, y = stage(on_meta)
    scale = tensor(scale, "scale")
    device, dtype = scale.device.type, str(scale.dtype).removeprefix("torch.")
    bug = "cpu-scale" if device == "cpu" else None
    require(device == "meta", f"scale is on {device}; the base is on meta", bug)
    right = isinstance(y, torch.Tensor) and y.device.type == "meta" and y.shape == (2, 5, 12)
    want = "a tensor, shape (2, 5, 12), bfloat16 on meta"
    require(right, f"the output is {described(y)}, expected {want}")
    bug = "float32-scale" if dtype == "float32" else None
    require(dtype == "bfloat16", f"scale is {dtype}; the base is bfloat16", bug)
    require(y.dtype == torch.bfloat16, f"the output is {described(y)}, expected {want}")
    devices, shape = stage(plain_on_meta)
    require(devices, "to_linear() has no parameters")
    bug = "to-linear-on-cpu" if "cpu" in devices else None
    require(set(devices) == {"meta"}, f"to_linear() is on {', '.join(devices)}, not meta", bug)
    shape = tuple(shape)
    require(shape == (12, 18), f"the weight of to_linear() has shape {shape}, expected (12, 18)")


# errors


def bad_base(kata, which):
    made = {
        "Conv1d": lambda: nn.Conv1d(6, 6, 1),
        "Embedding": lambda: nn.Embedding(6, 6),
        "Sequential": lambda: nn.Sequential(nn.Linear(6, 6)),
        "look-alike": look_alike,
        "Tensor": lambda: torch.zeros(6, 6),
        "NoneType": lambda: None,
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
    for which in ("Tensor", "NoneType"):
        rejects(stage.attempt(bad_base, which), "TypeError", "base", what=f"a base of type {which}")
    W, b, _ = pieces(draw)
    x = draw(5, IN)
    got = stage.attempt(heir, W, b, x)
    if isinstance(got, Raised):
        refused = got.deliberate and "builtins.TypeError" in got.types
        text = f"a subclass of nn.Linear as base raises {got.types[0].rpartition('.')[2]}"
        fail(f"{text}: {got.text}", "subclass-refused" if refused else None)
    y = x.double() @ W.double().T + b.double()
    near(got, y, what="the output with a subclass of nn.Linear as the base")


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
