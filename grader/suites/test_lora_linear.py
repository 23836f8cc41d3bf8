"""What is checked of `lora_linear`. Contract: LoRA (Hu et al. 2021), section 4.1."""

import torch
from torch import nn

from grader.exam.checks import blame, near, part, rejects, require, same
from grader.exam.kit import CheapMeta, count, linear, need, set_

OUT, IN, RANK, ALPHA = 12, 18, 3, 10.5  # alpha / rank = 3.5


def make(kata, weight, bias, A, B, alpha=ALPHA, **extra):
    layer = kata.LoRALinear(linear(weight, bias), rank=A.shape[0], alpha=alpha, **extra)
    set_(layer, lora_A=A, lora_B=B)
    return layer


def pieces(draw, dtype=torch.float32, rank=RANK):
    """weight, bias, A, B: the update is as large as the base."""
    return (
        draw(OUT, IN, std=0.5, dtype=dtype),
        draw(OUT, std=2.0, dtype=dtype),
        draw(rank, IN, std=0.4, dtype=dtype),
        draw(OUT, rank, std=0.6, dtype=dtype),
    )


def oracle(x, weight, bias, A, B, scale=ALPHA / RANK):
    """base, update: both float64."""
    x, weight, A, B = (t.double() for t in (x, weight, A, B))
    base = x @ weight.T
    return base if bias is None else base + bias.double(), scale * (x @ A.T @ B.T)


def slips(base, update, bias, scale=ALPHA / RANK):
    """What known mistakes make of the output."""
    return {
        "scale-missing": base + update / scale,
        "scale-is-alpha": base + update / scale * ALPHA,
        "scale-inverted": base + update / scale**2,
        "scale-alpha-over-sqrt-rank": base + update / scale * ALPHA / RANK**0.5,
        "scale-twice": base + update * scale,
        "base-dropped": update,
        "bias-dropped": base - bias.double() + update,
        "bias-twice": base + bias.double() + update,
        "update-subtracted": base - update,
        "update-missing": base,
    }


# shape


def run(kata, weight, bias, A, B, x, alpha=ALPHA):
    layer = make(kata, weight, bias, A, B, alpha)
    return layer(x)


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """Inputs are (..., in_features): two, three and four dimensions, batches of one too."""
    W, b, A, B = pieces(draw)
    _right(stage, (W, b, A, B), draw(5, IN))
    for lead in [(2, 7), (2, 3, 4), (1, 1), (1,)]:
        _right(stage, (W, b, A, B), draw(*lead, IN), "flattens-leading-dims")


def _right(stage, values, x, bug=None):
    """The output for x; `bug` if it raises or comes in another shape."""
    with blame(bug):
        y = stage(run, *values, x)
    base, update = oracle(x, *values)
    if isinstance(y, torch.Tensor) and y.shape != base.shape and y.numel() == base.numel():
        bug = bug or "flattens-leading-dims"
    elif isinstance(y, torch.Tensor) and y.shape == base.shape:
        bug = None
    near(
        y,
        base + update,
        what=f"the output for x {tuple(x.shape)}",
        unless=slips(base, update, values[1]),
        bug=bug,
    )


@part("shape")
def test_single_vector(stage, draw):
    """A single vector (in_features,) gives (out_features,)."""
    W, b, A, B = pieces(draw)
    _right(stage, (W, b, A, B), draw(5, IN))
    _right(stage, (W, b, A, B), draw(IN), "one-d-input-fails")


def run_strided(kata, weight, bias, A, B, x):
    layer = make(kata, weight, bias, A, B)
    return layer(x.transpose(0, 1)), layer(x[:, ::2])


@part("shape")
def test_non_contiguous_input(stage, draw):
    """Inputs need not be contiguous."""
    W, b, A, B = pieces(draw)
    x = draw(4, 6, IN)
    turned, skipped = stage(run_strided, W, b, A, B, x)
    for y, v in ((turned, x.transpose(0, 1)), (skipped, x[:, ::2])):
        near(y, sum(oracle(v, W, b, A, B)), unless=slips(*oracle(v, W, b, A, B), b))


def factor_shapes(kata, weight, bias):
    layer = kata.LoRALinear(linear(weight, bias), rank=3, alpha=10.5)
    return tuple(need(layer, "lora_A").shape), tuple(need(layer, "lora_B").shape)


@part("shape")
def test_factor_shapes(stage, draw):
    """lora_A is (rank, in_features), lora_B is (out_features, rank)."""
    W, b, *_ = pieces(draw)
    a_shape, b_shape = stage(factor_shapes, W, b)
    require(a_shape == (3, IN), f"lora_A has shape {a_shape}, expected (3, {IN})")
    require(b_shape == (OUT, 3), f"lora_B has shape {b_shape}, expected ({OUT}, 3)")


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
    near(stage(run, *values, x), right, what="the output at a rank above out_features")


# init


