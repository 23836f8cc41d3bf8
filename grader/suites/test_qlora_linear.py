"""What is checked of `qlora_linear`. Contract: QLoRA (Dettmers et al. 2023), section 3."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from grader.exam.checks import (
    LearnerRaised,
    blame,
    close,
    fail,
    near,
    part,
    rejects,
    require,
    same,
    tensor,
)
from grader.exam.kit import CheapMeta, linear, need, set_

# 180 values in blocks of 24: blocks run over the ends of rows, and the last one is short.
OUT, IN, RANK, ALPHA, SIZE = 10, 18, 3, 10.5, 24  # alpha / rank = 3.5

# Appendix E of the paper.
_BELOW = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453)
_BELOW += (-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0)
_ABOVE = (0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224)
_ABOVE += (0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)
LEVELS = torch.tensor(_BELOW + _ABOVE, dtype=torch.float64)
MIDDLES = (LEVELS[1:] + LEVELS[:-1]) / 2


def scaled(weight, size):
    """Each value over its block's absolute maximum, and that maximum: both (numel,) float64."""
    flat = weight.double().reshape(-1)
    n = flat.numel()
    top = F.pad(flat, (0, -n % size)).view(-1, size).abs().amax(1)
    top = top.repeat_interleave(size)[:n]
    return flat / top, top


def quantized(weight, size=SIZE):
    """The weight as it is after quantizing and decoding, float64."""
    values, top = scaled(weight, size)
    return (LEVELS[torch.bucketize(values, MIDDLES)] * top).reshape(weight.shape)


def pieces(draw, dtype=torch.float32, out=OUT, into=IN, rank=RANK, sizes=(SIZE,)):
    """weight, bias, A, B. No weight lies so close between two levels that rounding decides."""
    weight = draw(out, into, std=0.5, dtype=dtype)
    for size in sizes:
        values, _ = scaled(weight, size)
        between = ((values[:, None] - MIDDLES).abs() < 1e-5).any(1)
        weight[between.view(out, into)] = 0
    bias = draw(out, std=2.0, dtype=dtype)
    A, B = draw(rank, into, std=0.15, dtype=dtype), draw(out, rank, std=0.15, dtype=dtype)
    return weight, bias, A, B


def make(kata, weight, bias, A, B, alpha=ALPHA, size=SIZE):
    layer = kata.QLoRALinear(linear(weight, bias), rank=A.shape[0], alpha=alpha, block_size=size)
    set_(layer, lora_A=A, lora_B=B)
    return layer


def oracle(x, weight, bias, A, B, scale=ALPHA / RANK, size=SIZE):
    """base, update: both float64. The base is that of the quantized weight."""
    x, A, B = x.double(), A.double(), B.double()
    base = x @ quantized(weight, size).T
    return base if bias is None else base + bias.double(), scale * (x @ A.T @ B.T)


def slips(x, weight, bias, A, B, scale=ALPHA / RANK, size=SIZE):
    """What known mistakes make of the output."""
    base, update = oracle(x, weight, bias, A, B, scale, size)
    known = {
        "weight-not-quantized": base + update + x.double() @ (weight - quantized(weight, size)).T,
        "scale-missing": base + update / scale,
        "scale-is-alpha": base + update * RANK,
        "scale-inverted": base + update / scale**2,
        "scale-alpha-over-sqrt-rank": base + update * RANK**0.5,
        "scale-twice": base + update * scale,
        "base-dropped": update,
        "update-subtracted": base - update,
        "update-missing": base,
    }
    if size != 64:
        known["block-size-ignored"] = sum(oracle(x, weight, bias, A, B, scale, 64))
    if weight.shape[0] != weight.shape[1]:
        turned = quantized(weight, size).reshape(weight.shape[::-1]).T
        known["weight-decoded-transposed"] = (
            base + update + x.double() @ (turned - quantized(weight, size)).T
        )
    if bias is not None:
        known["bias-dropped"] = base - bias.double() + update
        known["bias-twice"] = base + bias.double() + update
    return known


# shape


def run(kata, weight, bias, A, B, x, alpha=ALPHA, size=SIZE):
    return make(kata, weight, bias, A, B, alpha, size)(x)


def _right(stage, values, x, bug=None, size=SIZE):
    """The output for x; `bug` if it raises or comes in another shape."""
    with blame(bug):
        y = stage(run, *values, x, ALPHA, size)
    want = sum(oracle(x, *values, size=size))
    fits = tuple(getattr(y, "shape", ())) == want.shape
    near(
        y,
        want,
        what=f"the output for x {tuple(x.shape)}",
        unless=slips(x, *values, size=size),
        bug=None if fits else bug,
    )


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """Inputs are (..., in_features): two, three and four dimensions, batches of one too."""
    values = pieces(draw)
    _right(stage, values, draw(5, IN))
    for lead in [(2, 7), (2, 3, 4), (1, 1), (1,)]:
        _right(stage, values, draw(*lead, IN), "flattens-leading-dims")


