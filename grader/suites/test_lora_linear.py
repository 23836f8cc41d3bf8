"""What is checked of `lora_linear`. Contract: LoRA (Hu et al. 2021), section 4.1."""

import torch
from torch import nn

from grader.exam.checks import (
    blame,
    fail,
    near,
    part,
    rejects,
    require,
    same,
    tensor,
)
from grader.exam.kit import CheapMeta, Missing, count, linear, need, set_

OUT, IN, RANK, ALPHA = 12, 18, 3, 10.5  # alpha / rank = 3.5
WIDE, DROP = 24, 0.25


def make(kata, weight, bias, A, B, alpha=ALPHA, dropout=0.0):
    layer = kata.LoRALinear(linear(weight, bias), rank=A.shape[0], alpha=alpha, dropout=dropout)
    set_(layer, lora_A=A, lora_B=B)
    return layer


def held(layer):
    """base and its weight, which must be a Parameter: what follows counts on it."""
    base = need(layer, "base")
    weight = need(base, "weight")
    if not isinstance(weight, nn.Parameter):
        raise Missing(f"`base.weight` is no nn.Parameter but a {type(weight).__name__}")
    return base, weight


def pieces(draw, dtype=torch.float32, rank=RANK, out=OUT, wide=IN):
    """weight, bias, A, B: the update is as large as the base."""
    return (
        draw(out, wide, std=0.5, dtype=dtype),
        draw(out, std=2.0, dtype=dtype),
        draw(rank, wide, std=0.4, dtype=dtype),
        draw(out, rank, std=0.6, dtype=dtype),
    )


def oracle(x, weight, bias, A, B, scale=ALPHA / RANK):
    """base, update: both float64."""
    x, weight, A, B = (t.double() for t in (x, weight, A, B))
    base = x @ weight.T
    return base if bias is None else base + bias.double(), scale * (x @ A.T @ B.T)


def slopes(weight, A, B, x, g, scale=ALPHA / RANK, entered=None):
    """What is right of the gradients: of x through base and branch, of lora_A, of lora_B.

    entered: what dropout makes of x, if it acts.
    """
    weight, A, B, x, g = (t.double() for t in (weight, A, B, x, g))
    entered = x if entered is None else entered
    rows, inputs = g.reshape(-1, g.shape[-1]), entered.reshape(-1, x.shape[-1])
    to_a, to_b = scale * (rows @ B).T @ inputs, scale * rows.T @ (inputs @ A.T)
    return g @ weight, scale * g @ B @ A, to_a, to_b