def start(kata, weight, bias, x):
    layer = kata.LoRALinear(linear(weight, bias), rank=4, alpha=6.0)
    return layer(x)


@part("init")
def test_starts_as_the_base(stage, draw):
    """At the start the layer computes what the base does."""
    W, b, *_ = pieces(draw)
    x = draw(5, IN)
    y = stage(start, W, b, x)
    base = x.double() @ W.double().T + b.double()
    unless = {"base-dropped": torch.zeros_like(base), "bias-dropped": base - b}
    near(y, base, what="the output at the start", unless={**unless, "bias-twice": base + b})


def fresh_factors(kata, weight, bias, rank):
    first = kata.LoRALinear(linear(weight, bias), rank=rank)
    second = kata.LoRALinear(linear(weight, bias), rank=rank)
    return first.lora_A, first.lora_B, second.lora_A


@part("init")
def test_b_starts_at_zero(stage, draw):
    """lora_B starts at exactly zero."""
    W = draw(40, 64)
    _, B, _ = stage(fresh_factors, W, None, 8)
    require(bool((B == 0).all()), f"lora_B should start at zero; its std is {_std(B)}", "b-random")


@part("init")
def test_a_starts_random(stage, draw):
    """lora_A starts random: 0 < std < 1.5, full row rank, not the same every time."""
    W = draw(40, 64)
    A, _, other = stage(fresh_factors, W, None, 8)
    require(bool(torch.isfinite(A).all()), "lora_A holds values that are not finite")
    require(bool((A != 0).any()), "lora_A starts at zero: lora_B never gets a gradient", "a-zero")
    values = A.double()
    constant = bool((values == values.reshape(-1)[0]).all())
    require(not constant, "lora_A starts constant", "a-constant")
    require(float(values.std()) < 1.5, f"lora_A starts with std {_std(A)}, expected below 1.5")
    singular = torch.linalg.svdvals(values)
    full = bool(singular[-1] > 1e-4 * singular[0])
    require(full, "lora_A does not start with full row rank: its rows depend on each other")
    require(not torch.equal(A, other), "two layers start with the same lora_A: it is not random")


def _std(values):
    return f"{float(values.double().std()):.3g}"


def defaults(kata, weight, bias):
    layer = kata.LoRALinear(linear(weight, bias))
    by_place = kata.LoRALinear(linear(weight, bias), 4, 10.0, 0.0)
    wide = kata.LoRALinear(linear(weight, bias), rank=8, alpha=2.0)
    small = kata.LoRALinear(linear(weight, bias), rank=4)
    whole = kata.LoRALinear(linear(weight, bias), rank=4, alpha=10)
    return {
        "rank": layer.lora_A.shape[0],
        "scale": float(need(layer, "scale")),
        "placed": (by_place.lora_A.shape[0], float(by_place.scale)),
        "wide": float(wide.scale),
        "small": float(small.scale),
        "whole": float(whole.scale),
        "merged": bool(need(layer, "merged")),
    }


@part("init")
def test_defaults_and_attributes(stage, draw):
    """rank 8, alpha 16, scale = alpha / rank, not merged; arguments by place or by name."""
    got = stage(defaults, draw(30, 20), None)
    require(got["rank"] == 8, f"rank should default to 8, not {got['rank']}")
    require(got["placed"][0] == 4, "the second argument is the rank")
    near(
        got["placed"][1],
        2.5,
        what="scale with rank 4 and alpha 10",
        unless={
            "scale-missing": 1.0,
            "scale-is-alpha": 10.0,
            "scale-inverted": 0.4,
            "scale-alpha-over-sqrt-rank": 5.0,
        },
    )
    near(got["scale"], 2.0, what="scale with the default rank 8 and alpha 16")
    near(got["wide"], 0.25, what="scale with rank 8 and alpha 2")
    near(got["small"], 4.0, what="scale with rank 4 and the default alpha 16")
    near(got["whole"], 2.5, what="scale with rank 4 and alpha 10, a whole number")
    require(not got["merged"], "a new layer is not merged")


def base_untouched(kata, weight, bias):
    base = linear(weight, bias)
    kept, kept_bias = base.weight, base.bias
    layer = kata.LoRALinear(base, rank=3)
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
    W, b, *_ = pieces(draw)
    got = stage(base_untouched, W, b)
    same(got["inside"], W, "base.weight", "base-reinitialised")
    same(got["weight"], W, "the weight of the layer passed in", "base-reinitialised")
    same(got["bias"], b, "the bias of the layer passed in", "base-reinitialised")
    require(got["same"], "`base` should be the very layer passed in, not a copy", "base-copied")


# freeze


def after_backward(kata, weight, bias, A, B, x, merge):
    base = linear(weight, bias)
    layer = kata.LoRALinear(base, rank=A.shape[0], alpha=10.5)
    base = need(layer, "base")  # whether it is the one passed in, `init` tells
    at_once = not base.weight.requires_grad, not base.bias.requires_grad
    set_(layer, lora_A=A, lora_B=B)
    if merge:
        layer.merge()
        layer.unmerge()
    layer(x).square().sum().backward()
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