@part("shape")
def test_single_vector(stage, draw):
    """A single vector (in_features,) gives (out_features,)."""
    values = pieces(draw)
    _right(stage, values, draw(5, IN))
    _right(stage, values, draw(IN), "one-d-input-fails")


def run_strided(kata, weight, bias, A, B, x):
    layer = make(kata, weight, bias, A, B)
    return layer(x.transpose(0, 1)), layer(x[:, ::2])


@part("shape")
def test_non_contiguous_input(stage, draw):
    """Inputs need not be contiguous."""
    values = pieces(draw)
    x = draw(4, 6, IN)
    turned, skipped = stage(run_strided, *values, x)
    for y, v in ((turned, x.transpose(0, 1)), (skipped, x[:, ::2])):
        near(y, sum(oracle(v, *values)), unless=slips(v, *values))


@part("shape")
def test_any_layer_size(stage, draw):
    """Layers of odd sizes, wide, tall and square, with blocks larger than the weight too."""
    for out, into, size in ((7, 9, 16), (5, 21, 7), (24, 6, 32), (16, 16, 8), (4, 6, 64)):
        values = pieces(draw, out=out, into=into, sizes=(size,))
        _right(stage, values, draw(3, into), None, size)


def factor_shapes(kata, weight, bias):
    layer = kata.QLoRALinear(linear(weight, bias), rank=3, alpha=10.5)
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
    """A rank of 1 is legal."""
    _right(stage, pieces(draw), draw(5, IN))
    values, x = pieces(draw, rank=1), draw(5, IN)
    with blame("rank-one-refused", "rank"):
        y = stage(run, *values, x)
    near(y, sum(oracle(x, *values, scale=ALPHA)), what="the output at rank 1")


@part("shape")
def test_large_rank(stage, draw):
    """A rank above out_features, or above both sizes, is legal."""
    for rank in (OUT + 2, IN + 2):
        values, x = pieces(draw, rank=rank), draw(5, IN)
        y = stage(run, *values, x)
        near(y, sum(oracle(x, *values, scale=ALPHA / rank)), what=f"the output at rank {rank}")


# init


def start(kata, weight, bias, x):
    return kata.QLoRALinear(linear(weight, bias), rank=4, alpha=6.0, block_size=24)(x)


@part("init")
def test_starts_as_the_quantized_base(stage, draw):
    """At the start the layer computes what the quantized base does."""
    W, b, *_ = pieces(draw)
    x = draw(5, IN)
    y = stage(start, W, b, x)
    base = x.double() @ quantized(W).T + b.double()
    unless = {"base-dropped": torch.zeros_like(base), "bias-dropped": base - b}
    unless |= {"bias-twice": base + b, "weight-not-quantized": x.double() @ W.double().T + b}
    near(y, base, what="the output at the start", unless=unless)


def stored(kata, weight, bias, *args):
    layer = kata.QLoRALinear(linear(weight, bias), 3, 10.5, *args)
    return need(layer, "codes"), need(layer, "absmax")


@part("init")
def test_codes_and_absmax(stage, draw):
    """codes and absmax are those of quantize_nf4(base.weight, block_size), 64 by default."""
    W, b, *_ = pieces(draw, sizes=(SIZE, 64))
    n = OUT * IN
    for size, args in ((SIZE, (SIZE,)), (64, ())):
        codes, absmax = stage(stored, W, b, *args)
        codes, absmax = tensor(codes, "codes"), tensor(absmax, "absmax")
        given = f"block_size={size}" if args else "the default block_size"
        blocks = math.ceil(n / size)
        shape = tuple(absmax.shape)
        bug = "block-size-ignored" if args and shape == (math.ceil(n / 64),) else None
        require(shape == (blocks,), f"absmax has shape {shape} with {given}, not ({blocks},)", bug)
        require(
            tuple(codes.shape) == (math.ceil(n / 2),),
            f"codes has shape {tuple(codes.shape)}, expected ({math.ceil(n / 2)},)",
        )
        require(codes.dtype == torch.uint8, f"codes are {codes.dtype}, expected uint8")
        require(absmax.dtype == torch.float32, f"absmax is {absmax.dtype}, expected float32")
        pairs = torch.stack([codes >> 4, codes & 15], 1).flatten()[:n].long()
        got = LEVELS[pairs] * absmax.double().repeat_interleave(size)[:n]
        near(
            got.view(OUT, IN),
            quantized(W, size),
            what=f"the weight that codes and absmax stand for, with {given}",
            rtol=1e-5,
            unless={"weight-decoded-transposed": quantized(W.T.contiguous(), size).view(OUT, IN)},
        )


def fresh_factors(kata, weight, bias, rank):
    first = kata.QLoRALinear(linear(weight, bias), rank=rank)
    second = kata.QLoRALinear(linear(weight, bias), rank=rank)
    return first.lora_A, first.lora_B, second.lora_A