def scaled(value, alpha=ALPHA, rank=RANK):
    """What a wrong scale makes of a value that is proportional to it."""
    factors = {
        "scale-missing": 1.0,
        "scale-is-alpha": alpha,
        "scale-inverted": rank / alpha,
        "scale-alpha-over-sqrt-rank": alpha / rank**0.5,
        "scale-one-over-rank": 1 / rank,
        "scale-floored": float(alpha // rank),
        "scale-twice": (alpha / rank) ** 2,
    }
    return {name: value * (factor * rank / alpha) for name, factor in factors.items()}


def slips(base, update, bias, alpha=ALPHA):
    """What known mistakes make of the output."""
    known = {name: base + value for name, value in scaled(update, alpha).items()}
    known |= {
        "scale-on-base-too": base * (alpha / RANK) + update,
        "base-dropped": update,
        "update-subtracted": base - update,
        "update-missing": base,
    }
    if bias is not None:
        bias = bias.double()
        known |= {"bias-dropped": base - bias + update, "bias-twice": base + bias + update}
    return known


def in_eval(known):
    """The same where training is right: what is missing is missing in eval mode."""
    return {"eval-disables-adapter" if k == "update-missing" else k: v for k, v in known.items()}


def like(got, want):
    real = isinstance(got, torch.Tensor) and not got.is_complex() and got.shape == want.shape
    return real and bool(torch.allclose(got.double(), want.double(), 1e-3, 1e-4))


# How torch says that a weight which autograd follows was changed.
RECORDED = ("in-place operation", "assign non-leaf Tensor to parameter")


# shape


def run(kata, weight, bias, A, B, x, alpha=ALPHA):
    layer = make(kata, weight, bias, A, B, alpha)
    return layer(x)


def run_both(kata, weight, bias, A, B, x):
    return both_modes(make(kata, weight, bias, A, B), x)


def both_modes(layer, x):
    """The output in training and in eval mode."""
    outputs = []
    for mode in ("train", "eval"):
        getattr(layer, mode)()
        outputs.append(layer(x))
    return outputs


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """Inputs are (..., in_features): two, three and four dimensions, batches of one too."""
    values = pieces(draw)
    _right(stage, values, draw(5, IN))
    for lead in [(2, 7), (2, 3, 4), (1, 1), (1,)]:
        _right(stage, values, draw(*lead, IN), "flattens-leading-dims")


def _right(stage, values, x, bug=None):
    """The output for x in both modes; `bug` if it raises or comes in another shape."""
    base, update = oracle(x, *values)
    known = slips(base, update, values[1])
    with blame(bug):
        got = stage(run_both, *values, x)
    for mode, y in zip(("train", "eval"), got):
        shape = isinstance(y, torch.Tensor) and y.shape != base.shape and y.numel() == base.numel()
        near(
            y,
            base + update,
            what=f"the output for x {tuple(x.shape)}" + " in eval mode" * (mode == "eval"),
            unless=known if mode == "train" else in_eval(known),
            bug=(bug or "flattens-leading-dims") if shape else None,
        )


@part("shape")
def test_single_vector(stage, draw):
    """A single vector (in_features,) gives (out_features,)."""
    values = pieces(draw)
    _right(stage, values, draw(5, IN))
    _right(stage, values, draw(IN), "one-d-input-fails")


def run_strided(kata, weight, bias, A, B, x, strided):
    layer = make(kata, weight, bias, A, B)
    both = x.transpose(0, 1), x[:, ::2]
    return [both_modes(layer, v if strided else v.contiguous()) for v in both]


@part("shape")
def test_non_contiguous_input(stage, draw):
    """Inputs need not be contiguous."""
    W, b, A, B = pieces(draw)
    x = draw(4, 6, IN)
    stage(run_strided, W, b, A, B, x, False)
    with blame("needs-contiguous-input", "view size is not compatible", "contiguous"):
        got = stage(run_strided, W, b, A, B, x, True)
    for outputs, v in zip(got, (x.transpose(0, 1), x[:, ::2])):
        for y in outputs:
            near(y, sum(oracle(v, W, b, A, B)), unless=slips(*oracle(v, W, b, A, B), b))


def factor_shapes(kata, weight, bias):
    layer = kata.LoRALinear(linear(weight, bias), rank=3, alpha=10.5)
    return tuple(need(layer, "lora_A").shape), tuple(need(layer, "lora_B").shape)


@part("shape")
def test_factor_shapes(stage, draw):
    """lora_A is (rank, in_features), lora_B is (out_features, rank)."""
    W, b, *_ = pieces(draw)
    for name, shape, want in zip(
        ("lora_A", "lora_B"), stage(factor_shapes, W, b), ((3, IN), (OUT, 3))
    ):
        bug = "factor-transposed" if tuple(shape) == want[::-1] else None
        require(tuple(shape) == want, f"{name} has shape {tuple(shape)}, expected {want}", bug)


@part("shape")
def test_rank_one(stage, draw):
    """A rank of 1 is legal, and one above out_features too."""
    _right(stage, pieces(draw), draw(5, IN))
    values, x = pieces(draw, rank=1), draw(5, IN)
    with blame("rank-one-refused", "rank"):
        y = stage(run, *values, x)
    near(y, sum(oracle(x, *values, scale=ALPHA)), what="the output at rank 1")
    values = pieces(draw, rank=OUT + 2)
    right = sum(oracle(x, *values, scale=ALPHA / (OUT + 2)))
    with blame("high-rank-refused", "rank"):
        y = stage(run, *values, x)
    near(y, right, what="the output at a rank above out_features")


# init


def start(kata, weight, bias, x, p, mode):
    layer = kata.LoRALinear(linear(weight, bias), rank=4, alpha=6.0, dropout=p)
    layer.train(mode == "train")
    return layer(x)


@part("init")
def test_starts_as_the_base(stage, draw):
    """At the start the layer computes what the base does, with dropout too."""
    W, b, *_ = pieces(draw)
    x = draw(5, IN)
    base = x.double() @ W.double().T + b.double()
    unless = {"base-dropped": torch.zeros_like(base), "bias-dropped": base - b}
    unless |= {"bias-twice": base + b, "scale-on-base-too": base * 1.5}
    near(stage(start, W, b, x, 0.0, "train"), base, what="the output at the start", unless=unless)
    near(stage(start, W, b, x, 0.0, "eval"), base, what="the output at the start in eval mode")
    near(
        stage(start, W, b, x, 0.5, "train"),
        base,
        what="the output at the start in training, with dropout",
        bug="dropout-on-base-too",  # lora_B is zero: nothing but the base's part can have moved
    )


def fresh_factors(kata, weight, bias, rank):
    first = kata.LoRALinear(linear(weight, bias), rank=rank)
    second = kata.LoRALinear(linear(weight, bias), rank=rank)
    return need(first, "lora_A"), need(first, "lora_B"), second.lora_A


def _fresh(stage, draw):
    """lora_A, lora_B, and the lora_A of another layer, for layers of several sizes."""
    for out, wide, rank in ((40, 64, 8), (30, 64, 1), (32, 32, 16), (16, 48, 24)):
        yield stage(fresh_factors, draw(out, wide), draw(out), rank)


@part("init")
def test_b_starts_at_zero(stage, draw):
    """lora_B starts at exactly zero."""
    for _, B, _ in _fresh(stage, draw):
        B = tensor(B, "lora_B")
        text = f"lora_B should start at zero; its largest entry is {float(B.abs().max()):.3g}"
        require(bool((B == 0).all()), text, "b-random")


@part("init")
def test_a_starts_random(stage, draw):
    """lora_A starts random: 0 < std < 1.5, full row rank, not the same every time."""
    for A, _, other in _fresh(stage, draw):
        A = tensor(A, "lora_A")
        require(not A.is_complex() and A.ndim == 2, "lora_A should be a real matrix")
        require(bool(torch.isfinite(A).all()), "lora_A holds values that are not finite")
        text = "lora_A starts at zero: lora_B never gets a gradient"
        require(bool((A != 0).any()), text, "a-zero")
        values = A.double()
        constant = bool((values == values.reshape(-1)[0]).all())
        require(not constant, "lora_A starts constant", "a-constant")
        std = float(values.std())
        require(std < 1.5, f"lora_A starts with std {std:.3g}, expected below 1.5")
        singular = torch.linalg.svdvals(values)
        full = bool(singular[-1] > 1e-4 * singular[0])
        require(full, "lora_A does not start with full row rank: its rows depend on each other")
        text = "two layers start with the same lora_A: it is not random"
        require(not torch.equal(A, other), text)


def there(kata, weight, bias):
    layer = kata.LoRALinear(linear(weight, bias))
    wanted = ("base", "lora_A", "lora_B", "scale", "merged")
    places = (vars(layer), layer._parameters, layer._buffers, layer._modules)
    own = {n for place in places for n in place if not n.startswith("_") and n != "training"}
    return [n for n in wanted if not hasattr(layer, n)], sorted(own)


def by_name(kata, weight, bias):
    layer = kata.LoRALinear(base=linear(weight, bias), rank=4, alpha=10.0, dropout=0.0)
    wide = kata.LoRALinear(linear(weight, bias), rank=8, alpha=2.0)
    whole = kata.LoRALinear(linear(weight, bias), rank=4, alpha=10)
    merged = layer.merged
    return {
        "scale": float(layer.scale),
        "wide": float(wide.scale),
        "whole": float(whole.scale),
        "merged": "a method" if callable(merged) else bool(merged),
    }


def by_default(kata, weight, bias, x):
    layer = kata.LoRALinear(linear(weight, bias))
    told = kata.LoRALinear(linear(weight, bias), rank=8, alpha=16.0, dropout=0.0)
    small = kata.LoRALinear(linear(weight, bias), rank=4)
    with torch.no_grad():
        layer.lora_B.fill_(0.5)
        told.lora_B.fill_(0.5)
    return {
        "A": layer.lora_A,
        "scale": float(layer.scale),
        "small": float(small.scale),
        "y": both_modes(layer, x),
        "told": (told.lora_A, both_modes(told, x)),
    }


def by_place(kata, weight, bias, x):
    layer = kata.LoRALinear(linear(weight, bias).eval(), 4, 10, 0.5)  # a new layer trains
    with torch.no_grad():
        layer.lora_B.fill_(0.5)
    return tuple(layer.lora_A.shape), float(layer.scale), layer(x), layer(x)


@part("init")
def test_defaults_and_attributes(stage, draw):
    """rank 8, alpha 16, dropout 0, scale = alpha / rank, not merged; arguments by place or by
    name."""
    wide = 30
    W, b, x = draw(20, wide), draw(20), draw(5, wide)
    missing, own = stage(there, W, b)
    for name in missing:
        text = f"LoRALinear has no `{name}`; it has: {', '.join(own) or 'nothing'}"
        fail(text, "attribute-missing")
    with blame("argument-renamed", "LoRALinear.__init__() got an unexpected keyword argument"):
        got = stage(by_name, W, b)
    known = scaled(torch.tensor(2.5), 10, 4)
    near(got["scale"], 2.5, what="scale with rank 4 and alpha 10", unless=known)
    floored = {"scale-floored": 0.0}
    near(got["wide"], 0.25, what="scale with rank 8 and alpha 2", unless=floored)
    floored = {"scale-floored": 2.0}
    what = "scale with rank 4 and alpha 10, a whole number"
    near(got["whole"], 2.5, what=what, unless=floored)
    require(got["merged"] != "a method", "`merged` is a method; it should be an attribute")
    require(not got["merged"], "a new layer says that it is merged")
    got = stage(by_default, W, b, x)
    shape = tuple(tensor(got["A"], "lora_A").shape)
    bug = "factor-transposed" if shape[:1] == (wide,) else None
    require(shape[1:] == (wide,), f"lora_A has shape {shape}, expected (8, {wide})", bug)
    require(shape[0] == 8, f"rank should default to 8, not {shape[0]}", "default-differs")
    what = "scale with the default rank 8 and alpha 16"
    near(got["scale"], 2.0, what=what, bug="default-differs")
    near(got["small"], 4.0, what="scale with rank 4 and the default alpha", bug="default-differs")
    for (A, (y, still)), bug in ((got["told"], None), ((got["A"], got["y"]), "default-differs")):
        right = sum(oracle(x, W, b, A, torch.full((20, 8), 0.5), scale=2.0))
        words = "without arguments" if bug else "with rank 8, alpha 16, dropout 0"
        near(still, right, what=f"the output in eval mode of a layer made {words}")
        near(y, right, what=f"the output in training of a layer made {words}", bug=bug)
    shape, scale, first, second = stage(by_place, W, b, x)
    bug = "arguments-reordered" if shape[0] == 10 else None
    require(shape[0] == 4, f"LoRALinear(base, 4, 10, 0.5) gives lora_A {tuple(shape)}", bug)
    near(scale, 2.5, what="scale of LoRALinear(base, 4, 10, 0.5)")
    drops = not torch.equal(first, second)
    require(drops, "LoRALinear(base, 4, 10, 0.5) does not drop anything in training")


def base_untouched(kata, weight, bias):
    base = linear(weight, bias)
    kept, kept_bias = base.weight, base.bias
    layer = kata.LoRALinear(base, rank=3)
    inside = need(layer, "base")
    return {
        "same": inside is base,
        "parameter": isinstance(base.weight, nn.Parameter),
        "kept": base.weight is kept and base.bias is kept_bias,
        "weight": base.weight,
        "bias": base.bias,
        "inside": need(inside, "weight"),
    }


@part("init")
def test_base_is_the_layer_passed_in(stage, draw):
    """`base` is the very layer passed in, its values untouched."""
    W, b, *_ = pieces(draw)
    got = stage(base_untouched, W, b)
    same(got["inside"], W, "base.weight", "base-reinitialised")
    same(got["weight"], W, "the weight of the layer passed in", "base-reinitialised")
    same(got["bias"], b, "the bias of the layer passed in", "base-reinitialised")
    require(got["same"], "`base` should be the very layer passed in, not a copy", "base-copied")
    bug = "base-parameter-replaced" if got["parameter"] else None
    require(got["kept"], "the base's weight or bias is no longer the Parameter it was", bug)
    with blame("bias-assumed", "NoneType"):
        got = stage(base_untouched, W, None)
    require(got["bias"] is None, "a base without bias has been given one")


# freeze


def after_backward(kata, weight, bias, A, B, x, merge):
    layer = kata.LoRALinear(linear(weight, bias), rank=A.shape[0], alpha=10.5)
    base, held_weight = held(layer)  # whether it is the one passed in, `init` tells
    at_once = not held_weight.requires_grad, not base.bias.requires_grad
    set_(layer, lora_A=A, lora_B=B)
    if merge:
        layer.merge()
        layer.unmerge()
    for mode in ("eval", "train"):
        getattr(layer, mode)()
        y = layer(x)
        if y.requires_grad:
            y.square().sum().backward()
    ours = {id(layer.lora_A): "lora_A", id(layer.lora_B): "lora_B"}
    inside = {id(p) for p in layer.parameters()}
    return {
        "at_once": at_once,
        "leaf": base.weight.is_leaf,
        "weight": base.weight.requires_grad,
        "weight_grad": base.weight.grad if base.weight.is_leaf else None,
        "bias": base.bias is not None and base.bias.requires_grad,
        "bias_grad": None if base.bias is None else base.bias.grad,
        "extra": [n for n, p in layer.named_parameters() if p.requires_grad and id(p) not in ours],
        "trains": [layer.lora_A.requires_grad, layer.lora_B.requires_grad],
        "registered": [id(layer.lora_A) in inside, id(layer.lora_B) in inside],
    }


def _frozen(got, weight_bug, bias_bug="bias-not-frozen"):
    require(got["leaf"], "base.weight carries a gradient graph", "merge-tracks-gradients")
    require(not got["weight"], "base.weight is not frozen (requires_grad is True)", weight_bug)
    require(not got["bias"], "base.bias is not frozen (requires_grad is True)", bias_bug)
    require(all(got["at_once"]), "the base is not yet frozen when the layer has been made")
    require(got["weight_grad"] is None, "base.weight receives a gradient", weight_bug)
    require(got["bias_grad"] is None, "base.bias receives a gradient", bias_bug)


@part("freeze")
def test_base_is_frozen(stage, draw):
    """Weight and bias of the base do not require and never receive a gradient."""
    W, b, A, B = pieces(draw)
    got = stage(after_backward, W, b, A, B, draw(5, IN), False)
    _frozen(got, "base-not-frozen")


@part("freeze")
def test_only_the_factors_train(stage, draw):
    """lora_A and lora_B are registered parameters, and no other parameter trains."""
    W, b, A, B = pieces(draw)
    got = stage(after_backward, W, b, A, B, draw(5, IN), False)
    for name, trains, inside in zip(("lora_A", "lora_B"), got["trains"], got["registered"]):
        text = f"{name} is not among parameters(): no optimizer will see it"
        require(inside, text, "factor-no-parameter")
        require(trains, f"{name} does not train (requires_grad is False)")
    others = [n for n in got["extra"] if not n.endswith(("base.weight", "base.bias"))]
    require(not others, f"another parameter trains: {', '.join(others)}", "extra-trainable")
    require(not got["extra"], f"another parameter trains: {', '.join(got['extra'])}")


# forward


@part("forward")
def test_adds_the_scaled_low_rank_update(stage, draw):
    """forward(x) = base(x) + alpha / rank * (x @ lora_A.T @ lora_B.T)."""
    W, b, A, B = pieces(draw)
    x = draw(3, 4, IN)
    base, update = oracle(x, W, b, A, B)
    bent = (x.double() @ A.double().T).relu() @ B.double().T * (ALPHA / RANK)
    known = slips(base, update, b) | {"activation-between": base + bent}
    y = stage(run, W, b, A, B, x)
    if like(y, base + update + b.double() * (ALPHA / RANK)):
        known["bias-twice"] = base + update + b.double() * (ALPHA / RANK)
    near(y, base + update, unless=known)


@part("forward")
def test_without_a_bias(stage, draw):
    """A base without bias works."""
    W, b, A, B = pieces(draw)
    x = draw(5, IN)
    stage(run_both, W, b, A, B, x)
    with blame("bias-assumed"):
        got = stage(run_both, W, None, A, B, x)
    base, update = oracle(x, W, None, A, B)
    for y in got:
        near(y, base + update, what="the output without bias", unless=slips(base, update, None))


@part("forward")
def test_alpha_below_rank(stage, draw):
    """Also where alpha is smaller than rank, negative or zero, or far above it."""
    W, b, A, B = pieces(draw)
    x = draw(5, IN)
    for alpha in (2.0, 3000.0, -7.5, 0.0):
        base, update = oracle(x, W, b, A, B, alpha / RANK)
        what = f"the output with rank 3, alpha {alpha:g}"
        near(stage(run, W, b, A, B, x, alpha), base + update, what=what)


# out, in, rank: where two of them are the same, a matrix may be used the wrong way round.
SIZES = [(18, 18, 3), (6, 6, 6), (6, 6, 6), (12, 6, 6), (6, 12, 6), (9, 1, 1), (1, 9, 1)]
SIZES += [(1, 1, 1), (12, 18, 3), (12, 18, 3)]


def _sizes(draw):
    """Layers of these sizes, with inputs of as many rows as they have features."""
    for number, (out, wide, rank) in enumerate(SIZES):
        values = pieces(draw, rank=rank, out=out, wide=wide)
        lead = ((), (2, 2, 3))[number - 8] if number > 7 else (wide,) * (1 + number % 2)
        x, g = draw(*lead, wide), draw(*lead, out)
        words = f"out_features {out}, in_features {wide}, rank {rank} for x {tuple(x.shape)}"
        yield values, x, g, ALPHA / rank, words


def gradients(kata, weight, bias, A, B, x, g, state):
    layer = make(kata, weight, bias, A, B)
    layer.train(state != "eval")
    for p in (layer.lora_A, layer.lora_B):
        p.requires_grad_(state != "factors frozen")
    if state in ("merged", "unmerged"):
        layer.merge()
    if state == "unmerged":
        layer.unmerge()
    x = x.clone().requires_grad_()
    y = layer(x)
    if y.requires_grad:
        (y * g).sum().backward()  # y.backward(g) would import sympy
    trains = layer.lora_A.requires_grad and layer.lora_B.requires_grad
    return x.grad, layer.lora_A.grad, layer.lora_B.grad, trains, y.detach()


def gradients_of_all(kata, cases, state):
    return [gradients(kata, *case, state) for case in cases]


@part("forward")
def test_equal_sizes(stage, draw):
    """Sizes may be equal, or one: a square layer, a rank as large as it, a single feature."""
    cases = list(_sizes(draw))
    given = [(*values, x, g) for values, x, g, *_ in cases]
    for mode in ("train", "eval"):
        seen = stage(gradients_of_all, given, mode)
        for (*_, y), ((W, b, A, B), x, _, scale, words) in zip(seen, cases):
            base, update = oracle(x, W, b, A, B, scale)
            known = {}
            if len(B) == x.shape[-1] > 1:
                known["delta-transposed"] = base + scale * (x.double() @ (B.double() @ A.double()))
            what = f"the output in {mode} mode with {words}"
            near(y, base + update, what=what, unless=known)


def keeps_input(kata, weight, bias, A, B, x, p, train):
    layer = make(kata, weight, bias, A, B, dropout=p)
    layer.train(train)
    layer(x)
    return x


@part("forward")
def test_input_unchanged(stage, draw):
    """The input is not changed in place."""
    W, b, A, B = pieces(draw)
    x = draw(5, IN)
    for p, train in ((0.0, True), (0.3, True), (0.3, False)):
        same(stage(keeps_input, W, b, A, B, x, p, train), x, "the input", "changes-input-in-place")


def returned(kata, weight, bias):
    layer = kata.LoRALinear(linear(weight, bias), rank=3)
    answers = layer.eval(), layer.train(), layer.train(False), layer.train(mode=True)
    return [a is None for a in answers], [a is layer for a in answers]


@part("forward")
def test_modes_return_the_layer(stage, draw):
    """train() and eval() return the layer itself, as those of nn.Module do."""
    nothing, itself = stage(returned, draw(OUT, IN), draw(OUT))
    calls = ("eval()", "train()", "train(False)", "train(mode=True)")
    for call, none, right in zip(calls, nothing, itself):
        text = f"layer.{call} returns {'None' if none else 'another object'}, expected the layer"
        require(right, text, "train-returns-nothing" if none else None)


CHANGES = {"factors": "new factors", "base": "a new base", "load": "load_state_dict"}


def walk(kata, weight, bias, A, B, later, x, g, steps, graph):
    layer = make(kata, weight, bias, A, B)
    base, _ = held(layer)
    return [take(kata, layer, base, *step, x, g, graph) for step in zip(steps, later)]


def take(kata, layer, base, step, new, x, g, graph):
    """One step, and then all that may have been kept from before it."""
    if step == "factors" and graph:
        set_(layer, lora_A=new[2], lora_B=new[3])
    elif step == "factors":
        layer.lora_A.data.copy_(new[2])
        layer.lora_B.data.copy_(new[3])
    elif step == "base":
        set_(base, weight=new[0], **({} if new[1] is None else {"bias": new[1]}))
    elif step == "load":
        layer.load_state_dict(make(kata, *new).state_dict())
    else:
        with torch.set_grad_enabled(graph):
            getattr(layer, step)()
            if torch.is_grad_enabled() != graph:
                raise Missing(f"{step}() under no_grad() turns gradients on")
    seen = {
        "weight": base.weight.detach().clone(),
        "frozen": not any(p.requires_grad for p in base.parameters()),
        "merged": bool(need(layer, "merged")),
    }
    with torch.no_grad():
        seen["silent"] = layer(x)
        if torch.is_grad_enabled():
            raise Missing("A forward under no_grad() turns gradients on")
    if not graph:
        return seen
    layer.lora_A.grad = layer.lora_B.grad = None
    x = x.clone().requires_grad_()
    y = layer(x)
    if y.requires_grad:
        (y * g).sum().backward()
    return {**seen, "y": y.detach(), "grads": (x.grad, layer.lora_A.grad, layer.lora_B.grad)}


def _walked(stage, draw, steps, graph, bug=None, bias=True):
    """Each step with its evidence, and the weight, bias and factors that are right after it.

    graph: whether gradients are taken, or all runs under no_grad. bug: what it is if a forward
    uses the graph of an earlier one.
    """

    def drawn():
        W, b, A, B = pieces(draw)
        return W, b if bias else None, A, B

    now, x, g = drawn(), draw(4, IN), draw(4, OUT)
    later = [drawn() if step in CHANGES else () for step in steps]
    with blame(bug, "backward through the graph a second time"):
        seen = stage(walk, *now, later, x, g, steps, graph)
    past, words = [now], []
    for step, new, got in zip(steps, later, seen):
        first, last = {"factors": (2, 4), "base": (0, 2), "load": (0, 4)}.get(step, (0, 0))
        now = tuple(new[i] if first <= i < last else now[i] for i in range(4))
        words.append(CHANGES.get(step, f"{step}()"))
        yield step, got, now, past, x, g, ", ".join(words[-3:])
        past = [now, *past]


def _nearest(got, *candidates):
    """Of several values that one mistake may give, that which `got` is nearest to."""
    if isinstance(got, torch.Tensor) and got.shape == candidates[0].shape and not got.is_complex():
        return min(candidates, key=lambda v: float((got.double() - v).abs().sum()))
    return candidates[0]


@part("forward")
def test_follows_its_parameters(stage, draw):
    """Each forward uses the values that factors and base have now, in either mode, with and
    without gradients."""
    steps = "factors base eval factors base train factors base load eval load factors train base"
    for graph in (True, False):
        _follows(_walked(stage, draw, steps.split(), graph, "weight-cached"))


def _follows(walked):
    mode = "train"
    for step, got, (W, b, A, B), past, x, g, words in walked:
        mode = step if step in ("train", "eval") else mode
        merges = mode == "eval" and like(got["weight"], W.double() + _delta(A, B))
        what = f"base.weight changes in {mode} mode"
        require(like(got["weight"], W), what, "eval-merges" if merges else None)
        base, update = oracle(x, W, b, A, B)
        for key in [k for k in ("silent", "y") if k in got]:
            known = {}
            if not like(got[key], base + update):
                known = slips(base, update, b)
                known = known if mode == "train" else in_eval(known)
                known |= {} if step == "load" else _stale(got[key], x, (W, b, A, B), past)
            under = " under no_grad" * (key == "silent")
            what = f"the output in {mode} mode{under} after {words}"
            near(got[key], base + update, what=what, unless=known)
        require(got["frozen"], f"the base is no longer frozen after {words}")
        if "grads" in got:
            _same_gradients(got["grads"], slopes(W, A, B, x, g), f"after {words}")


def _stale(y, x, now, past):
    """What it gives to keep an earlier update, or an earlier weight of the base."""
    W, b, A, B = now
    base, update = oracle(x, *now)
    known = {}
    factors = [oracle(x, *values) for values in past if values[2] is not A]
    if factors:
        kept = [base + u for _, u in factors] + [sum(pair) for pair in factors]
        known["weight-cached"] = _nearest(y, *kept)
    weights = [values for values in past if values[0] is not W]
    if weights:
        both = [oracle(x, *values)[0] + update for values in weights]
        alone = [oracle(x, values[0], b, A, B)[0] + update for values in weights]
        known["base-weight-copied"] = _nearest(y, *both, *alone)
    return known


def _same_gradients(got, right, words):
    through_base, through_branch, to_a, to_b = right
    wanted = (through_base + through_branch, to_a, to_b)
    for name, value, want in zip(("x", "lora_A", "lora_B"), got, wanted):
        require(value is not None, f"{name} gets no gradient {words}")
        near(value, want, what=f"the gradient of {name} {words}", rtol=2e-4)


def dropped(kata, weight, bias, A, B, x, p, mode, calls=1, grad=True):
    layer = make(kata, weight, bias, A, B, dropout=p)
    layer.train(mode == "train")
    with torch.set_grad_enabled(grad):
        return [layer(x) for _ in range(calls)]


def dropped_all(kata, cases):
    return [dropped(kata, *case) for case in cases]


@part("forward")
def test_dropout_is_off_in_eval(stage, draw):
    """In eval mode, and with dropout 0, the output is exact."""
    W, b, A, B = pieces(draw)
    for lead in [(6,), (2, 3), ()]:
        x = draw(*lead, IN)
        base, update = oracle(x, W, b, A, B)
        known = slips(base, update, b)
        cases = [(W, b, A, B, x, 0.4, "eval"), (W, b, A, B, x, 0.0, "train")]
        cases.append((W, None, A, B, x, 0.4, "eval"))
        (y,), (full,), (bare,) = stage(dropped_all, cases)
        bug = None
        if like(full, base + update):  # right in training, so the mode is what matters
            bug, known = "eval-disables-adapter" if like(y, base) else "dropout-in-eval", {}
        near(y, base + update, what="the output in eval mode, dropout 0.4", unless=known, bug=bug)
        near(full, base + update, what="the output with dropout 0", unless=slips(base, update, b))
        right = base - b.double() + update
        near(bare, right, what="the output in eval mode without bias, dropout 0.4")


def rotations(draw, *lead, bias=True, dtype=torch.float32, base=1.0):
    """Layer and input where A and B are rotations: what went into the branch can be read from
    what came out of it. No entry of x is near zero, so that a dropped one shows."""
    W, b = draw(WIDE, WIDE, dtype=dtype) * base, draw(WIDE, dtype=dtype) if bias else None
    A, B = (draw.orthonormal(WIDE, WIDE, dtype=dtype) for _ in range(2))
    x = draw(*lead, WIDE, dtype=dtype)
    return (W, b, A, B), x + x.sign() * 0.5


def _entered(y, x, values):
    """What went into the branch, by entries of x: 0 where dropped, 1 / (1 - p) where kept."""
    *_, A, B = values
    base, _ = oracle(x, *values)
    branch = (y.double() - base) / (ALPHA / WIDE)
    return branch @ B.double() @ A.double() / x.double()


def _is_dropout(ratio, p=DROP, off=0.01):
    kept, gone = (ratio - 1 / (1 - p)).abs() < off, ratio.abs() < off
    return bool((kept | gone).all() and kept.any() and gone.any())


@part("forward")
def test_dropout_on_the_branch_input(stage, draw):
    """In training, dropout acts on the input of the low-rank branch, and on nothing else."""
    values, x = rotations(draw, 40)
    W, b, A, B = values
    scale = ALPHA / WIDE
    base, update = oracle(x, *values, scale=scale)
    cases = [(*values, x, DROP, "eval"), (*values, x, DROP, "train", 2)]
    (still,), (first, second) = stage(dropped_all, cases)
    near(still, base + update, what="the output in eval mode")
    near_shape = tensor(first).shape == base.shape and not first.is_complex()
    require(near_shape, "the output in training with dropout has the wrong shape or dtype")
    require(first.dtype == x.dtype, f"the output in training is {str(first.dtype)[6:]}")
    y, ratio = first.double(), _entered(first, x, values)
    if like(y, base + update):
        require(False, "dropout 0.25 changes nothing in training", "dropout-ignored")
    if not _is_dropout(ratio):
        branch = (y - base) / scale
        hidden = branch @ B.double() / (x.double() @ A.double().T)
        inner = torch.linalg.lstsq(x.double(), branch @ B.double()).solution.T / A.double()
        keep = {0.0, 1 / (1 - DROP)}
        if _two_valued(hidden, keep):
            require(False, "dropout acts after lora_A", "dropout-on-hidden")
        if _two_valued(branch / (update / scale), keep):
            require(False, "dropout acts on the branch's output", "dropout-on-output")
        if _two_valued(y / (base + update), keep):
            require(False, "dropout acts on the sum of base and branch", "dropout-on-base-too")
        if _two_valued(ratio, {0.0, 1.0}):
            text = "what dropout keeps must be divided by 1 - p"
            require(False, text, "dropout-not-rescaled")
        if _two_valued(ratio, {0.0, 1 / DROP}):
            text = "dropout 0.25 drops three quarters: p is the share to drop"
            require(False, text, "dropout-is-keep-rate")
        kept = ratio[ratio.abs() > 0.1]
        if kept.numel() and float(kept.min()) > 1 and float(kept.max() - kept.min()) < 0.01:
            text = f"dropout 0.25 acts like {1 - 1 / float(kept.mean()):.2g}"
            require(False, text, "dropout-rate-differs")
        if _two_valued(inner, keep):
            require(False, "dropout acts on the entries of lora_A", "dropout-on-factor")
        bug = "dropout-on-base-too" if _base_dropped(y, x, W, b, A, B, scale) else None
        require(False, "in training, the output is not base(x) + the branch of dropout(x)", bug)
    share = float((ratio.abs() < 0.1).double().mean())
    require(0.15 < share < 0.36, f"dropout 0.25 drops {share:.0%} of the input")
    _single_entries(ratio, x)
    again = torch.equal(first, second)
    require(not again, "each forward must draw anew what dropout drops", "dropout-mask-kept")


def _single_entries(ratio, x):
    """What is dropped differs along each dimension of x."""
    gone = ratio.abs() < 0.5
    for dim, size in enumerate(gone.shape):
        alike = size > 1 and bool((gone == gone.narrow(dim, 0, 1)).all())
        text = f"dropout must drop single entries of x {tuple(x.shape)}: along dimension {dim} "
        require(not alike, text + "all or none are dropped", "dropout-drops-whole-rows")


@part("forward")
def test_dropout_whatever_the_input(stage, draw):
    """Dropout acts alike on inputs of any number of dimensions, without a bias, and whether
    gradients are recorded or not."""
    ways = ((True, True), (False, True), (True, False))
    for leads in ([(6, 5), (3, 4, 5), (1, 40)], [()]):
        kinds = [(lead, *way) for lead in leads for way in ways]
        made = [rotations(draw, *lead, bias=bias) for lead, bias, _ in kinds]
        cases = [
            (*values, x, DROP, "train", 1 if lead else 8, grad)
            for (values, x), (lead, _, grad) in zip(made, kinds)
        ]
        for got, (values, x), (_, bias, grad) in zip(stage(dropped_all, cases), made, kinds):
            words = f"for x {tuple(x.shape)}" + " without bias" * (not bias)
            _is_dropped(got, values, x, words + " under no_grad" * (not grad))


def _is_dropped(got, values, x, words):
    for y in got:
        right = tensor(y).shape == x.shape and y.dtype == x.dtype
        require(right, f"the output {words} with dropout has another shape or dtype")
    ratio = torch.stack([_entered(y, x, values) for y in got])
    text = f"{words}, in training with dropout 0.25, the output is"
    exact = bool(((ratio - 1).abs() < 0.01).all())
    require(not exact, f"{text} that without dropout", "dropout-ignored")
    require(_is_dropout(ratio), f"{text} not base(x) + the branch of dropout(x)")
    if x.ndim > 1:
        _single_entries(ratio[0], x)


def _two_valued(ratio, values):
    near_any = torch.stack([(ratio - v).abs() < 0.02 for v in values]).any(0)
    return bool(near_any.double().mean() > 0.97) and bool((ratio.abs() < 0.02).any())


def _base_dropped(y, x, W, b, A, B, scale):
    """Whether y is the layer's output for an input with entries dropped, base and all."""
    total = W.double() + scale * B.double() @ A.double()
    went_in = torch.linalg.solve(total, (y - b.double()).T).T
    return _two_valued(went_in / x.double(), {0.0, 4 / 3})


# gradient


def _gradients(stage, draw, state):
    W, b, A, B = pieces(draw)
    x, g = draw(2, 3, IN), draw(2, 3, OUT)
    if state in ("merged", "unmerged"):
        stage(gradients, W, b, A, B, x, g, "train")
    *got, y = stage(gradients, W, b, A, B, x, g, state)
    silent = state == "eval" and like(y, oracle(x, W, b, A, B)[0])
    return got, slopes(W, A, B, x, g), silent


@part("gradient")
def test_gradients_of_the_factors(stage, draw):
    """lora_A and lora_B get the exact gradients, in training and in eval mode."""
    for state in ("train", "eval"):
        (x, a, b, trains), (_, _, to_a, to_b), silent = _gradients(stage, draw, state)
        off = "factors-get-no-gradient" if trains and x is not None else None
        off = "eval-disables-adapter" if silent else off
        for name, got, want in (("lora_A", a, to_a), ("lora_B", b, to_b)):
            require(got is not None, f"{name} gets no gradient ({state} mode)", off)
            near(got, want, what=f"the gradient of {name}", unless=scaled(want))


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to the input, through the frozen base and through the branch."""
    for state in ("train", "eval", "factors frozen"):
        (x, *_), (base, branch, _, _), silent = _gradients(stage, draw, state)
        text = f"no gradient reaches the input ({state}{' mode' * (state != 'factors frozen')})"
        require(x is not None, text, "input-gradient-cut")
        known = {k: base + v for k, v in scaled(branch).items()}
        known["input-gradient-cut"] = branch
        known["eval-disables-adapter" if silent else "branch-input-detached"] = base
        near(x, base + branch, what="the gradient to the input", unless=known)


@part("gradient")
def test_gradients_at_equal_sizes(stage, draw):
    """The gradients are exact also where sizes are equal, or one."""
    cases = list(_sizes(draw))
    given = [(*values, x, g) for values, x, g, *_ in cases]
    for mode in ("train", "eval"):
        seen = stage(gradients_of_all, given, mode)
        for (*got, _, _), ((W, _, A, B), x, g, scale, words) in zip(seen, cases):
            _same_gradients(got, slopes(W, A, B, x, g, scale), f"in {mode} mode with {words}")


def dropped_gradients(kata, cases, p):
    seen = []
    for weight, bias, A, B, x, g in cases:
        layer = make(kata, weight, bias, A, B, dropout=p)
        x = x.clone().requires_grad_()
        y = layer(x)
        if y.requires_grad:
            (y * g).sum().backward()
        trains = layer.lora_A.requires_grad and layer.lora_B.requires_grad
        seen.append((y.detach(), (x.grad, layer.lora_A.grad, layer.lora_B.grad), trains))
    return seen


@part("gradient")
def test_gradients_with_dropout(stage, draw):
    """In training with dropout the gradients are those of what dropout has left."""
    cases = []
    for lead, bias in (((9,), True), ((2, 3), True), ((2, 2, 3), True), ((9,), False)):
        values, x = rotations(draw, *lead, bias=bias)
        cases.append((*values, x, draw(*lead, WIDE)))
    for (y, got, trains), (*values, x, g) in zip(stage(dropped_gradients, cases, DROP), cases):
        W, bias, A, B = values
        none = " without bias" * (bias is None)
        words = f"in training with dropout, for x {tuple(x.shape)}{none}"
        right = tensor(y).shape == x.shape and y.dtype == x.dtype
        ratio = _entered(y, x, values) if right else x
        require(right and _is_dropout(ratio), f"the output is not what it should be {words}")
        kept = (ratio > 0.5).double() / (1 - DROP)
        base, branch, to_a, to_b = slopes(W, A, B, x, g, ALPHA / WIDE, kept * x.double())
        for name, value, want in (("lora_A", got[1], to_a), ("lora_B", got[2], to_b)):
            off = "factors-get-no-gradient" if trains else None
            require(value is not None, f"{name} gets no gradient {words}", off)
            near(value, want, what=f"the gradient of {name} {words}")
        require(got[0] is not None, f"no gradient reaches the input {words}", "input-gradient-cut")
        known = {"input-gradient-cut": branch * kept, "branch-input-detached": base}
        what = f"the gradient to the input {words}"
        near(got[0], base + branch * kept, what=what, unless=known)


def first_gradient(kata, weight, bias, A, x, g, train):
    base = linear(weight, bias).requires_grad_(False)
    layer = kata.LoRALinear(base, rank=A.shape[0], alpha=10.5).train(train)
    if not layer.lora_A.requires_grad:
        raise Missing("lora_A does not train where the base was frozen beforehand")
    set_(layer, lora_A=A)
    y = layer(x)
    if y.requires_grad:
        (y * g).sum().backward()
    return layer.lora_B.grad


@part("gradient")
def test_b_learns_from_the_start(stage, draw):
    """While lora_B is still zero it gets its gradient all the same, whether or not the base was
    frozen beforehand."""
    W, b, A, _ = pieces(draw)
    x, g = draw(6, IN), draw(6, OUT)
    want = ALPHA / RANK * g.double().T @ (x.double() @ A.double().T)
    for train in (True, False):
        got = stage(first_gradient, W, b, A, x, g, train)
        mode = "train" if train else "eval"
        text = f"lora_B gets no gradient at the start ({mode} mode, a base frozen beforehand)"
        require(got is not None, text)
        near(got, want, what=f"the first gradient of lora_B ({mode} mode)", unless=scaled(want))


# merge


def delta(kata, weight, bias, A, B):
    return make(kata, weight, bias, A, B).delta_weight()


def _delta(A, B, scale=ALPHA / RANK):
    return scale * (B.double() @ A.double())


@part("merge")
def test_delta_weight(stage, draw):
    """delta_weight() is scale * lora_B @ lora_A, of shape (out, in)."""
    W, b, A, B = pieces(draw)
    got, want = stage(delta, W, b, A, B), _delta(A, B)
    known = scaled(want)
    known["delta-scale-missing"] = known.pop("scale-missing")
    turned = like(got, want.T)
    near(
        got,
        want,
        what="delta_weight()",
        bug="delta-transposed" if turned else None,
        unless=known,
    )
    W, b, A, B = draw(IN, IN), draw(IN), draw(RANK, IN), draw(IN, RANK)
    got, want = stage(delta, W, b, A, B), _delta(A, B)
    near(got, want, what="delta_weight() of a square layer", unless={"delta-transposed": want.T})


def merging(kata, weight, bias, A, B, x, steps):
    layer = make(kata, weight, bias, A, B)
    base, kept = held(layer)
    factors = layer.lora_A, layer.lora_B
    for p in factors:
        p.grad = torch.ones_like(p)
    born = bool(need(layer, "merged"))
    seen = []
    for step in steps:
        getattr(layer, step)()
        seen.append(
            {
                "weight": base.weight.detach().clone(),
                "bias": base.bias,
                "merged": bool(need(layer, "merged")),
                "same": base.weight is kept,
                "base": layer.base is base,
                "factors": layer.lora_A is factors[0] and layer.lora_B is factors[1],
                "trains": layer.lora_A.requires_grad and layer.lora_B.requires_grad,
                "grads": all(p.grad is not None and bool((p.grad == 1).all()) for p in factors),
                "y": layer(x),
                "delta": layer.delta_weight(),
                "A": layer.lora_A.detach().clone(),
                "B": layer.lora_B.detach().clone(),
                "leaf": base.weight.is_leaf,
                "grad": base.weight.requires_grad,
            }
        )
    return born, seen


def _merged(stage, draw, *steps, bug=None):
    """Evidence after each step, with what is right while merged and while not.

    bug: what it is if a call raises.
    """
    W, b, A, B = pieces(draw)
    x = draw(5, IN)
    with blame(bug), blame("merge-tracks-gradients", *RECORDED):
        born, seen = stage(merging, W, b, A, B, x, list(steps))
    require(not born, "a new layer says that it is merged, after others have been")
    return seen, (W, b, A, B, x), (W.double(), W.double() + _delta(A, B))


@part("merge")
def test_merge_folds_the_update_into_the_weight(stage, draw):
    """merge() adds delta_weight() to base.weight; the output stays the same."""
    (got,), (W, b, A, B, x), (plain, folded) = _merged(stage, draw, "merge")
    # Another layer or Parameter in the place of the base is another mistake.
    in_place = got["same"] and got["base"]
    near(
        got["weight"],
        folded,
        what="base.weight after merge()",
        unless={"merge-scale-missing": plain + _delta(A, B, 1.0), "merge-missing": plain}
        if in_place
        else {},
    )
    near(got["bias"], b, what="base.bias after merge()")
    base, update = oracle(x, W, b, A, B)
    near(
        got["y"],
        base + update,
        what="the output after merge()",
        unless={
            "merge-without-flag": base + 2 * update,
            "merge-missing": base,
            "bias-dropped": base + update - b,
        },
        rtol=2e-4,
    )
    near(got["A"], A.double(), what="lora_A after merge()")
    cleared = {"merge-clears-b": torch.zeros_like(B)}
    near(got["B"], B.double(), what="lora_B after merge()", unless=cleared)
    near(got["delta"], folded - plain, what="delta_weight() while merged")
    require(got["merged"], "`merged` should be true after merge()")


@part("merge")
def test_merge_keeps_the_parameter(stage, draw):
    """In place: base.weight is the same Parameter afterwards, a leaf, and still frozen;
    after unmerge() lora_A and lora_B are the same as before."""
    for mode in ("train", "eval"):
        (_, merged, back), *_ = _merged(stage, draw, mode, "merge", "unmerge")
        _kept(merged, back)


def _kept(merged, back):
    for got, call in ((merged, "merge()"), (back, "unmerge()")):
        tracked = not got["leaf"]
        text = f"base.weight carries a gradient graph after {call}"
        require(not tracked, text, "merge-tracks-gradients")
        text = f"base.weight is another object after {call}"
        require(got["same"], text, "merge-new-parameter")
        text = f"`base` is another layer after {call}, with another weight"
        require(got["base"], text, "merge-new-parameter")
        require(got["grads"], f"{call} changes the gradients of lora_A or lora_B")
    require(not merged["grad"], "base.weight is no longer frozen after merge()")
    lost = "lora_A or lora_B is another object after unmerge(): an optimizer would lose it"
    require(back["factors"], lost)
    require(back["trains"], "after merge() and unmerge() lora_A or lora_B is frozen")


@part("merge")
def test_merging_twice_changes_nothing(stage, draw):
    """A second merge() changes nothing."""
    stage(merging, *pieces(draw), draw(5, IN), ["merge"])
    (first, second), _, (plain, folded) = _merged(
        stage, draw, "merge", "merge", bug="second-call-raises"
    )
    twice = first["weight"].double() + folded - plain
    near(
        second["weight"],
        first["weight"].double(),
        what="base.weight after a second merge()",
        unless={"merge-not-idempotent": twice},
    )
    require(second["merged"], "`merged` should still be true after a second merge()")


@part("merge")
def test_unmerge_takes_the_update_out(stage, draw):
    """unmerge() restores weight and output; unmerging an unmerged layer changes nothing."""
    stage(merging, *pieces(draw), draw(5, IN), ["merge", "unmerge", "merge", "unmerge"])
    seen, (W, b, A, B, x), (plain, folded) = _merged(
        stage,
        draw,
        *("unmerge", "merge", "unmerge", "unmerge", "merge", "unmerge"),
        bug="second-call-raises",
    )
    base, update = oracle(x, W, b, A, B)
    moved = folded - plain
    known = {
        "an unmerge() of an unmerged layer": {"unmerge-not-idempotent": plain - moved},
        "merge() and unmerge()": {
            "unmerge-missing": folded,
            "unmerge-adds": folded + moved,
            "unmerge-scale-missing": folded - _delta(A, B, 1.0),
        },
        "a second unmerge()": {"unmerge-not-idempotent": plain - moved},
    }
    names = (
        "an unmerge() of an unmerged layer",
        "",
        "merge() and unmerge()",
        "a second unmerge()",
        "",
        "merging and unmerging again",
    )
    for got, name in zip(seen, names):
        if not name:
            bug = "merge-missing" if like(got["weight"], plain) else None
            require(got["merged"], "`merged` should be true after merge()", bug)
            continue
        near(
            got["weight"],
            plain,
            what=f"base.weight after {name}",
            unless=known.get(name, {}),
            rtol=2e-4,
        )
        require(not got["merged"], f"`merged` is true after {name}", "unmerge-flag-stays")
        near(got["y"], base + update, what=f"the output after {name}", rtol=2e-4)


def modes(kata, weight, bias, A, B, x):
    layer = make(kata, weight, bias, A, B, dropout=0.5)
    base, _ = held(layer)
    states, mode = [], True
    for step in ("", "eval", "train", "merge", "train", "eval", "unmerge", "eval"):
        if step:
            getattr(layer, step)()
        if layer.training != (mode := step == "train" if step in ("train", "eval") else mode):
            raise Missing(f"{step}() switches the layer between train() and eval()")
        states.append((bool(layer.merged), base.weight.detach().clone()))
    layer.train()
    layer.merge()
    layer.unmerge()
    dropping = layer(x)
    layer.merge()
    layer.eval()
    return states, dropping, layer(x)


@part("merge")
def test_modes_do_not_merge(stage, draw):
    """train() and eval() neither merge nor unmerge; merging works in both modes."""
    W, b, A, B = pieces(draw)
    x = draw(5, IN)
    states, dropping, y = stage(modes, W, b, A, B, x)
    plain, folded = W.double(), W.double() + _delta(A, B)
    # The call, whether the layer is merged after it, and what it is if the other holds.
    steps = (
        ("__init__", False, None),
        ("eval()", False, "eval-merges"),
        ("train()", False, None),
        ("merge()", True, None),
        ("train()", True, "train-unmerges"),
        ("eval()", True, None),
        ("unmerge()", False, None),
        ("eval()", False, "eval-merges"),
    )
    for (merged, weight), (call, inside, bug) in zip(states, steps):
        right, other = (folded, plain) if inside else (plain, folded)
        what = f"base.weight after {call} of a layer that is {'' if inside else 'not '}merged"
        if call in ("merge()", "unmerge()", "__init__"):
            what = f"base.weight after {call}"
        near(weight, right, what=what, unless={bug: other} if bug else {}, rtol=2e-4)
        require(merged == inside, f"`merged` should be {inside} after {call}")
    exact = sum(oracle(x, W, b, A, B))
    require(
        not like(dropping, exact),
        "after merge() and unmerge() dropout stays off in training",
        _no_dropout_bug(stage, W, b, A, B, x, exact),
    )
    near(y, exact, what="the output merged in eval mode", rtol=2e-4)


def _no_dropout_bug(stage, W, b, A, B, x, exact):
    """Dropout that never acts is another mistake than one that merge() switches off."""
    return (
        "dropout-ignored" if like(stage(dropped, W, b, A, B, x, 0.5, "train")[0], exact) else None
    )


def merged_outputs(kata, cases, p):
    seen = []
    for weight, bias, A, B, x, g in cases:
        layer = make(kata, weight, bias, A, B, dropout=p)
        layer.merge()
        layer.eval()
        still = layer(x)
        layer.train()
        x = x.clone().requires_grad_()
        y = layer(x)
        if y.requires_grad:
            (y * g).sum().backward()
        seen.append((still, y.detach(), x.grad))
    return seen


@part("merge")
def test_no_dropout_while_merged(stage, draw):
    """While merged the output is the base matmul alone, in training with dropout too, whatever
    the input's dimensions."""
    cases = []
    for lead, bias in (((20,), 1), ((20,), 0), ((2, 3), 1), ((2, 2, 3), 1), ((), 1)):
        values, x = rotations(draw, *lead, bias=bool(bias))
        cases.append((*values, x, draw(*lead, WIDE)))
    for (still, y, grad), (*values, x, g) in zip(stage(merged_outputs, cases, DROP), cases):
        W, b, A, B = values
        base, update = oracle(x, *values, scale=ALPHA / WIDE)
        words = f"for x {tuple(x.shape)}" + " without bias" * (b is None)
        near(still, base + update, what=f"the output merged in eval mode {words}", rtol=2e-4)
        bug = None
        if x.ndim == 2 and b is not None and tensor(y).shape == base.shape and not y.is_complex():
            if _is_dropout(_entered(y.double() - update, x, values)):
                bug = "merge-without-flag"
            elif _base_dropped(y.double(), x, W, b, A, B, ALPHA / WIDE):
                bug = "dropout-on-base-too"
        what = f"the output merged, in training with dropout, {words}"
        near(y, base + update, what=what, rtol=2e-4, bug=bug)
        through_base, branch, *_ = slopes(W, A, B, x, g, ALPHA / WIDE)
        require(grad is not None, f"no gradient reaches the input while merged, {words}")
        what = f"the gradient to the input merged, in training with dropout, {words}"
        near(grad, through_base + branch, what=what, rtol=2e-4)


def sized(kata, cases):
    seen = []
    for *values, x in cases:
        layer = make(kata, *values)
        base, _ = held(layer)
        change = layer.delta_weight()
        steps = []
        for step in ("merge", "unmerge"):
            getattr(layer, step)()
            steps.append((base.weight.detach().clone(), layer(x)))
        seen.append((change, steps))
    return seen


@part("merge")
def test_merging_at_equal_sizes(stage, draw):
    """merge(), unmerge() and delta_weight() are exact also where sizes are equal, or one."""
    cases = list(_sizes(draw))
    seen = stage(sized, [(*values, x) for values, x, *_ in cases])
    for (change, ((folded, y), (back, z))), ((W, b, A, B), x, _, scale, words) in zip(seen, cases):
        want, plain = _delta(A, B, scale), W.double()
        square = len(W) == W.shape[1] > 1
        known = {"delta-transposed": want.T} if square else {}
        near(change, want, what=f"delta_weight() with {words}", unless=known)
        known = {"merge-transposed": plain + want.T} if square else {}
        near(folded, plain + want, what=f"base.weight after merge() with {words}", unless=known)
        known = {"merge-transposed": plain + want - want.T} if square else {}
        what = f"base.weight after unmerge() with {words}"
        near(back, plain, what=what, unless=known, rtol=2e-4)
        right = sum(oracle(x, W, b, A, B, scale))
        near(y, right, what=f"the output after merge() with {words}", rtol=2e-4)
        near(z, right, what=f"the output after unmerge() with {words}", rtol=2e-4)


def remerge(kata, weight, bias, A, B, A2, B2, x):
    fresh = kata.LoRALinear(linear(weight, bias), rank=A.shape[0])
    fresh.merge()
    if not need(fresh, "merged"):
        raise Missing("After merge() of a new layer, lora_B still zero, `merged` is not true")
    layer = make(kata, weight, bias, A, B)
    base, _ = held(layer)
    layer.merge()
    layer.unmerge()
    set_(layer, lora_A=A2, lora_B=B2)
    layer.merge()
    merged = base.weight.detach().clone()
    layer.unmerge()
    return merged, base.weight


@part("merge")
def test_merges_the_factors_of_the_moment(stage, draw):
    """After the factors have changed, merge() uses the new ones."""
    W, b, A, B = pieces(draw)
    _, _, A2, B2 = pieces(draw)
    merged, back = stage(remerge, W, b, A, B, A2, B2, draw(5, IN))
    near(
        merged,
        W.double() + _delta(A2, B2),
        what="base.weight merged with new factors",
        rtol=2e-4,
        unless={"weight-cached": W.double() + _delta(A, B)},
    )
    near(back, W.double(), what="base.weight after that unmerge()", rtol=2e-4)


def moved_base(kata, weight, bias, A, B, weight2):
    layer = make(kata, weight, bias, A, B)
    base, _ = held(layer)
    set_(base, weight=weight2)
    layer.merge()
    layer.unmerge()
    return base.weight


@part("merge")
def test_unmerge_restores_the_weight_of_the_merge(stage, draw):
    """unmerge() gives back the weight that was there when merge() was called."""
    W, b, A, B = pieces(draw)
    W2 = draw(OUT, IN)
    got = stage(moved_base, W, b, A, B, W2)
    near(
        got,
        W2.double(),
        what="base.weight (changed before merge()) after unmerge()",
        rtol=2e-4,
        unless={"unmerge-to-initial": W.double()},
    )


@part("merge")
def test_merging_in_any_order(stage, draw):
    """Output and gradients are right after every step, in whatever order the layer is merged,
    unmerged, trained, loaded and switched between its modes."""
    steps = "merge train eval unmerge factors merge merge eval unmerge unmerge train base merge "
    steps += "eval train unmerge load eval merge unmerge factors train base unmerge merge unmerge"
    for graph in (True, False):
        _merges(_walked(stage, draw, ["eval", *steps.split()], graph, bias=graph))


def _merges(walked):
    merged = False
    for step, got, (W, b, A, B), _, x, g, words in walked:
        merged = {"merge": True, "unmerge": False}.get(step, merged)
        after = f"after {words}"
        require(got["merged"] == merged, f"`merged` should be {merged} {after}")
        require(got["frozen"], f"the base is no longer frozen {after}")
        want = W.double() + _delta(A, B) * merged
        near(got["weight"], want, what=f"base.weight {after}", rtol=2e-4)
        right = sum(oracle(x, W, b, A, B))
        near(got["silent"], right, what=f"the output under no_grad {after}", rtol=2e-4)
        if "grads" not in got:
            continue
        near(got["y"], right, what=f"the output {after}", rtol=2e-4)
        base, branch, to_a, to_b = slopes(W, A, B, x, g)
        if merged:
            what = f"the gradient of x {after}"
            near(got["grads"][0], base + branch, what=what, rtol=2e-4)
        else:
            _same_gradients(got["grads"], (base, branch, to_a, to_b), after)


@part("merge")
def test_base_stays_frozen_after_unmerge(stage, draw):
    """The base is still frozen after merge() and unmerge()."""
    W, b, A, B = pieces(draw)
    before = stage(after_backward, W, b, A, B, draw(5, IN), False)
    got = stage(after_backward, W, b, A, B, draw(5, IN), True)
    known = "base-not-frozen" if before["weight"] else "base-weight-trains-after-unmerge"
    _frozen(got, known, "bias-not-frozen" if before["bias"] else None)


@part("merge")
def test_training_goes_on_after_unmerge(stage, draw):
    """After unmerge() factors and input get the same gradients as before."""
    got, (base, branch, to_a, to_b), _ = _gradients(stage, draw, "unmerged")
    for name, value, want in (("lora_A", got[1], to_a), ("lora_B", got[2], to_b)):
        require(value is not None, f"{name} gets no gradient after unmerge()")
        near(value, want, what=f"the gradient of {name} after unmerge()", unless=scaled(want))
    require(got[0] is not None, "no gradient reaches the input after unmerge()")
    near(got[0], base + branch, what="the gradient to the input after unmerge()", rtol=2e-4)


@part("merge")
def test_gradient_to_the_input_while_merged(stage, draw):
    """While merged the gradient still flows to the input."""
    got, (base, branch, *_), _ = _gradients(stage, draw, "merged")
    require(got[0] is not None, "no gradient reaches the input while merged", "input-gradient-cut")
    near(got[0], base + branch, what="the gradient to the input while merged", rtol=2e-4)


# state


def state_names(kata, weight, bias):
    layer = kata.LoRALinear(linear(weight, bias), rank=3)
    return list(layer.state_dict())


@part("state")
def test_state_names(stage, draw):
    """lora_A, lora_B and the base's tensors are in the state dict under these names."""
    names = stage(state_names, draw(OUT, IN), draw(OUT))
    for name in ("lora_A", "lora_B", "base.weight", "base.bias"):
        require(name in names, f"`{name}` is not in the state dict; it holds: {', '.join(names)}")


def round_trip(kata, weight, bias, A, B, weight2, bias2, x):
    first = make(kata, weight, bias, A, B)
    second = kata.LoRALinear(linear(weight2, bias2), rank=A.shape[0], alpha=10.5)
    second(x)
    second.load_state_dict(first.state_dict())
    return both_modes(second, x)


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs."""
    W, b, A, B = pieces(draw)
    x = draw(5, IN)
    for y in stage(round_trip, W, b, A, B, draw(OUT, IN), draw(OUT), x):
        near(y, sum(oracle(x, W, b, A, B)), what="the output after load_state_dict")


# dtype and device


def kinds(kata, weight, bias):
    layer = kata.LoRALinear(linear(weight, bias), rank=3)
    if not layer.lora_A.any():
        raise Missing(f"lora_A starts at zero in {str(weight.dtype)[6:]}")
    return str(layer.lora_A.dtype)[6:], str(layer.lora_B.dtype)[6:]


def in_dtype(kata, weight, bias, A, B, x, g, mode):
    layer = make(kata, weight, bias, A, B, alpha=10.0)
    if need(layer, "merged"):
        raise Missing("A new layer says that it is merged, after others have been")
    layer.train(mode == "train")
    x = x.clone().requires_grad_()
    y = layer(x)
    (y * g).sum().backward()
    change, grads = layer.delta_weight(), (x.grad, layer.lora_A.grad, layer.lora_B.grad)
    layer.merge()
    weight, merged = layer.base.weight.detach().clone(), layer(x.detach())
    layer.unmerge()
    return y.detach(), grads, change, weight, merged, layer.base.weight


def _dtype(stage, draw, dtype):
    third = 10 / 3  # not exact in any dtype: a scale kept in a coarser one shows
    ways = ("train", (5,), 1), ("eval", (5,), 1), ("eval", (1,), 0), ("train", (2, 3), 0)
    for mode, lead, with_bias in (*ways, ("eval", (), 1)):
        W, b, A, B = pieces(draw, dtype)
        b = b if with_bias else None
        x, g = draw(*lead, IN, dtype=dtype), draw(*lead, OUT, dtype=dtype)
        _factors_are(stage, W, b, dtype)
        base, update = oracle(x, W, b, A, B, third)
        y, grads, change, weight, merged, back = stage(in_dtype, W, b, A, B, x, g, mode)
        _exact(y, base + update, "the output", dtype, slips(base, update, b, 10.0))
        through_base, branch, to_a, to_b = slopes(W, A, B, x, g, third)
        wanted = (through_base + branch, to_a, to_b)
        for name, value, want in zip(("x", "lora_A", "lora_B"), grads, wanted):
            require(value is not None, f"{name} gets no gradient")
            _exact(value, want, f"the gradient of {name}", dtype)
        _exact(change, _delta(A, B, third), "delta_weight()", dtype)
        _exact(weight, W.double() + _delta(A, B, third), "base.weight after merge()", dtype)
        _exact(merged, base + update, "the output after merge()", dtype)
        _exact(back, W.double(), "base.weight after unmerge()", dtype)


def _exact(got, want, what, dtype, known=None):
    """near(), with the mistakes that concern dtypes."""
    kind = tensor(got, what).dtype
    text = f"{what} is {str(kind)[6:]}, expected {str(dtype)[6:]}"
    bug = "output-in-another-dtype" if what.startswith("the output") else None
    require(kind == dtype, text, bug)
    size = float(want.abs().max())
    same_shape = got.shape == want.shape and dtype == torch.float64
    coarse = same_shape and float((got - want).abs().max()) < 1e-6 * size
    near(got, want, what=what, dtype=dtype, unless=known, bug="float32-inside" if coarse else None)


def _factors_are(stage, W, b, dtype):
    want = str(dtype)[6:]
    for name, kind in zip(("lora_A", "lora_B"), stage(kinds, W, b)):
        bug = "float32-factors" if kind == "float32" else None
        require(kind == want, f"{name} is {kind}, the base is {want}", bug)


@part("dtype")
def test_float64(stage, draw):
    """A float64 base gives float64 factors and outputs, exact to 1e-9."""
    _dtype(stage, draw, torch.float64)


@part("dtype")
def test_bfloat16(stage, draw):
    """A bfloat16 base gives bfloat16 factors and outputs."""
    _dtype(stage, draw, torch.bfloat16)


@part("dtype")
def test_dropout_keeps_the_dtype(stage, draw):
    """In training with dropout the output has the base's dtype too."""
    for dtype, off in ((torch.float64, 1e-8), (torch.bfloat16, 0.4)):
        # A zero base: what came out of the branch is not rounded away in its output.
        values, x = rotations(draw, 20, bias=False, dtype=dtype, base=0.0)
        _factors_are(stage, values[0], values[0][0], dtype)
        (y,) = stage(dropped, *values, x, DROP, "train")
        kind = tensor(y).dtype
        want = str(dtype)[6:]
        text = f"the output in training with dropout is {str(kind)[6:]}, expected {want}"
        require(kind == dtype, text, "output-in-another-dtype")
        right = y.shape == x.shape and _is_dropout(_entered(y, x, values), off=off)
        require(right, f"the output in training with dropout is not what it should be in {want}")


def on_meta(kata):
    base = nn.Linear(18, 12, device="meta", dtype=torch.bfloat16)
    with CheapMeta():
        layer = kata.LoRALinear(base, rank=3)
    x = torch.empty(2, 5, 18, device="meta", dtype=torch.bfloat16)
    devices = layer.lora_A.device.type, layer.lora_B.device.type
    if devices != ("meta", "meta"):
        return devices, layer.lora_A.dtype, None
    with CheapMeta():
        return devices, layer.lora_A.dtype, layer(x)


@part("device")
def test_meta_device(stage):
    """A base on the meta device gives factors and outputs there."""
    devices, dtype, y = stage(on_meta)
    for name, device in zip(("lora_A", "lora_B"), devices):
        where = f"{name} is on {device}; the base is on meta"
        require(device == "meta", where, "cpu-factors")
    bug = "float32-factors" if dtype == torch.float32 else None
    require(dtype == torch.bfloat16, f"lora_A is {str(dtype)[6:]}; the base is bfloat16", bug)
    require(tensor(y).device.type == "meta", f"the output is on {y.device.type}, expected meta")
    require(tuple(y.shape) == (2, 5, 12), f"the output has shape {tuple(y.shape)}")
    require(y.dtype == dtype, f"the output is {str(y.dtype)[6:]}, expected bfloat16")


# errors


def bad_rank(kata, weight, rank):
    kata.LoRALinear(linear(weight), rank=rank)


def after_error(kata, weight, rank, conv):
    """Whether all of the base still trains after the error, and its weight."""
    base = nn.Conv1d(6, 6, 1) if conv else linear(weight, weight[:, 0])
    try:
        kata.LoRALinear(base, rank=rank)
    except (TypeError, ValueError) as error:
        del error
    return base.weight.requires_grad and base.bias.requires_grad, base.weight


@part("errors")
def test_rank_below_one(stage, draw):
    """rank < 1 raises ValueError naming rank, before anything is changed."""
    W = draw(OUT, IN)
    for rank in (0, -1):
        outcome = stage.attempt(bad_rank, W, rank)
        rejects(outcome, "ValueError", "rank", what=f"rank={rank}", bug="rank-unchecked")
        trains, weight = stage(after_error, W, rank, False)
        text = "the base was frozen before ValueError was raised"
        require(trains, text, "rank-checked-after-freeze")
        same(weight, W, "the base's weight after the ValueError")


def bad_base(kata, which):
    made = {
        "conv": lambda: nn.Conv1d(6, 6, 1),
        "embedding": lambda: nn.Embedding(6, 6),
        "look-alike": look_alike,
        "Tensor": lambda: torch.zeros(6, 6),
        "NoneType": lambda: None,
    }[which]()
    kata.LoRALinear(made, rank=2)


def look_alike():
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(6, 6))
    module.bias = None
    module.in_features = module.out_features = 6
    return module