def _frozen(got, weight_bug):
    require(got["leaf"], "base.weight carries a gradient graph", "merge-tracks-gradients")
    require(not got["weight"], "base.weight is not frozen (requires_grad is True)", weight_bug)
    require(not got["bias"], "base.bias is not frozen (requires_grad is True)", "bias-not-frozen")
    require(all(got["at_once"]), "the base is not yet frozen when the layer has been made")
    require(got["weight_grad"] is None, "base.weight receives a gradient", weight_bug)
    require(got["bias_grad"] is None, "base.bias receives a gradient", "bias-not-frozen")


@part("freeze")
def test_base_is_frozen(stage, draw):
    """Weight and bias of the base do not require and never receive a gradient."""
    W, b, A, B = pieces(draw)
    _frozen(stage(after_backward, W, b, A, B, draw(5, IN), False), "base-not-frozen")


@part("freeze")
def test_only_the_factors_train(stage, draw):
    """lora_A and lora_B are registered parameters, and no other parameter trains."""
    W, b, A, B = pieces(draw)
    got = stage(after_backward, W, b, A, B, draw(5, IN), False)
    for name, trains, inside in zip(("lora_A", "lora_B"), got["trains"], got["registered"]):
        require(inside, f"{name} is not among parameters(): no optimizer will see it")
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
    y = stage(run, W, b, A, B, x)
    near(y, sum(oracle(x, W, b, A, B)), unless=slips(*oracle(x, W, b, A, B), b))
    square = draw(IN, IN), draw(IN), draw(RANK, IN), draw(IN, RANK)
    base, update = oracle(x, *square)
    y = stage(run, *square, x)
    turned = x.double() @ (square[3].double() @ square[2].double()) * ALPHA / RANK
    near(
        y,
        base + update,
        what="the output of a square layer",
        unless={**slips(base, update, square[1]), "delta-transposed": base + turned},
    )


@part("forward")
def test_without_a_bias(stage, draw):
    """A base without bias works."""
    W, _, A, B = pieces(draw)
    x = draw(5, IN)
    y = stage(run, W, None, A, B, x)
    zero = torch.zeros(OUT)
    known = {k: v for k, v in slips(*oracle(x, W, None, A, B), zero).items() if "bias" not in k}
    near(y, sum(oracle(x, W, None, A, B)), what="the output without bias", unless=known)


@part("forward")
def test_alpha_below_rank(stage, draw):
    """Also where alpha is smaller than rank."""
    W, b, A, B = pieces(draw)
    x = draw(5, IN)
    base, update = oracle(x, W, b, A, B, 2.0 / RANK)
    near(stage(run, W, b, A, B, x, 2.0), base + update, what="the output with rank 3, alpha 2")


def keeps_input(kata, weight, bias, A, B, x, p, train):
    layer = make(kata, weight, bias, A, B, dropout=p).train(train)
    layer(x)
    return x


@part("forward")
def test_input_unchanged(stage, draw):
    """The input is not changed in place."""
    W, b, A, B = pieces(draw)
    x = draw(5, IN)
    for p, train in ((0.0, True), (0.3, True), (0.3, False)):
        same(stage(keeps_input, W, b, A, B, x, p, train), x, "the input", "changes-input-in-place")


def live(kata, weight, bias, A, B, weight2, A2, B2, x, mode):
    layer = getattr(make(kata, weight, bias, A, B), mode)()
    layer(x)
    held = layer.base.weight.detach().clone()
    set_(layer, lora_A=A2, lora_B=B2)
    first = layer(x)
    set_(layer.base, weight=weight2)
    return held, first, layer(x)


@part("forward")
def test_follows_its_parameters(stage, draw):
    """Each forward uses the values that factors and base have now, in either mode."""
    W, b, A, B = pieces(draw)
    W2, _, A2, B2 = pieces(draw)
    x = draw(5, IN)
    stale = oracle(x, W, b, A, B)
    for mode in ("train", "eval"):
        held, first, second = stage(live, W, b, A, B, W2, A2, B2, x, mode)
        merges = mode == "eval" and _like(held, W.double() + _delta(A, B))
        what = f"base.weight changes in {mode} mode"
        require(torch.equal(held, W), what, "eval-merges" if merges else None)
        for y, weight in ((first, W), (second, W2)):
            base, update = oracle(x, weight, b, A2, B2)
            known = slips(base, update, b)
            if mode == "eval":
                known["eval-disables-adapter"] = known.pop("update-missing")
            known["weight-cached"] = sum(stale) if weight is W else base + stale[1]
            near(
                y,
                base + update,
                what=f"the output after the parameters changed ({mode} mode)",
                unless=known,
                bug="weight-cached" if weight is W2 and torch.equal(y, first) else None,
            )