@part("init")
def test_b_starts_at_zero(stage, draw):
    """lora_B starts at exactly zero."""
    _, B, _ = stage(fresh_factors, draw(40, 64), None, 8)
    require(bool((B == 0).all()), f"lora_B should start at zero; its std is {_std(B)}", "b-random")


@part("init")
def test_a_starts_random(stage, draw):
    """lora_A starts random: 0 < std < 1.5, full row rank, not the same every time."""
    A, _, other = stage(fresh_factors, draw(40, 64), None, 8)
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
    layer = kata.QLoRALinear(linear(weight, bias))
    by_place = kata.QLoRALinear(linear(weight, bias), 4, 10.0, 32)
    wide = kata.QLoRALinear(linear(weight, bias), rank=8, alpha=2.0)
    return {
        "rank": layer.lora_A.shape[0],
        "scale": float(need(layer, "scale")),
        "placed": (by_place.lora_A.shape[0], float(by_place.scale)),
        "wide": float(wide.scale),
    }


@part("init")
def test_defaults_and_attributes(stage, draw):
    """rank 8, alpha 16, scale = alpha / rank; arguments by place or by name."""
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


# freeze


def after_backward(kata, weight, bias, A, B, x):
    base = linear(weight, bias)
    layer = kata.QLoRALinear(base, rank=A.shape[0], alpha=10.5, block_size=24)
    set_(layer, lora_A=A, lora_B=B)
    layer(x).square().sum().backward()
    ours = {id(layer.lora_A): "lora_A", id(layer.lora_B): "lora_B"}
    inside = {id(p) for p in layer.parameters()}
    others = {n: p for n, p in layer.named_parameters() if id(p) not in ours}
    return {
        "parameters": {n: (p.detach().clone(), p.requires_grad) for n, p in others.items()},
        "grads": [n for n, p in others.items() if p.grad is not None],
        "tracked": [n for n, t in layer.named_buffers() if t.requires_grad],
        "weight_grad": getattr(getattr(base, "weight", None), "grad", None) is not None,
        "bias_grad": getattr(getattr(base, "bias", None), "grad", None) is not None,
        "trains": [layer.lora_A.requires_grad, layer.lora_B.requires_grad],
        "registered": [id(layer.lora_A) in inside, id(layer.lora_B) in inside],
    }


@part("freeze")
def test_weight_is_no_parameter(stage, draw):
    """The base weight is no parameter, neither as it was nor as codes and absmax."""
    W, b, A, B = pieces(draw)
    got = stage(after_backward, W, b, A, B, draw(5, IN))
    for name, (value, _) in got["parameters"].items():
        require(
            value.numel() < W.numel(),
            f"`{name}`, {tuple(value.shape)}, is a parameter: the weight is to live in codes and "
            "absmax alone",
            _whose(value, W, SIZE),
        )
        last = name.rpartition(".")[2]
        require(last not in ("codes", "absmax"), f"`{name}` is a parameter, expected a buffer")
    require(not got["weight_grad"], "base.weight receives a gradient", "base-kept")


def _whose(value, weight, size):
    """What a tensor that is kept is, by its values."""
    if value.numel() != weight.numel():
        return None
    value, weight = value.double(), weight.double()
    for bug, known in (("base-kept", weight), ("decoded-weight-kept", quantized(weight, size))):
        for form in (known, known.T):
            if torch.allclose(value.reshape(-1), form.reshape(-1), 1e-2, 1e-3):
                return bug
    return None


@part("freeze")
def test_bias_is_frozen(stage, draw):
    """The bias, parameter or buffer, does not require and never receives a gradient."""
    W, b, A, B = pieces(draw)
    got = stage(after_backward, W, b, A, B, draw(5, IN))
    for name, (value, trains) in got["parameters"].items():
        if value.shape == b.shape and torch.equal(value, b):
            require(not trains, f"the bias, `{name}`, is not frozen", "bias-trains")
            require(name not in got["grads"], f"the bias, `{name}`, receives a gradient")
    known = "bias-buffer-tracks-gradients" if got["bias_grad"] else None
    names = ", ".join(got["tracked"])
    require(not names, f"these buffers take part in the backward pass: {names}", known)
    require(not got["bias_grad"], "base.bias receives a gradient", "bias-buffer-tracks-gradients")


@part("freeze")
def test_only_the_factors_train(stage, draw):
    """lora_A and lora_B are registered parameters, and no other parameter trains."""
    W, b, A, B = pieces(draw)
    got = stage(after_backward, W, b, A, B, draw(5, IN))
    for name, trains, inside in zip(("lora_A", "lora_B"), got["trains"], got["registered"]):
        require(inside, f"{name} is not among parameters(): no optimizer will see it")
        require(trains, f"{name} does not train (requires_grad is False)")
    others = {n: value for n, (value, trains) in got["parameters"].items() if trains}
    small = [n for n, v in others.items() if v.numel() < W.numel() and not _is(v, b)]
    bug = "extra-trainable" if small else None
    require(not others, f"another parameter trains: {', '.join(small or others)}", bug)