def heir(kata, weight, bias, x, plain):
    class Heir(nn.Linear):
        pass

    base = (nn.Linear if plain else Heir)(weight.shape[1], weight.shape[0])
    set_(base, weight=weight, bias=bias)
    return kata.LoRALinear(base, rank=2)(x)


@part("errors")
def test_base_must_be_linear(stage, draw):
    """A base that is no nn.Linear raises TypeError naming base, before anything is changed; a
    subclass of it is one."""
    for which in ("look-alike", "conv", "embedding", "Tensor", "NoneType"):
        outcome = stage.attempt(bad_base, which)
        what = f"a base of type {which}"
        bug = None if which in ("Tensor", "NoneType") else "base-type-unchecked"
        rejects(outcome, "TypeError", "base", what=what, bug=bug)
    W, b, *_ = pieces(draw)
    trains, _ = stage(after_error, W, 2, True)
    require(trains, "the base was frozen before TypeError was raised", "rank-checked-after-freeze")
    x = draw(5, IN)
    stage(heir, W, b, x, True)
    with blame("subclass-refused", "base", "Linear"):
        y = stage(heir, W, b, x, False)
    right = x.double() @ W.double().T + b
    near(y, right, what="the output with a subclass of nn.Linear as the base")


# cost


def merged_cost(kata, weight, bias, A, B, x, mode):
    layer = make(kata, weight, bias, A, B, dropout=0.3)
    layer.train(mode == "train")
    layer.merge()
    with torch.no_grad():
        return count(lambda: layer(x)), count(lambda: nn.functional.linear(x, weight, bias))