def dropped(kata, weight, bias, A, B, x, p, train):
    layer = make(kata, weight, bias, A, B, dropout=p)
    layer.train(train)
    return layer(x)


def dropped_twice(kata, weight, bias, A, B, x, p):
    layer = make(kata, weight, bias, A, B, dropout=p).train()
    return layer(x), layer(x)


@part("forward")
def test_dropout_is_off_in_eval(stage, draw):
    """In eval mode, and with dropout 0, the output is exact."""
    W, b, A, B = pieces(draw)
    x = draw(6, IN)
    base, update = oracle(x, W, b, A, B)
    known = slips(base, update, b)
    y = stage(dropped, W, b, A, B, x, 0.4, False)
    full = stage(dropped, W, b, A, B, x, 0.0, True)
    bug = None
    if _like(full, base + update):  # right in training, so the mode is what matters
        bug, known = "eval-disables-adapter" if _like(y, base) else "dropout-in-eval", {}
    near(y, base + update, what="the output in eval mode", unless=known, bug=bug)
    near(full, base + update, what="the output with dropout 0", unless=slips(base, update, b))


def _like(got, want):
    return got.shape == want.shape and bool(torch.allclose(got.double(), want, 1e-3, 1e-4))


@part("forward")
def test_dropout_on_the_branch_input(stage, draw):
    """In training, dropout acts on the input of the low-rank branch, and on nothing else."""
    wide, p = 24, 0.25
    W, b = draw(wide, wide), draw(wide)
    A, B = draw.orthonormal(wide, wide), draw.orthonormal(wide, wide)
    x = draw(40, wide)
    x = x + x.sign() * 0.5  # away from zero, so that a dropped entry shows
    scale = ALPHA / wide
    base = x.double() @ W.double().T + b.double()
    update = scale * (x.double() @ A.double().T @ B.double().T)
    y = stage(dropped, W, b, A, B, x, p, True).double()
    require(y.shape == base.shape, "the output in training has the wrong shape")
    # A and B are rotations: what went into the branch can be read from what came out.
    branch = (y - base) / scale
    ratio = branch @ B.double() @ A.double() / x.double()
    if _like(y, base + update):
        require(False, "dropout 0.25 changes nothing in training", "dropout-ignored")
    keep = {0.0, 1 / (1 - p)}
    if not _two_valued(ratio, keep):
        hidden = branch @ B.double() / (x.double() @ A.double().T)
        output = branch / (update / scale)
        without = y / (base + update)
        if _two_valued(hidden, keep):
            require(False, "dropout acts after lora_A", "dropout-on-hidden")
        if _two_valued(output, keep):
            require(False, "dropout acts on the branch's output", "dropout-on-output")
        if _two_valued(without, keep):
            require(False, "dropout acts on the sum of base and branch", "dropout-on-base-too")
        if _two_valued(ratio, {0.0, 1.0}):
            require(False, "what dropout keeps must be divided by 1 - p")
        if _two_valued(ratio, {0.0, 1 / p}):
            require(False, "dropout 0.25 drops three quarters: p is the share to drop")
        bug = "dropout-on-base-too" if _base_dropped(y, x, W, b, A, B, scale) else None
        require(False, "in training, the output is not base(x) + the branch of dropout(x)", bug)
    share = float((ratio.abs() < 0.1).double().mean())
    require(0.15 < share < 0.36, f"dropout 0.25 drops {share:.0%} of the input")
    rows = (ratio.abs() < 0.1).double()
    mixed = bool(((rows.mean(1) > 0) & (rows.mean(1) < 1)).any())
    columns = bool(((rows.mean(0) > 0) & (rows.mean(0) < 1)).any())
    require(mixed and columns, "dropout must drop single entries, not whole rows or columns")
    first, second = stage(dropped_twice, W, b, A, B, x, p)
    require(not torch.equal(first, second), "each forward must draw anew what dropout drops")


def _two_valued(ratio, values):
    near_any = torch.stack([(ratio - v).abs() < 0.02 for v in values]).any(0)
    return bool(near_any.double().mean() > 0.97) and bool((ratio.abs() < 0.02).any())


def _base_dropped(y, x, W, b, A, B, scale):
    """Whether y is the layer's output for an input with entries dropped, base and all."""
    total = W.double() + scale * B.double() @ A.double()
    went_in = torch.linalg.solve(total, (y - b.double()).T).T
    return _two_valued(went_in / x.double(), {0.0, 4 / 3})


# gradient


def gradients(kata, weight, bias, A, B, x, g, state):
    layer = make(kata, weight, bias, A, B)
    if state == "eval":
        layer.eval()
    if state in ("merged", "unmerged"):
        layer.merge()
    if state == "unmerged":
        layer.unmerge()
    x = x.clone().requires_grad_()
    y = layer(x)
    if y.requires_grad:
        (y * g).sum().backward()  # y.backward(g) would import sympy
    trains = layer.lora_A.requires_grad and layer.lora_B.requires_grad
    return x.grad, layer.lora_A.grad, layer.lora_B.grad, trains