def _is(value, other):
    return value.shape == other.shape and torch.equal(value, other)


# forward


@part("forward")
def test_adds_the_scaled_update_to_the_quantized_base(stage, draw):
    """forward(x) = F.linear(x, decoded weight, bias) + scale * x @ lora_A.T @ lora_B.T."""
    for out, into in ((OUT, IN), (18, 18)):
        values = pieces(draw, out=out, into=into)
        x = draw(3, 4, into)
        y = stage(run, *values, x)
        near(y, sum(oracle(x, *values)), unless=slips(x, *values))


@part("forward")
def test_without_a_bias(stage, draw):
    """A base without bias works."""
    W, _, A, B = pieces(draw)
    x = draw(5, IN)
    y = stage(run, W, None, A, B, x)
    unless = slips(x, W, None, A, B)
    near(y, sum(oracle(x, W, None, A, B)), what="the output without bias", unless=unless)


@part("forward")
def test_alpha_below_rank(stage, draw):
    """Also where alpha is smaller than rank."""
    values = pieces(draw)
    x = draw(5, IN)
    want = sum(oracle(x, *values, 2.0 / RANK))
    near(stage(run, *values, x, 2.0), want, what="the output with rank 3, alpha 2")


def keeps_input(kata, weight, bias, A, B, x, train):
    make(kata, weight, bias, A, B).train(train)(x)
    return x


@part("forward")
def test_input_unchanged(stage, draw):
    """The input is not changed in place."""
    values = pieces(draw)
    x = draw(5, IN)
    for train in (True, False):
        same(stage(keeps_input, *values, x, train), x, "the input", "changes-input-in-place")


def live(kata, weight, bias, A, B, other, A2, B2, x, mode):
    layer = getattr(make(kata, weight, bias, A, B), mode)()
    codes, absmax = make(kata, other, bias, A, B).codes, make(kata, other, bias, A, B).absmax
    start = layer(x)
    again = layer(x)
    set_(layer, lora_A=A2, lora_B=B2)
    first = layer(x)
    set_(layer, codes=codes, absmax=absmax)
    return start, again, first, layer(x)


@part("forward")
def test_follows_its_parameters_and_buffers(stage, draw):
    """Each forward uses the values that factors, codes and absmax have now, in either mode."""
    W, b, A, B = pieces(draw)
    W2, _, A2, B2 = pieces(draw)
    x = draw(5, IN)
    for mode in ("train", "eval"):
        start, again, first, second = stage(live, W, b, A, B, W2, A2, B2, x, mode)
        stale = oracle(x, W, b, A, B)
        for y, what in ((start, "the output"), (again, "the output of a second call")):
            known = slips(x, W, b, A, B)
            if mode == "eval":  # training has just been right
                known["eval-disables-adapter"] = known.pop("update-missing")
            near(y, sum(stale), what=f"{what} ({mode} mode)", unless=known)
        for y, weight in ((first, W), (second, W2)):
            base, update = oracle(x, weight, b, A2, B2)
            known = slips(x, weight, b, A2, B2)
            known["update-kept"] = base + stale[1]
            if weight is W2:
                known["decoded-weight-kept"] = stale[0] + update
            near(
                y,
                base + update,
                what=f"the output after {_what(weight is W2)} changed ({mode} mode)",
                unless=known,
            )


def _what(buffers):
    return "codes and absmax" if buffers else "the factors"


# gradient


def gradients(kata, weight, bias, A, B, x, g, mode):
    layer = getattr(make(kata, weight, bias, A, B), mode)()
    x = x.clone().requires_grad_()
    y = layer(x)
    if y.requires_grad:
        (y * g).sum().backward()  # y.backward(g) would import sympy
    frozen = not (layer.lora_A.requires_grad and layer.lora_B.requires_grad)
    return x.grad, layer.lora_A.grad, layer.lora_B.grad, frozen


def _gradients(stage, draw, mode):
    W, b, A, B = pieces(draw)
    x, g = draw(2, 3, IN), draw(2, 3, OUT)
    got = stage(gradients, W, b, A, B, x, g, mode)
    s = ALPHA / RANK
    gd, xd, Ad, Bd = (t.double() for t in (g, x, A, B))
    flat_g, flat_x = gd.reshape(-1, OUT), xd.reshape(-1, IN)
    through = {
        "base": gd @ quantized(W),
        "plain": gd @ W.double(),
        "branch": s * gd @ Bd @ Ad,
    }
    to_a = s * (flat_g @ Bd).T @ flat_x
    to_b = s * flat_g.T @ (flat_x @ Ad.T)
    return got, through, to_a, to_b


def _scales(value, s=ALPHA / RANK):
    return {
        "scale-missing": value / s,
        "scale-is-alpha": value * RANK,
        "scale-inverted": value / s**2,
        "scale-twice": value * s,
        "scale-alpha-over-sqrt-rank": value * RANK**0.5,
    }