@part("cost")
def test_merged_forward_is_the_base_matmul_alone(stage, draw):
    """While merged, forward does the base matmul and no other."""
    for mode in ("eval", "train"):
        got, plain = stage(merged_cost, *pieces(draw), draw(40, IN), mode)
        text = f"a forward merged takes {got['flops']} FLOPs in {mode} mode"
        text += f"; the base matmul takes {plain['flops']}"
        require(got["flops"] <= plain["flops"], text, "merged-runs-branch-anyway")


# gpu


def places(kata, weight, bias, device):
    layer = kata.LoRALinear(linear(weight, bias).to(device), rank=3)
    return layer.lora_A.device.type, layer.lora_B.device.type


def on_device(kata, weight, bias, A, B, x, device):
    weight, bias, A, B, x = (t.to(device) for t in (weight, bias, A, B, x))
    layer = make(kata, weight, bias, A, B)
    x = x.requires_grad_()
    y = layer(x)
    (y * y).sum().backward()
    layer.merge()
    return y, x.grad, layer.lora_A.grad, layer.lora_B.grad, layer(x)


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU, and nothing stays behind."""
    W, b, A, B = pieces(draw)
    x = draw(4, 5, IN)
    for name, place in zip(("lora_A", "lora_B"), stage(places, W, b, stage.device)):
        where = f"{name} is on {place}; the base is on {stage.device}"
        require(place == stage.device, where, "cpu-factors")
    y, gx, ga, gb, merged = stage(on_device, W, b, A, B, x, stage.device)
    base, update = oracle(x, W, b, A, B)
    through_base, branch, to_a, to_b = slopes(W, A, B, x, 2 * (base + update))
    near(y, base + update, rtol=1e-3, atol=1e-3)
    near(gx, through_base + branch, what="the gradient to the input", rtol=1e-3, atol=1e-3)
    near(ga, to_a, what="the gradient of lora_A", rtol=1e-3, atol=1e-3)
    near(gb, to_b, what="the gradient of lora_B", rtol=1e-3, atol=1e-3)
    near(merged, base + update, what="the output after merge()", rtol=1e-3, atol=1e-3)