def _gradients(stage, draw, state):
    W, b, A, B = pieces(draw)
    x, g = draw(2, 3, IN), draw(2, 3, OUT)
    if state in ("merged", "unmerged"):
        stage(gradients, W, b, A, B, x, g, "train")
        with blame("merge-tracks-gradients", "leaf", "inplace"):
            got = stage(gradients, W, b, A, B, x, g, state)
    else:
        got = stage(gradients, W, b, A, B, x, g, state)
    s = ALPHA / RANK
    gd, xd, Wd, Ad, Bd = (t.double() for t in (g, x, W, A, B))
    flat_g, flat_x = gd.reshape(-1, OUT), xd.reshape(-1, IN)
    through_base, through_branch = gd @ Wd, s * gd @ Bd @ Ad
    to_a = s * (flat_g @ Bd).T @ flat_x
    to_b = s * flat_g.T @ (flat_x @ Ad.T)
    return got, (through_base, through_branch, to_a, to_b), s


def _scales(value, s):
    return {
        "scale-missing": value / s,
        "scale-is-alpha": value / s * ALPHA,
        "scale-inverted": value / s**2,
        "scale-twice": value * s,
        "scale-alpha-over-sqrt-rank": value / s * ALPHA / RANK**0.5,
    }


@part("gradient")
def test_gradients_of_the_factors(stage, draw):
    """lora_A and lora_B get the exact gradients, in training and in eval mode."""
    for state in ("train", "eval"):
        (x, a, b, trains), (base, _, to_a, to_b), s = _gradients(stage, draw, state)
        off = "factors-get-no-gradient" if state == "train" and trains else None
        if state == "eval" and x is not None and _like(x, base):
            off = "eval-disables-adapter"
        for name, got, want in (("lora_A", a, to_a), ("lora_B", b, to_b)):
            require(got is not None, f"{name} gets no gradient ({state} mode)", off)
            near(got, want, what=f"the gradient of {name}", unless=_scales(want, s))


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to the input, through the frozen base and through the branch."""
    for state in ("train", "eval"):
        (x, a, *_), (base, branch, _, _), s = _gradients(stage, draw, state)
        require(x is not None, "no gradient reaches the input", "input-gradient-cut")
        known = {k: base + v for k, v in _scales(branch, s).items()}
        off = state == "eval" and (a is None or not a.any())
        known["input-gradient-cut"] = branch
        known["eval-disables-adapter" if off else "branch-input-detached"] = base
        near(x, base + branch, what="the gradient to the input", unless=known)


def first_gradient(kata, weight, bias, A, x, g):
    layer = kata.LoRALinear(linear(weight, bias), rank=A.shape[0], alpha=10.5)
    set_(layer, lora_A=A)
    y = layer(x)
    if y.requires_grad:
        (y * g).sum().backward()
    return layer.lora_B.grad


@part("gradient")
def test_b_learns_from_the_start(stage, draw):
    """While lora_B is still zero it gets its gradient all the same."""
    W, b, A, _ = pieces(draw)
    x, g = draw(6, IN), draw(6, OUT)
    want = ALPHA / RANK * g.double().T @ (x.double() @ A.double().T)
    got = stage(first_gradient, W, b, A, x, g)
    require(got is not None, "lora_B gets no gradient at the start")
    near(got, want, what="the first gradient of lora_B", unless=_scales(want, ALPHA / RANK))


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
    s = ALPHA / RANK
    transposed = tuple(getattr(got, "shape", ())) == (IN, OUT)
    near(
        got,
        want,
        what="delta_weight()",
        bug="delta-transposed" if transposed else None,
        unless={
            "delta-scale-missing": want / s,
            "scale-is-alpha": want / s * ALPHA,
            "scale-inverted": want / s**2,
            "scale-twice": want * s,
            "scale-alpha-over-sqrt-rank": want / s * ALPHA / RANK**0.5,
        },
    )
    W, b, A, B = draw(IN, IN), draw(IN), draw(RANK, IN), draw(IN, RANK)
    got, want = stage(delta, W, b, A, B), _delta(A, B)
    near(got, want, what="delta_weight() of a square layer", unless={"delta-transposed": want.T})


def merging(kata, weight, bias, A, B, x, steps):
    layer = make(kata, weight, bias, A, B, dropout=0.0)
    base = need(layer, "base")
    kept, factors = base.weight, (layer.lora_A, layer.lora_B)
    born = bool(need(layer, "merged"))
    seen = []
    for step in steps:
        getattr(layer, step)()
        seen.append(
            {
                "weight": base.weight.detach().clone(),
                "bias": base.bias,
                "merged": bool(need(layer, "merged")),
                "same": base.weight is kept and layer.base is base,
                "factors": layer.lora_A is factors[0] and layer.lora_B is factors[1],
                "y": layer(x),
                "delta": layer.delta_weight(),
                "A": layer.lora_A.detach().clone(),
                "B": layer.lora_B.detach().clone(),
                "leaf": base.weight.is_leaf,
                "grad": base.weight.requires_grad,
            }
        )
    return born, seen


def _merged(stage, draw, *steps):
    """Evidence after each step, with what is right while merged and while not."""
    W, b, A, B = pieces(draw)
    x = draw(5, IN)
    with blame("merge-tracks-gradients", "leaf", "grad"):
        born, seen = stage(merging, W, b, A, B, x, list(steps))
    require(not born, "a new layer says that it is merged, after others have been")
    return seen, (W, b, A, B, x), (W.double(), W.double() + _delta(A, B))


@part("merge")
def test_merge_folds_the_update_into_the_weight(stage, draw):
    """merge() adds delta_weight() to base.weight; the output stays the same."""
    (got,), (W, b, A, B, x), (plain, folded) = _merged(stage, draw, "merge")
    near(
        got["weight"],
        folded,
        what="base.weight after merge()",
        # Another layer or Parameter in the place of the base is another mistake.
        unless={"merge-scale-missing": plain + _delta(A, B, 1.0), "merge-missing": plain}
        if got["same"]
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
    near(got["delta"], folded - plain, what="delta_weight() while merged")
    near(got["A"], A.double(), what="lora_A after merge()")
    near(got["B"], B.double(), what="lora_B after merge()")
    require(got["merged"], "`merged` should be true after merge()")


@part("merge")
def test_merge_keeps_the_parameter(stage, draw):
    """In place: base.weight is the same Parameter afterwards, a leaf, and still frozen;
    after unmerge() lora_A and lora_B are the same as before."""
    (merged, back), *_ = _merged(stage, draw, "merge", "unmerge")
    for got in (merged, back):
        tracked = not got["leaf"]
        require(not tracked, "base.weight carries a gradient graph", "merge-tracks-gradients")
        require(got["same"], "base.weight is another object afterwards", "merge-new-parameter")
    require(not merged["grad"], "base.weight is no longer frozen after merge()")
    lost = "lora_A or lora_B is another object after unmerge(): an optimizer would lose it"
    require(back["factors"], lost)


@part("merge")
def test_merging_twice_changes_nothing(stage, draw):
    """A second merge() changes nothing."""
    (first, second), _, (plain, folded) = _merged(stage, draw, "merge", "merge")
    near(
        second["weight"],
        first["weight"].double(),
        what="base.weight after a second merge()",
        unless={"merge-not-idempotent": first["weight"].double() + folded - plain},
        bug="merge-not-idempotent",
    )
    require(second["merged"], "`merged` should still be true after a second merge()")


@part("merge")
def test_unmerge_takes_the_update_out(stage, draw):
    """unmerge() restores weight and output; unmerging an unmerged layer changes nothing."""
    seen, (W, b, A, B, x), (plain, folded) = _merged(
        stage, draw, "unmerge", "merge", "unmerge", "unmerge", "merge", "unmerge"
    )
    base, update = oracle(x, W, b, A, B)
    less = plain - (folded - plain)
    known = {
        "an unmerge() of an unmerged layer": {"unmerge-not-idempotent": less},
        "merge() and unmerge()": {"unmerge-missing": folded},
        "a second unmerge()": {"unmerge-not-idempotent": less},
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
            bug = "merge-missing" if _like(got["weight"], plain) else None
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
    states = []
    for step in ("", "eval", "train", "merge", "train", "eval", "unmerge", "eval"):
        if step:
            getattr(layer, step)()
        states.append((bool(layer.merged), layer.base.weight.detach().clone()))
    layer.train()
    layer.merge()
    layer.unmerge()
    dropping = layer(x)
    layer.merge()
    return states, dropping, layer.eval()(x)


@part("merge")
def test_modes_do_not_merge(stage, draw):
    """train() and eval() neither merge nor unmerge; merging works in both modes."""
    W, b, A, B = pieces(draw)
    x = draw(5, IN)
    states, dropping, y = stage(modes, W, b, A, B, x)
    plain, folded = W.double(), W.double() + _delta(A, B)
    inside = (False, False, False, True, True, True, False, False)
    for place, ((merged, weight), want) in enumerate(zip(states, inside)):
        right, wrong = (folded, plain) if want else (plain, folded)
        by_mode = place not in (0, 3, 6)
        near(
            weight,
            right,
            what="base.weight after train(), eval(), merge() and unmerge()",
            unless={"eval-merges": wrong} if by_mode else {},
            rtol=2e-4,
        )
        if by_mode:
            require(merged == want, "`merged` changed with train() or eval()", "eval-merges")
        last = "merge()" if want else "unmerge()" if place else "__init__"
        require(merged == want, f"`merged` should be {want} after {last}")
    exact = sum(oracle(x, W, b, A, B))
    require(
        not _like(dropping, exact),
        "after merge() and unmerge() dropout stays off in training",
        _no_dropout_bug(stage, W, b, A, B, x, exact),
    )
    near(y, sum(oracle(x, W, b, A, B)), what="the output merged in eval mode", rtol=2e-4)


def _no_dropout_bug(stage, W, b, A, B, x, exact):
    """Dropout that never acts is another mistake than one that merge() switches off."""
    return "dropout-ignored" if _like(stage(dropped, W, b, A, B, x, 0.5, True), exact) else None


def remerge(kata, weight, bias, A, B, A2, B2, x):
    layer = make(kata, weight, bias, A, B)
    layer.merge()
    layer.unmerge()
    set_(layer, lora_A=A2, lora_B=B2)
    layer.merge()
    merged = layer.base.weight.detach().clone()
    layer.unmerge()
    return merged, layer.base.weight


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
    set_(layer.base, weight=weight2)
    layer.merge()
    layer.unmerge()
    return layer.base.weight


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
    )


@part("merge")
def test_base_stays_frozen_after_unmerge(stage, draw):
    """The base is still frozen after merge() and unmerge()."""
    W, b, A, B = pieces(draw)
    got = stage(after_backward, W, b, A, B, draw(5, IN), True)
    before = stage(after_backward, W, b, A, B, draw(5, IN), False)
    known = "base-not-frozen" if before["weight"] else "base-weight-trains-after-unmerge"
    _frozen(got, known)


@part("merge")
def test_training_goes_on_after_unmerge(stage, draw):
    """After unmerge() factors and input get the same gradients as before."""
    got, (base, branch, to_a, to_b), s = _gradients(stage, draw, "unmerged")
    for name, value, want in (("lora_A", got[1], to_a), ("lora_B", got[2], to_b)):
        require(value is not None, f"{name} gets no gradient after unmerge()")
        near(value, want, what=f"the gradient of {name} after unmerge()", unless=_scales(want, s))
    require(got[0] is not None, "no gradient reaches the input after unmerge()")
    near(got[0], base + branch, what="the gradient to the input after unmerge()", rtol=2e-4)


@part("merge")
def test_gradient_to_the_input_while_merged(stage, draw):
    """While merged the gradient still flows to the input."""
    got, (base, branch, _, _), _ = _gradients(stage, draw, "merged")
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
    return second(x)


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs."""
    W, b, A, B = pieces(draw)
    x = draw(5, IN)
    y = stage(round_trip, W, b, A, B, draw(OUT, IN), draw(OUT), x)
    near(y, sum(oracle(x, W, b, A, B)), what="the output after load_state_dict")