@part("gradient")
def test_gradients_of_the_factors(stage, draw):
    """lora_A and lora_B get the exact gradients, in training and in eval mode."""
    for mode in ("train", "eval"):
        (_, a, b, frozen), _, to_a, to_b = _gradients(stage, draw, mode)
        for name, got, want in (("lora_A", a, to_a), ("lora_B", b, to_b)):
            off = "factors-get-no-gradient" if mode == "train" and not frozen else None
            require(got is not None, f"{name} gets no gradient ({mode} mode)", off)
            near(got, want, what=f"the gradient of {name}", unless=_scales(want))


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to x, through the decoded weight and through the branch."""
    for mode in ("train", "eval"):
        (x, *_), through, _, _ = _gradients(stage, draw, mode)
        base, branch = through["base"], through["branch"]
        require(x is not None, "no gradient reaches the input", "input-gradient-cut")
        known = {k: base + v for k, v in _scales(branch).items()}
        cut = "branch-input-detached" if mode == "train" else "eval-disables-adapter"
        known |= {"input-gradient-cut": branch, cut: base}
        known |= {"weight-not-quantized": through["plain"] + branch}
        near(x, base + branch, what="the gradient to the input", unless=known)


def first_gradient(kata, weight, bias, A, x, g):
    layer = kata.QLoRALinear(linear(weight, bias), rank=A.shape[0], alpha=10.5)
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
    near(got, want, what="the first gradient of lora_B", unless=_scales(want))


# merge


def merging(kata, weight, bias, A, B, A2, B2, x):
    layer = make(kata, weight, bias, A, B)
    born = bare(layer, x)
    merged = layer.merge()
    seen = plain(merged, x)
    kept = bare(layer, x)
    set_(layer, lora_A=A2, lora_B=B2)
    again = plain(layer.merge(), x)
    return seen, again, born, kept, layer is merged


def plain(merged, x):
    """What is there of a merged layer, and its output."""
    linear_like = isinstance(merged, nn.Linear)
    return {
        "linear": linear_like,
        "type": type(merged).__name__,
        "names": list(merged.state_dict()) if isinstance(merged, nn.Module) else [],
        "weight": merged.weight.detach().clone() if linear_like else None,
        "bias": merged.bias if linear_like else None,
        "features": (merged.in_features, merged.out_features) if linear_like else None,
        "y": merged(x) if linear_like else None,
    }


def bare(layer, x):
    """The layer's state, which of its parameters train, its output and its mode, as of now."""
    held = {name: v for name, v in layer.state_dict().items() if isinstance(v, torch.Tensor)}
    state = {name: value.detach().clone() for name, value in held.items()}
    trains = sorted(n for n, p in layer.named_parameters() if p.requires_grad)
    return state, trains, layer(x.clone()).detach().clone(), layer.training


@part("merge")
def test_merge_gives_a_plain_layer(stage, draw):
    """merge() returns an nn.Linear of the decoded weight plus the update, with the bias."""
    for with_bias in (True, False):
        W, b, A, B = pieces(draw)
        _, _, A2, B2 = pieces(draw)
        b = b if with_bias else None
        x = draw(5, IN)
        first, second, _, _, itself = stage(merging, W, b, A, B, A2, B2, x)
        require(not itself, "merge() should return a new layer, not the layer itself")
        for got, a, m in ((first, A, B), (second, A2, B2)):
            kind = got["type"]
            require(got["linear"], f"merge() should return an nn.Linear, not a {kind}")
            want = ["bias", "weight"] if with_bias else ["weight"]
            names = sorted(got["names"])
            bug = "merge-bias-dropped" if names == ["weight"] else None
            require(names == want, f"the merged layer holds {names}, expected {want}", bug)
            sizes = f"the merged layer is {got['features']}, expected ({IN}, {OUT})"
            require(tuple(got["features"]) == (IN, OUT), sizes)
            base, update = quantized(W), ALPHA / RANK * (m.double() @ a.double())
            scale = ALPHA / RANK
            near(
                got["weight"],
                base + update,
                what="the weight of the merged layer",
                unless={
                    "merge-takes-original-weight": W.double() + update,
                    "merge-scale-missing": base + update / scale,
                    "scale-is-alpha": base + update * RANK,
                    "scale-inverted": base + update / scale**2,
                    "merge-without-update": base,
                    "merge-without-base": update,
                    "merge-subtracts": base - update,
                    "update-kept": base + ALPHA / RANK * (B.double() @ A.double())
                    if m is B2
                    else update,
                    "merge-quantizes-again": quantized((base + update).float()),
                },
            )
            if with_bias:
                zero = bool((got["bias"] == 0).all())
                bug = "merge-bias-dropped" if zero else None
                near(got["bias"], b.double(), what="the bias of the merged layer", bug=bug)
            out = sum(oracle(x, W, b, a, m))
            near(got["y"], out, what="the output of the merged layer", rtol=2e-4)