# dtype and device


def kinds(kata, weight, bias):
    layer = kata.LoRALinear(linear(weight, bias), rank=3)
    return str(layer.lora_A.dtype), str(layer.lora_B.dtype)


def in_dtype(kata, weight, bias, A, B, x):
    layer = make(kata, weight, bias, A, B, alpha=10.0)
    y = layer(x)
    (y * y).sum().backward()
    change, gradient = layer.delta_weight(), layer.lora_B.grad
    layer.merge()
    return y, change, layer.base.weight, gradient, layer(x)


def _dtype_slips(base, update, bias):
    known = slips(base, update, bias, 10 / 3)
    known["scale-is-alpha"] = base + update * 3
    known["scale-alpha-over-sqrt-rank"] = base + update * 3**0.5
    return known


def _dtype(stage, draw, dtype):
    W, b, A, B = pieces(draw, dtype)
    x = draw(5, IN, dtype=dtype)
    _factors_are(stage, W, b, dtype)
    y, change, weight, gradient, merged = stage(in_dtype, W, b, A, B, x)
    third = 10 / 3  # not exact in any dtype: a scale kept in a coarser one shows
    base, update = oracle(x, W, b, A, B, third)
    near(y, base + update, dtype=dtype, unless=_dtype_slips(base, update, b))
    near(change, _delta(A, B, third), what="delta_weight()", dtype=dtype)
    near(weight, W.double() + _delta(A, B, third), what="base.weight after merge()", dtype=dtype)
    near(merged, base + update, what="the output after merge()", dtype=dtype)
    require(gradient is not None, "lora_B gets no gradient", "factors-get-no-gradient")
    require(gradient.dtype == dtype, f"the gradient of lora_B is {gradient.dtype}, not {dtype}")


def _factors_are(stage, W, b, dtype):
    for name, kind in zip(("lora_A", "lora_B"), stage(kinds, W, b)):
        require(kind == str(dtype), f"{name} is {kind}, the base is {dtype}", "float32-factors")


@part("dtype")
def test_float64(stage, draw):
    """A float64 base gives float64 factors and outputs, exact to 1e-9."""
    _dtype(stage, draw, torch.float64)


@part("dtype")
def test_bfloat16(stage, draw):
    """A bfloat16 base gives bfloat16 factors and outputs."""
    _dtype(stage, draw, torch.bfloat16)


def train_dropout(kata, weight, bias, A, B, x):
    layer = make(kata, weight, bias, A, B, dropout=0.5)
    return layer(x)


@part("dtype")
def test_dropout_keeps_the_dtype(stage, draw):
    """In training with dropout the output has the base's dtype too."""
    for dtype in (torch.float64, torch.bfloat16):
        W, b, A, B = pieces(draw, dtype)
        _factors_are(stage, W, b, dtype)
        y = stage(train_dropout, W, b, A, B, draw(5, IN, dtype=dtype))
        require(y.dtype == dtype, f"the output in training is {y.dtype}, expected {dtype}")


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
    require(y.device.type == "meta", f"the output is on {y.device.type}, expected meta")
    require(tuple(y.shape) == (2, 5, 12), f"the output has shape {tuple(y.shape)}")
    require(dtype == torch.bfloat16, f"lora_A is {dtype}; the base is bfloat16", "float32-factors")