@part("merge")
def test_merge_leaves_the_layer_alone(stage, draw):
    """merge() changes neither the layer's state nor its output, nor what trains."""
    W, b, A, B = pieces(draw)
    _, _, A2, B2 = pieces(draw)
    x = draw(5, IN)
    _, _, born, kept, _ = stage(merging, W, b, A, B, A2, B2, x)
    require(kept[0].keys() == born[0].keys(), "the state dict has other names after merge()")
    for name, value in born[0].items():
        same(kept[0][name], tensor(value), f"`{name}`, after merge(),", "merge-changes-layer")
    require(kept[1] == born[1], f"after merge() these parameters train: {', '.join(kept[1])}")
    right = close(born[2], sum(oracle(x, W, b, A, B)), 1e-3, 1e-3)
    known = "merge-changes-layer" if right else None
    near(kept[2], born[2].double(), what="the output after merge()", bug=known)
    require(kept[3] == born[3], "merge() changes the layer between train() and eval()")


# state


def state_names(kata, weight, bias):
    layer = kata.QLoRALinear(linear(weight, bias), rank=3)
    return list(layer.state_dict())


@part("state")
def test_state_names(stage, draw):
    """codes, absmax, lora_A and lora_B are in the state dict under these names."""
    names = stage(state_names, draw(OUT, IN), draw(OUT))
    for name in ("lora_A", "lora_B", "codes", "absmax"):
        bug = "buffers-not-in-state" if name in ("codes", "absmax") else None
        there = f"`{name}` is not in the state dict; it holds: {', '.join(names)}"
        require(name in names, there, bug)


def round_trip(kata, weight, bias, A, B, weight2, bias2, x):
    first = make(kata, weight, bias, A, B)
    second = kata.QLoRALinear(linear(weight2, bias2), rank=A.shape[0], alpha=10.5, block_size=24)
    second(x)
    second.load_state_dict(first.state_dict())
    return second(x), first(x)


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs, the bias included."""
    W, b, A, B = pieces(draw)
    W2, b2, *_ = pieces(draw)
    x = draw(5, IN)
    y, first = stage(round_trip, W, b, A, B, W2, b2, x)
    base, update = oracle(x, W, b, A, B)
    other, _ = oracle(x, W2, b, A, B)
    unless = {
        "bias-not-in-state": base - b.double() + b2.double() + update,
        "decoded-weight-kept": other + update,
    }
    near(first, base + update, what="the output of the layer that was saved")
    near(y, base + update, what="the output after load_state_dict", unless=unless)


def state_of(kata, weight, bias):
    base = linear(weight, bias)
    full = sum(v.numel() * v.element_size() for v in base.state_dict().values())
    state = kata.QLoRALinear(base, rank=4).state_dict()
    sizes = {n: v.numel() * v.element_size() for n, v in state.items() if hasattr(v, "numel")}
    large = [n for n in sizes if state[n].numel() >= weight.numel()]
    return sum(sizes.values()) / full, {n: state[n] for n in large[:1]}


@part("state")
def test_state_is_small(stage, draw):
    """The state of a 256 x 256 layer at rank 4 takes less than 0.2 of the float32 base's bytes."""
    W, b, *_ = pieces(draw, out=256, into=256, sizes=(64,))
    share, large = stage(state_of, W, b)
    bug = None
    if large and (name := next(iter(large))):
        value = tensor(large[name])
        bug = _whose(value, W, 64) if value.is_floating_point() else None
    what = f"the state takes {share:.2f} of the base's bytes"
    require(share < 0.2, f"{what}{', with `' + name + '`' if large else ''}", bug)


def kept(kata, weight, bias, x):
    import gc
    import tracemalloc

    def floats():
        there = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
        there += [p.data for p in there if isinstance(p, nn.Parameter)]
        return [t for t in there if t.device.type != "meta" and t.is_floating_point()]

    def used(values):
        base = linear(values, bias)
        layer = kata.QLoRALinear(base, rank=4)
        for mode in (True, False):
            inside = x.clone().requires_grad_()
            (layer.train(mode)(inside) ** 2).sum().backward()
            with torch.no_grad():
                layer(x)
        layer.merge()
        return layer

    used(weight.flip(0))  # what is imported or made once is no part of a layer
    gc.collect()
    before = floats()
    known = {t.untyped_storage().data_ptr() for t in before}
    tracemalloc.start()
    layer = used(weight)
    gc.collect()
    traced = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    alive = {}
    for t in floats():
        storage = t.untyped_storage()
        if storage.data_ptr() not in known:
            alive[storage.data_ptr()] = (storage.nbytes(), t)
    largest = max(alive.values(), key=lambda item: item[0], default=(0, None))[1]
    return type(layer).__name__, sum(size for size, _ in alive.values()), traced, largest