# errors


def bad_rank(kata, weight, rank):
    kata.LoRALinear(linear(weight), rank=rank)


def after_bad_rank(kata, weight, rank):
    base = linear(weight, weight[:, 0])
    try:
        kata.LoRALinear(base, rank=rank)
    except ValueError:
        return base.weight.requires_grad and base.bias.requires_grad, base.weight
    return base.weight.requires_grad and base.bias.requires_grad, base.weight


@part("errors")
def test_rank_below_one(stage, draw):
    """rank < 1 raises ValueError naming rank, before anything is changed."""
    W = draw(OUT, IN)
    for rank in (0, -1):
        rejects(
            stage.attempt(bad_rank, W, rank),
            "ValueError",
            "rank",
            what=f"rank={rank}",
            bug="rank-unchecked",
        )
        trains, weight = stage(after_bad_rank, W, rank)
        require(
            trains, "the base was frozen before ValueError was raised", "rank-checked-after-freeze"
        )
        same(weight, W, "the base's weight after the ValueError")


def bad_base(kata, which):
    made = {
        "conv": lambda: nn.Conv1d(6, 6, 1),
        "embedding": lambda: nn.Embedding(6, 6),
        "look-alike": look_alike,
    }[which]()
    kata.LoRALinear(made, rank=2)


def look_alike():
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(6, 6))
    module.bias = None
    module.in_features = module.out_features = 6
    return module


def heir(kata, weight, bias, x):
    class Heir(nn.Linear):
        pass

    base = Heir(weight.shape[1], weight.shape[0])
    set_(base, weight=weight, bias=bias)
    return kata.LoRALinear(base, rank=2)(x)


@part("errors")
def test_base_must_be_linear(stage, draw):
    """A base that is no nn.Linear raises TypeError naming base; a subclass of it is one."""
    for which in ("look-alike", "conv", "embedding"):
        rejects(
            stage.attempt(bad_base, which),
            "TypeError",
            "base",
            what=f"a base of type {which}",
            bug="base-type-unchecked",
        )
    W, b, *_ = pieces(draw)
    x = draw(5, IN)
    y = x.double() @ W.double().T + b
    near(stage(heir, W, b, x), y, what="the output with a subclass of nn.Linear as the base")


# cost


def merged_cost(kata, weight, bias, A, B, x):
    layer = make(kata, weight, bias, A, B).eval()
    layer.merge()
    with torch.no_grad():
        return count(lambda: layer(x)), count(lambda: nn.functional.linear(x, weight, bias))


@part("cost")
def test_merged_forward_is_the_base_matmul_alone(stage, draw):
    """While merged, forward does the base matmul and no other."""
    got, plain = stage(merged_cost, *pieces(draw), draw(40, IN))
    require(
        got["flops"] <= plain["flops"],
        f"a merged forward takes {got['flops']} FLOPs; the base matmul takes {plain['flops']}",
        "merged-runs-branch-anyway",
    )


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
    g = 2 * (base + update)
    s = ALPHA / RANK
    Wd, Ad, Bd, xd = (t.double() for t in (W, A, B, x))
    flat_g, flat_x = g.reshape(-1, OUT), xd.reshape(-1, IN)
    near(y, base + update, rtol=1e-3, atol=1e-3)
    near(gx, g @ (Wd + s * Bd @ Ad), what="the gradient to the input", rtol=1e-3, atol=1e-3)
    near(ga, s * (flat_g @ Bd).T @ flat_x, what="the gradient of lora_A", rtol=1e-3, atol=1e-3)
    near(gb, s * flat_g.T @ (flat_x @ Ad.T), what="the gradient of lora_B", rtol=1e-3, atol=1e-3)
    near(merged, base + update, what="the output after merge()", rtol=1e-3, atol=1e-3)