@part("state")
def test_no_full_weight_is_kept(stage, draw):
    """Between calls neither the full-precision nor the decoded weight is kept anywhere."""
    W, b, *_ = pieces(draw, out=256, into=256, sizes=(64,))
    _, held, traced, largest = stage(kept, W, b, draw(3, 256))
    n = W.numel()  # factors, absmax, bias and gradients take a third of this many bytes
    bug = None
    if isinstance(largest, torch.Tensor):
        bug = _whose(largest, W, 64)
    text = f"between calls {held} bytes of floating-point tensors are kept for {n} weights"
    require(held < n, text, bug)
    require(traced < 1.5 * n, f"between calls {traced} bytes are kept outside of tensors")


# dtype


def kinds(kata, weight, bias):
    layer = kata.QLoRALinear(linear(weight, bias), rank=3)
    made = (layer.lora_A, layer.lora_B, need(layer, "codes"), need(layer, "absmax"))
    return [str(t.dtype).removeprefix("torch.") for t in made]


def in_dtype(kata, weight, bias, A, B, x):
    layer = make(kata, weight, bias, A, B, alpha=10.0)
    x = x.clone().requires_grad_()
    y = layer(x)
    (y * y).sum().backward()
    return y, layer.lora_B.grad, x.grad


def merged_in_dtype(kata, weight, bias, A, B, x):
    merged = make(kata, weight, bias, A, B, alpha=10.0).merge()
    same_dtype = merged.weight.dtype == x.dtype
    return merged.weight, merged.bias, merged(x) if same_dtype else None


def _dtype(stage, draw, dtype, **tolerance):
    W, b, A, B = pieces(draw, dtype)
    x = draw(5, IN, dtype=dtype)
    name = str(dtype).removeprefix("torch.")
    made = stage(kinds, W, b)
    for what, kind in zip(("lora_A", "lora_B"), made):
        require(kind == name, f"{what} is {kind}, the base is {name}", "float32-factors")
    require(made[2] == "uint8", f"codes of a {name} layer are {made[2]}, expected uint8")
    require(made[3] == "float32", f"absmax of a {name} layer is {made[3]}, expected float32")
    third = 10 / 3
    with blame("decoded-in-float32", "dtype", "scalar type", "same type"):
        y, grad, grad_x = stage(in_dtype, W, b, A, B, x)
    near(y, sum(oracle(x, W, b, A, B, third)), dtype=dtype, **tolerance)
    g = 2 * sum(oracle(x, W, b, A, B, third))
    require(grad is not None, "lora_B gets no gradient", "factors-get-no-gradient")
    to_b = third * g.T @ (x.double() @ A.double().T)
    near(grad, to_b, what="the gradient of lora_B", dtype=dtype, **tolerance)
    require(grad_x is not None, "no gradient reaches the input", "input-gradient-cut")
    to_x = g @ (quantized(W) + third * (B.double() @ A.double()))
    near(grad_x, to_x, what="the gradient to the input", dtype=dtype, **tolerance)
    weight, bias, out = stage(merged_in_dtype, W, b, A, B, x)
    want = quantized(W) + third * (B.double() @ A.double())
    weight = tensor(weight, "the weight of the merged layer")
    text = f"the weight of the merged layer is {weight.dtype}, the base was {dtype}"
    bug = "merge-in-float32" if weight.dtype == torch.float32 else None
    require(weight.dtype == dtype, text, bug)
    near(weight, want, what="the weight of the merged layer", **tolerance)
    near(bias, b.double(), what="the bias of the merged layer", dtype=dtype)
    near(out, x.double() @ want.T + b.double(), what="the merged output", dtype=dtype, **tolerance)


@part("dtype")
def test_float64(stage, draw):
    """A float64 base gives float64 factors, outputs and merged layers, exact to 1e-6."""
    _dtype(stage, draw, torch.float64, rtol=1e-6, atol=1e-6)


@part("dtype")
def test_bfloat16(stage, draw):
    """A bfloat16 base gives bfloat16 factors, outputs and merged layers; absmax is float32."""
    _dtype(stage, draw, torch.bfloat16)


# device


def on_meta(kata):
    base = nn.Linear(18, 12, device="meta", dtype=torch.bfloat16)
    x = torch.empty(2, 5, 18, device="meta", dtype=torch.bfloat16)
    with CheapMeta():
        layer = kata.QLoRALinear(base, rank=3)
        made = [need(layer, n) for n in ("lora_A", "lora_B", "codes", "absmax")]
        devices = [t.device.type for t in made]
        together = all(device == "meta" for device in devices)
        merged = layer.merge().weight.device.type if together else None
        return devices, layer.lora_A.dtype, layer(x) if together else None, merged


@part("device")
def test_meta_device(stage):
    """A base on the meta device gives factors, codes, absmax, outputs and merged layers there."""
    try:
        devices, dtype, y, merged = stage(on_meta)
    except LearnerRaised as error:  # torch raises NotImplementedError where meta has no values
        if "meta tensor" in error.text:
            fail(f"A value of a meta tensor was asked for: {error.text}")
        raise
    for name, device in zip(("lora_A", "lora_B"), devices):
        where = f"{name} is on {device}; the base is on meta"
        require(device == "meta", where, "cpu-factors")
    for name, device in zip(("codes", "absmax"), devices[2:]):
        require(device == "meta", f"{name}: on {device}; the base is on meta")
    y = tensor(y)
    require(y.device.type == "meta", f"the output is on {y.device.type}, expected meta")
    require(tuple(y.shape) == (2, 5, 12), f"the output has shape {tuple(y.shape)}")
    require(dtype == torch.bfloat16, f"lora_A is {dtype}; the base is bfloat16", "float32-factors")
    require(merged == "meta", f"the merged layer is on {merged}; the base is on meta")


# errors


def bad_rank(kata, weight, rank):
    kata.QLoRALinear(linear(weight), rank=rank)


def after_bad_rank(kata, weight, rank):
    base = linear(weight, weight[:, 0])
    try:
        kata.QLoRALinear(base, rank=rank)
    except ValueError:
        return base.weight.requires_grad and base.bias.requires_grad, base.weight
    return base.weight.requires_grad and base.bias.requires_grad, base.weight


@part("errors")
def test_rank_below_one(stage, draw):
    """rank < 1 raises ValueError naming rank, before anything is changed."""
    W = draw(OUT, IN)
    for rank in (0, -1):
        outcome = stage.attempt(bad_rank, W, rank)
        bug = "rank-unchecked"
        rejects(outcome, "ValueError", "rank", what=f"rank={rank}", bug=bug)
        trains, weight = stage(after_bad_rank, W, rank)
        text = "the base was frozen before ValueError was raised"
        require(trains, text, "rank-checked-after-freeze")
        same(weight, W, "the base's weight after the ValueError")


def bad_base(kata, which):
    made = {
        "Conv1d": lambda: nn.Conv1d(6, 6, 1),
        "Embedding": lambda: nn.Embedding(6, 6),
        "look-alike": look_alike,
    }[which]()
    kata.QLoRALinear(made, rank=2)


def subclassed(kata):
    class Named(nn.Linear):
        pass

    return kata.QLoRALinear(Named(18, 6), rank=2)(torch.ones(3, 18))


def look_alike():
    module = nn.Module()
    module.weight = nn.Parameter(torch.ones(6, 6))
    module.bias = None
    module.in_features = module.out_features = 6
    return module


@part("errors")
def test_base_must_be_linear(stage):
    """A base that is no nn.Linear raises TypeError naming base."""
    for which in ("look-alike", "Conv1d", "Embedding"):
        outcome = stage.attempt(bad_base, which)
        bug = "base-type-unchecked"
        rejects(outcome, "TypeError", "base", what=f"a base of type {which}", bug=bug)
    shape = tuple(tensor(stage(subclassed)).shape)
    require(shape == (3, 6), f"with a subclass of nn.Linear the output has shape {shape}")


# gpu


def places(kata, weight, bias, device):
    layer = kata.QLoRALinear(linear(weight, bias).to(device), rank=3)
    made = (layer.lora_A, layer.lora_B, need(layer, "codes"), need(layer, "absmax"))
    return [t.device.type for t in made]


def on_device(kata, weight, bias, A, B, x, device):
    weight, bias, A, B, x = (t.to(device) for t in (weight, bias, A, B, x))
    layer = make(kata, weight, bias, A, B)
    x = x.requires_grad_()
    y = layer(x)
    (y * y).sum().backward()
    merged = layer.merge()
    return y, x.grad, layer.lora_A.grad, layer.lora_B.grad, merged.weight.device.type, merged(x)


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU, and nothing stays behind."""
    W, b, A, B = pieces(draw)
    x = draw(4, 5, IN)
    made = stage(places, W, b, stage.device)
    for name, place in zip(("lora_A", "lora_B", "codes", "absmax"), made):
        where = f"{name}: on {place}; the base is on {stage.device}"
        require(place == stage.device, where, "cpu-factors" if name.startswith("lora") else None)
    y, gx, ga, gb, place, merged = stage(on_device, W, b, A, B, x, stage.device)
    base, update = oracle(x, W, b, A, B)
    g = 2 * (base + update)
    s = ALPHA / RANK
    Ad, Bd, xd = (t.double() for t in (A, B, x))
    flat_g, flat_x = g.reshape(-1, OUT), xd.reshape(-1, IN)
    full = quantized(W) + s * Bd @ Ad
    near(y, base + update, rtol=1e-3, atol=1e-3)
    near(gx, g @ full, what="the gradient to the input", rtol=1e-3, atol=1e-3)
    near(ga, s * (flat_g @ Bd).T @ flat_x, what="the gradient of lora_A", rtol=1e-3, atol=1e-3)
    near(gb, s * flat_g.T @ (flat_x @ Ad.T), what="the gradient of lora_B", rtol=1e-3, atol=1e-3)
    where = f"the merged layer is on {place}; the base is on {stage.device}"
    require(place == stage.device, where)
    near(merged, base + update, what="the output of the merged layer", rtol=1e-3, atol=1e-3)
