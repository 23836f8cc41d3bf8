"""What is checked of `qlora_linear`. Contract: QLoRA (Dettmers et al. 2023), section 3."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from grader.exam.checks import (
    LearnerRaised,
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
    return flat / top.clamp(min=1e-300), top


def quantized(weight, size=SIZE):
    """The weight as it is after quantizing and decoding, float64."""
    values, top = scaled(weight, size)
    return (LEVELS[torch.bucketize(values, MIDDLES)] * top).reshape(weight.shape)


def _in_64(weight, size):
    """The weight quantized in blocks of `size` and decoded as if they were of 64."""
    values, top = scaled(weight, size)
    tops = top[::size].repeat_interleave(64)[: top.numel()]
    if tops.numel() < top.numel():  # that fails
        return weight.double() * float("nan")
    return (LEVELS[torch.bucketize(values, MIDDLES)] * tops).reshape(weight.shape)


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
    decoded = quantized(weight, size)
    known = {
        "weight-not-quantized": base + update + x.double() @ (weight - decoded).T,
        "scale-missing": base + update / scale,
        "scale-is-alpha": base + update * RANK,
        "scale-inverted": base + update / scale**2,
        "scale-alpha-over-sqrt-rank": base + update * RANK**0.5,
        "scale-twice": base + update * scale,
        "base-dropped": update,
        "update-subtracted": base - update,
        "update-missing": base,
        "scale-on-sum": scale * base + update,
    }
    if size != 64:
        known["block-size-ignored"] = sum(oracle(x, weight, bias, A, B, scale, 64))
        known["decoded-in-default-blocks"] = (
            base + update + x.double() @ (_in_64(weight, size) - decoded).T
        )
    if min(weight.shape) > 1:
        turned = decoded.reshape(weight.shape[::-1]).T
        known["weight-decoded-transposed"] = base + update + x.double() @ (turned - decoded).T
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
    for lead in [(2, 7), (2, 3, 4), (1, 1), (1,), (10, 10), (18, 18)]:
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
    _right(stage, values, x)
    with blame("contiguous-only", "view size is not compatible", "contiguous"):
        turned, skipped = stage(run_strided, *values, x)
    for y, v in ((turned, x.transpose(0, 1)), (skipped, x[:, ::2])):
        near(y, sum(oracle(v, *values)), unless=slips(v, *values))


def run_all(kata, cases):
    return [make(kata, *values, alpha, size)(x) for values, alpha, size, x in cases]


SIZES = ((7, 9, 16), (5, 21, 7), (24, 6, 32), (16, 16, 8), (4, 6, 64))
NARROW = ((6, 10, 4096), (1, 18, 4), (18, 1, 4), (1, 1, 64), (3, 18, 1), (18, 3, 5), (3, 3, 2))


@part("shape")
def test_any_layer_size(stage, draw):
    """Layers of odd sizes, wide, tall and square, with a single input or output too, as narrow
    as the rank, with blocks of one value or larger than the weight."""
    cases = []
    for out, into, size in SIZES + NARROW:
        values = pieces(draw, out=out, into=into, sizes=(size,))
        cases += [(values, ALPHA, size, draw(3, into)), (values, ALPHA, size, draw(into))]
    for (values, _, size, x), y in zip(cases, stage(run_all, cases), strict=True):
        shape = tuple(values[0].shape)
        plain = (*shape, size) in SIZES
        known = slips(x, *values, size=size) if plain else None
        what = f"the output of a layer {shape} with block_size={size} for x {tuple(x.shape)}"
        near(y, sum(oracle(x, *values, size=size)), what=what, unless=known)


@part("shape")
def test_a_block_of_zeros(stage, draw):
    """Blocks of zeros stay zeros."""
    W, b, A, B = pieces(draw)
    W[2:6] = 0
    x = draw(5, IN)
    y = stage(run, W, b, A, B, x)
    near(y, sum(oracle(x, W, b, A, B)), what="the output where rows of the weight are zero")


def factor_shapes(kata, weight, bias):
    layer = kata.QLoRALinear(linear(weight, bias), rank=3, alpha=10.5)
    return tuple(need(layer, "lora_A").shape), tuple(need(layer, "lora_B").shape)


@part("shape")
def test_factor_shapes(stage, draw):
    """lora_A is (rank, in_features), lora_B is (out_features, rank)."""
    W, b, *_ = pieces(draw)
    shapes = stage(factor_shapes, W, b)
    for name, shape, want in zip(("lora_A", "lora_B"), shapes, ((3, IN), (OUT, 3))):
        bug = "factor-transposed" if tuple(shape) == want[::-1] else None
        require(tuple(shape) == want, f"{name} has shape {tuple(shape)}, expected {want}", bug)


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
    _right(stage, pieces(draw), draw(5, IN))
    for rank in (OUT, OUT + 2, IN, IN + 2):
        values, x = pieces(draw, rank=rank), draw(5, IN)
        with blame("large-rank-refused", "rank"):
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
        require(codes.dtype == torch.uint8, f"codes are {_kind(codes)}, expected uint8")
        require(absmax.dtype == torch.float32, f"absmax is {_kind(absmax)}, expected float32")
        pairs = torch.stack([codes >> 4, codes & 15], 1).flatten()[:n].long()
        got = LEVELS[pairs] * absmax.double().repeat_interleave(size)[:n]
        near(
            got.view(OUT, IN),
            quantized(W, size),
            what=f"the weight that codes and absmax stand for, with {given}",
            dtype=torch.float64,
            rtol=1e-5,
            atol=1e-6,
            unless={"weight-decoded-transposed": quantized(W.T.contiguous(), size).view(OUT, IN)},
        )


def _kind(value):
    return str(value.dtype).removeprefix("torch.")


def fresh_factors(kata, weight, bias, rank):
    first = kata.QLoRALinear(linear(weight, bias), rank=rank)
    second = kata.QLoRALinear(linear(weight, bias), rank=rank)
    made = [need(layer, name) for layer in (first, second) for name in ("lora_A", "lora_B")]
    return *made[:3], len({t.untyped_storage().data_ptr() for t in made})


@part("init")
def test_b_starts_at_zero(stage, draw):
    """lora_B starts at exactly zero."""
    _, B, _, storages = stage(fresh_factors, draw(40, 64), None, 8)
    require(storages == 4, "two layers share a factor, or a layer's factors share storage")
    bug = "b-random" if tuple(tensor(B, "lora_B").shape) == (40, 8) else None
    near(B, torch.zeros(40, 8), what="lora_B at the start", rtol=0, atol=0, bug=bug)


@part("init")
def test_a_starts_random(stage, draw):
    """lora_A starts random: 0 < std < 1.5, full row rank, not the same every time."""
    A, _, other, _ = stage(fresh_factors, draw(40, 64), None, 8)
    A = tensor(A, "lora_A")
    text = f"lora_A should be (8, 64) of float32; it is {described(A)}"
    require(A.shape == (8, 64) and A.dtype == torch.float32, text)
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
    small = kata.QLoRALinear(linear(weight, bias), rank=4)
    return {
        "shapes": (tuple(layer.lora_A.shape), tuple(layer.lora_B.shape)),
        "scale": float(need(layer, "scale")),
        "placed": (tuple(by_place.lora_A.shape), float(by_place.scale)),
        "wide": float(wide.scale),
        "small": float(small.scale),
    }


@part("init")
def test_defaults_and_attributes(stage, draw):
    """rank 8, alpha 16, scale = alpha / rank; arguments by place or by name."""
    got = stage(defaults, draw(30, 20), None)
    for name, shape, want in zip(("lora_A", "lora_B"), got["shapes"], ((8, 20), (30, 8))):
        what = f"{name} of a layer 20 -> 30 with the default rank, 8,"
        require(tuple(shape) == want, f"{what} has shape {tuple(shape)}, expected {want}")
    shape = tuple(got["placed"][0])
    text = f"with 4 as second argument, the rank, lora_A has shape {shape}, expected (4, 20)"
    require(shape == (4, 20), text)
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
    near(got["small"], 4.0, what="scale with rank 4 and the default alpha")


# freeze


def after_backward(kata, weight, bias, A, B, x):
    base = linear(weight, bias)
    layer = kata.QLoRALinear(base, rank=A.shape[0], alpha=10.5, block_size=24)
    set_(layer, lora_A=A, lora_B=B)
    returned = [layer.train(), layer.eval(), layer.train()]
    y = layer(x)
    if y.requires_grad:
        y.square().sum().backward()
    ours = {id(layer.lora_A): "lora_A", id(layer.lora_B): "lora_B"}
    inside = {id(p) for p in layer.parameters()}
    others = {n: p for n, p in layer.named_parameters() if id(p) not in ours}
    stored = [id(need(layer, name)) for name in ("codes", "absmax")]
    return {
        "parameters": {n: (p.detach().clone(), p.requires_grad) for n, p in others.items()},
        "stored": [n for n, p in others.items() if id(p) in stored],
        "grads": [n for n, p in others.items() if p.grad is not None],
        "tracked": [n for n, t in layer.named_buffers() if t.requires_grad],
        "weight_grad": getattr(getattr(base, "weight", None), "grad", None) is not None,
        "bias_grad": getattr(getattr(base, "bias", None), "grad", None) is not None,
        "kinds": [isinstance(layer.lora_A, nn.Parameter), isinstance(layer.lora_B, nn.Parameter)],
        "trains": [layer.lora_A.requires_grad, layer.lora_B.requires_grad],
        "registered": [id(layer.lora_A) in inside, id(layer.lora_B) in inside],
        "returned": all(module is layer for module in returned),
    }


@part("freeze")
def test_weight_is_no_parameter(stage, draw):
    """The base weight is no parameter, neither as it was nor as codes and absmax."""
    W, b, A, B = pieces(draw)
    got = stage(after_backward, W, b, A, B, draw(5, IN))
    for name, (value, _) in got["parameters"].items():
        bug = _whose(value, W, SIZE)
        its = "the weight is to live in codes and absmax alone" if bug else "it is no factor"
        text = f"`{name}`, {tuple(value.shape)}, is a parameter as large as the weight: {its}"
        require(value.numel() < W.numel(), text, bug)
    names = ", ".join(got["stored"])
    require(not names, f"parameters, expected buffers: {names}", "codes-are-parameters")
    require(not got["weight_grad"], "base.weight receives a gradient", "base-kept")


def _whose(value, weight, size):
    """What a tensor that is kept is, by its values."""
    if value.numel() != weight.numel() or value.is_complex():
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
        if _is(value, b):
            require(not trains, f"the bias, `{name}`, is not frozen", "bias-trains")
            require(name not in got["grads"], f"the bias, `{name}`, receives a gradient")
    known = "bias-buffer-tracks-gradients" if got["bias_grad"] else None
    names = ", ".join(got["tracked"])
    require(not names, f"these buffers take part in the backward pass: {names}", known)
    require(not got["bias_grad"], "base.bias receives a gradient", "bias-buffer-tracks-gradients")


@part("freeze")
def test_only_the_factors_train(stage, draw):
    """lora_A and lora_B are registered parameters, and no other parameter trains. train() and
    eval() return the layer."""
    W, b, A, B = pieces(draw)
    got = stage(after_backward, W, b, A, B, draw(5, IN))
    factors = zip(("lora_A", "lora_B"), got["trains"], got["registered"], got["kinds"])
    for name, trains, inside, parameter in factors:
        bug = None if parameter else "factors-no-parameters"
        require(inside, f"{name} is not among parameters(): no optimizer will see it", bug)
        require(trains, f"{name} does not train (requires_grad is False)", "factors-frozen")
    others = {n: value for n, (value, trains) in got["parameters"].items() if trains}
    small = [n for n, v in others.items() if v.numel() < W.numel() and not _is(v, b)]
    bug = "extra-trainable" if small else None
    require(not others, f"another parameter trains: {', '.join(small or others)}", bug)
    require(got["returned"], "train() and eval() should return the layer")


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
    W, b, A, B = pieces(draw)
    _right(stage, (W, b, A, B), draw(5, IN))
    for shape in ((5, IN), (2, 3, IN), (IN,)):
        x = draw(*shape)
        with blame("bias-required", "NoneType"):
            y = stage(run, W, None, A, B, x)
        unless = slips(x, W, None, A, B)
        near(y, sum(oracle(x, W, None, A, B)), what="the output without bias", unless=unless)


@part("forward")
def test_any_alpha(stage, draw):
    """alpha is smaller than rank, negative, zero, or large."""
    values = pieces(draw)
    alphas = (2.0, 3.0, -7.5, 3e5, 0.0)
    x = draw(5, IN)
    outputs = stage(run_all, [(values, alpha, SIZE, x) for alpha in alphas])
    for alpha, y in zip(alphas, outputs, strict=True):
        want = sum(oracle(x, *values, alpha / RANK))
        near(y, want, what=f"the output with rank 3, alpha {alpha:g}")


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


STEPS = (
    "its parameters were set",
    "the factors changed",
    "codes and absmax changed",
    "lora_B.data changed",
)


def live(kata, values, x, g, train):
    """Outputs and gradients after each of STEPS, first under no_grad."""
    layer = make(kata, *values[0]).train(train)
    others = [make(kata, *now) for now in values]
    seen = []

    def look():
        with torch.no_grad():
            quiet = layer(x), layer(x)
            if torch.is_grad_enabled():
                raise Missing("A forward under no_grad() turns gradients on")
        inside = x.clone().requires_grad_()
        layer.lora_A.grad = layer.lora_B.grad = None
        y = layer(inside)
        if y.requires_grad:
            (y * g).sum().backward()  # y.backward(g) would import sympy
        factors = layer.lora_A.grad, layer.lora_B.grad
        seen.append((*quiet, y.detach().clone(), inside.grad, *factors))

    for step, now, other in zip(STEPS, values, others):
        if step == "the factors changed":
            set_(layer, lora_A=now[2], lora_B=now[3])
        elif step == "codes and absmax changed":
            set_(layer, codes=other.codes, absmax=other.absmax)
        elif step == "lora_B.data changed":
            layer.lora_B.data.copy_(now[3])
        look()
    return seen


def _live(stage, draw, train, lead):
    """x, g, and each step: its name, the values then, those before, the evidence."""
    (W, b, A, B), (W2, _, A2, B2) = pieces(draw), pieces(draw)
    values = [(W, b, A, B), (W, b, A2, B2), (W2, b, A2, B2), (W2, b, A2, B)]
    x, g = draw(*lead, IN), draw(*lead, OUT)
    got = stage(live, values, x, g, train)
    return x, g, list(zip(STEPS, values, [None, *values], got, strict=False))


@part("forward")
def test_follows_its_parameters_and_buffers(stage, draw):
    """Each forward uses the values that factors, codes and absmax have now, in either mode and
    under no_grad."""
    for train in (True, False):
        mode = "train" if train else "eval"
        x, _, steps = _live(stage, draw, train, (5,))
        for step, values, earlier, (quiet, again, y, *_) in steps:
            known = slips(x, *values) | _stale(x, values, earlier)
            if not train:  # training has just been right
                known["eval-disables-adapter"] = known.pop("update-missing")
            want = sum(oracle(x, *values))
            for out, how in ((quiet, ", no_grad"), (again, ", no_grad, second call"), (y, "")):
                what = f"the output after {step} ({mode} mode{how})"
                near(out, want, what=what, unless=known)


def _stale(x, values, earlier):
    """The output where the weight, or the update, is still that of the step before."""
    if earlier is None:
        return {}
    (W, b, A, B), (old, _, old_A, old_B) = values, earlier
    known = {}
    if old is not W:
        known["decoded-weight-kept"] = sum(oracle(x, old, b, A, B))
    if old_B is not B:
        known["update-kept"] = sum(oracle(x, W, b, old_A, old_B))
    return known


# gradient


def gradients(kata, cases):
    return [gradient(kata, *case) for case in cases]


def gradient(kata, weight, bias, A, B, x, g, train, x_trains):
    layer = make(kata, weight, bias, A, B).train(train)
    inside = x.clone().requires_grad_(x_trains)
    y = layer(inside)
    if y.requires_grad:
        (y * g).sum().backward()
    frozen = not (layer.lora_A.requires_grad and layer.lora_B.requires_grad)
    return inside.grad, layer.lora_A.grad, layer.lora_B.grad, frozen, inside


SHAPES = (
    (OUT, IN, RANK, (2, 3)),
    (OUT, IN, RANK, ()),
    (OUT, IN, RANK, (1,)),
    (IN, IN, RANK, (IN,)),
    (OUT, IN, OUT, (4, 4)),
    (OUT, IN, IN, (3,)),
    (6, 6, 6, (6, 6)),
    (1, IN, 1, (3,)),
    (OUT, 1, RANK, (3,)),
    (OUT, IN, RANK, (2, 2, 3)),
)


def _gradients(stage, draw, ways):
    """The cases, each a layer and how it runs, with the evidence of each: all SHAPES in the first
    of the ways, the first shape in all of them."""
    cases = []
    for out, into, rank, lead in SHAPES:
        W, b, A, B = pieces(draw, out=out, into=into, rank=rank)
        for with_bias, *way in ways if not cases else ways[:1]:
            b_or_none = b if with_bias else None
            cases.append((W, b_or_none, A, B, draw(*lead, into), draw(*lead, out), *way))
    return zip(cases, stage(gradients, cases), strict=True)


def _to_factors(x, g, A, B):
    """The gradients of lora_A and lora_B, float64."""
    g, x = g.double().reshape(-1, B.shape[0]), x.double().reshape(-1, A.shape[1])
    s = ALPHA / A.shape[0]
    return s * (g @ B.double()).T @ x, s * g.T @ (x @ A.double().T)


def _scales(value, s):
    return {"scale-missing": value / s, "scale-twice": value * s}


@part("gradient")
def test_gradients_of_the_factors(stage, draw):
    """lora_A and lora_B get the exact gradients, in training and in eval mode, also where x
    needs none."""
    ways = (True, True, True), (True, False, True), (True, True, False), (False, True, False)
    for (_, _, A, B, x, g, train, _), (_, a, b, frozen, _) in _gradients(stage, draw, ways):
        where = f"({'train' if train else 'eval'} mode, x {tuple(x.shape)})"
        for name, got, want in zip(("lora_A", "lora_B"), (a, b), _to_factors(x, g, A, B)):
            off = "factors-get-no-gradient" if train and not frozen else None
            require(got is not None, f"{name} gets no gradient {where}", off)
            known = _scales(want, ALPHA / A.shape[0])
            near(got, want, what=f"the gradient of {name} {where}", unless=known)


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to x, through the decoded weight and through the branch."""
    ways = (True, True, True), (True, False, True), (False, True, True)
    for (W, _, A, B, x, g, train, _), (got, *_, inside) in _gradients(stage, draw, ways):
        require(got is not None, "no gradient reaches the input", "input-gradient-cut")
        same(inside, x, "an input that requires a gradient", "changes-input-in-place")
        s, gd = ALPHA / A.shape[0], g.double()
        base, branch = gd @ quantized(W), s * gd @ B.double() @ A.double()
        known = {k: base + v for k, v in _scales(branch, s).items()}
        cut = "branch-input-detached" if train else "eval-disables-adapter"
        known |= {"input-gradient-cut": branch, cut: base}
        if min(W.shape) == 1:  # a few values may be such that a mistake does not show
            known = {}
        near(got, base + branch, what="the gradient to the input", unless=known)


@part("gradient")
def test_gradients_follow_parameters_and_buffers(stage, draw):
    """Each gradient is that of the values that factors, codes and absmax have now."""
    for train in (True, False):
        mode = "train" if train else "eval"
        x, g, steps = _live(stage, draw, train, (2, 3))
        for step, (W, _, A, B), _, (_, _, _, gx, a, b) in steps:
            where = f"after {step} ({mode} mode)"
            require(gx is not None, f"no gradient reaches the input {where}")
            to_x = g.double() @ (quantized(W) + ALPHA / RANK * B.double() @ A.double())
            near(gx, to_x, what=f"the gradient to the input {where}")
            for name, got, want in zip(("lora_A", "lora_B"), (a, b), _to_factors(x, g, A, B)):
                require(got is not None, f"{name} gets no gradient {where}")
                near(got, want, what=f"the gradient of {name} {where}")


def two_calls(kata, weight, bias, A, B, x, x2, g):
    layer = make(kata, weight, bias, A, B)
    x, x2 = x.clone().requires_grad_(), x2.clone().requires_grad_()
    y, y2 = layer(x), layer(x2)
    total = (y * g).sum() + (y2 * g).sum()
    if total.requires_grad:
        total.backward()
    return x.grad, x2.grad, layer.lora_A.grad, layer.lora_B.grad


@part("gradient")
def test_two_calls_in_one_graph(stage, draw):
    """A layer that is called twice before the backward pass gets the sum of both gradients."""
    W, b, A, B = pieces(draw)
    x, x2, g = draw(4, IN), draw(4, IN), draw(4, OUT)
    *to_x, a, b = stage(two_calls, W, b, A, B, x, x2, g)
    both = zip(_to_factors(x, g, A, B), _to_factors(x2, g, A, B), strict=True)
    for name, got, (first, second) in zip(("lora_A", "lora_B"), (a, b), both):
        require(got is not None, f"{name} gets no gradient")
        near(got, first + second, what=f"the gradient of {name} after two calls")
    for got in to_x:
        require(got is not None, "no gradient reaches the input")
        want = g.double() @ (quantized(W) + ALPHA / RANK * B.double() @ A.double())
        near(got, want, what="the gradient to the input of two calls")


def first_gradient(kata, weight, bias, A, x, g):
    base = linear(weight, bias).requires_grad_(False)
    layer = kata.QLoRALinear(base, rank=A.shape[0], alpha=10.5)
    if not layer.lora_A.requires_grad:
        raise Missing("lora_A does not train where the base was frozen beforehand")
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
    text = "lora_B gets no gradient at the start (the base was frozen beforehand)"
    require(got is not None, text)
    near(got, want, what="the first gradient of lora_B", unless=_scales(want, ALPHA / RANK))


# merge


def merging(kata, weight, bias, A, B, A2, B2, x, train):
    layer = make(kata, weight, bias, A, B).train(train)
    born = bare(layer, x)
    for p in (layer.lora_A, layer.lora_B):
        p.grad = torch.ones_like(p)
    with torch.set_grad_enabled(train):
        merged = layer.merge()
        if torch.is_grad_enabled() != train:
            raise Missing("merge() under no_grad() turns gradients on")
    grads = [p.grad for p in (layer.lora_A, layer.lora_B)]
    if any(grad is None or bool((grad != 1).any()) for grad in grads):
        raise Missing("merge() changes the gradients of lora_A and lora_B")
    held = [*layer.parameters(), *layer.buffers()]
    if isinstance(merged, nn.Linear) and merged is not layer:
        held += layer.merge().parameters()
        places = {t.untyped_storage().data_ptr() for t in held}
        if any(p.untyped_storage().data_ptr() in places for p in merged.parameters()):
            raise Missing("A merged layer shares storage with this layer or another merged one")
    seen = plain(merged, x)
    kept = bare(layer, x)
    set_(layer, lora_A=A2, lora_B=B2)
    return seen, plain(layer.merge(), x), born, kept, layer is merged


def plain(merged, x):
    """What is there of a merged layer, and its output."""
    linear_like = isinstance(merged, nn.Linear)
    return {
        "linear": linear_like,
        "type": type(merged).__name__,
        "names": list(merged.state_dict()) if isinstance(merged, nn.Module) else [],
        "weight": merged.weight.detach().clone() if linear_like else None,
        "bias": merged.bias if linear_like else None,
        "leaf": linear_like and all(p.is_leaf for p in merged.parameters()),
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
    _right(stage, pieces(draw), draw(5, IN))
    for out, into, rank in ((IN, IN, RANK), (OUT, IN, RANK), (IN, OUT, IN), (6, 6, 6), (OUT, 1, 1)):
        for with_bias in (True, False):
            W, b, A, B = pieces(draw, out=out, into=into, rank=rank)
            _, _, A2, B2 = pieces(draw, out=out, into=into, rank=rank)
            b, x = b if with_bias else None, draw(5, into)
            leaf = blame("merge-needs-no-grad", "leaf Variable")
            assigned = blame("merge-assigns-tensor", "cannot assign")
            with leaf, assigned, blame(None if with_bias else "merge-needs-bias", "NoneType"):
                first, second, _, _, itself = stage(merging, W, b, A, B, A2, B2, x, with_bias)
            known = "merge-returns-itself"
            require(not itself, "merge() should return a new layer, not the layer itself", known)
            for got, factors, old in ((first, (A, B), None), (second, (A2, B2), (A, B))):
                _merged(got, W, b, factors, old, x)
                drawn = with_bias and not torch.equal(first["bias"], second["bias"])
                zero = with_bias and bool((got["bias"] == 0).all())
                bug = "merge-bias-dropped" if zero or drawn else None
                if with_bias:
                    near(got["bias"], b.double(), what="the bias of the merged layer", bug=bug)
                out_ = sum(oracle(x, W, b, *factors, ALPHA / rank))
                near(got["y"], out_, what="the output of the merged layer", rtol=2e-4)


def _merged(got, W, b, factors, old, x):
    """What a merged layer holds, and its weight."""
    A, B = factors
    out, into = W.shape
    kind = got["type"]
    text = f"merge() should return an nn.Linear, not a {kind}"
    require(got["linear"], text, "merge-not-linear")
    names, want = sorted(got["names"]), ["weight"] if b is None else ["bias", "weight"]
    bug = "merge-bias-dropped" if names == ["weight"] else None
    if b is None and names == ["bias", "weight"]:
        bug = "merge-adds-bias"
    require(names == want, f"the merged layer holds {names}, expected {want}", bug)
    sizes = f"the merged layer is {tuple(got['features'])}, expected ({into}, {out})"
    require(tuple(got["features"]) == (into, out), sizes)
    require(got["leaf"], "the parameters of the merged layer carry a gradient graph")
    scale = ALPHA / A.shape[0]
    base, update = quantized(W), scale * (B.double() @ A.double())
    known = {}
    if min(W.shape) > 1:
        known = {
            "merge-takes-original-weight": W.double() + update,
            "merge-scale-missing": base + update / scale,
            "merge-without-update": base,
            "merge-without-base": update,
            "merge-subtracts": base - update,
            "merge-quantizes-again": quantized((base + update).float()),
        }
        if out == into:
            known["merge-update-transposed"] = base + update.T
        if old:
            known["update-kept"] = base + scale * (old[1].double() @ old[0].double())
    near(got["weight"], base + update, what="the weight of the merged layer", unless=known)


@part("merge")
def test_merge_leaves_the_layer_alone(stage, draw):
    """merge() changes neither the layer's state nor its output, nor what trains."""
    for train in (True, False):
        W, b, A, B = pieces(draw)
        _, _, A2, B2 = pieces(draw)
        x = draw(5, IN)
        _, _, born, kept, _ = stage(merging, W, b, A, B, A2, B2, x, train)
        known = "merge-changes-layer"
        require(kept[0].keys() == born[0].keys(), "the state dict has other names after merge()")
        for name, value in born[0].items():
            same(kept[0][name], tensor(value), f"`{name}`, after merge(),", known)
        now = ", ".join(kept[1]) or "none"
        text = f"after merge() other parameters train than before: {now}"
        require(kept[1] == born[1], text, known)
        right = close(born[2], sum(oracle(x, W, b, A, B)), 1e-3, 1e-3)
        bug = known if right else None
        near(kept[2], born[2].double(), what="the output after merge()", bug=bug)
        require(kept[3] == born[3], "merge() changes the layer between train() and eval()", known)


def both_train(kata, weight, bias, A, B, x, g):
    layer = make(kata, weight, bias, A, B)
    merged = layer.merge()
    merged.weight.requires_grad_(True)
    inside = x.clone().requires_grad_()
    (merged(inside) * g).sum().backward()
    got = {"grad": merged.weight.grad, "to_x": inside.grad}
    got["untouched"] = all(p.grad is None for p in layer.parameters())
    if merged.weight.grad is None:
        return got
    with torch.no_grad():
        merged.weight.sub_(0.1 * merged.weight.grad)
    got["trained"] = merged(x).detach().clone()
    got["layer"] = layer(x).detach().clone()
    (layer(x) * g).sum().backward()
    got["factors"] = layer.lora_A.grad, layer.lora_B.grad
    return got


@part("merge")
def test_both_train_after_merge(stage, draw):
    """The merged layer can be trained, and this layer goes on training, each for itself."""
    W, b, A, B = pieces(draw)
    x, g = draw(4, IN), draw(4, OUT)
    stage(merging, W, b, A, B, A, B, x, True)
    with blame("merge-cannot-train", "inference", "Inference"):
        got = stage(both_train, W, b, A, B, x, g)
    gd, xd = g.double(), x.double()
    full = quantized(W) + ALPHA / RANK * B.double() @ A.double()
    require(got["grad"] is not None, "the weight of the merged layer gets no gradient")
    near(got["grad"], gd.T @ xd, what="the gradient of the merged layer's weight")
    require(got["to_x"] is not None, "no gradient reaches the input of the merged layer")
    near(got["to_x"], gd @ full, what="the gradient to the merged layer's input")
    require(got["untouched"], "training the merged layer gives this one gradients")
    trained = xd @ (full - 0.1 * gd.T @ xd).T + b.double()
    near(got["trained"], trained, what="the merged layer's output after a step")
    want = sum(oracle(x, W, b, A, B))
    near(got["layer"], want, what="this layer's output after the merged one was trained")
    for name, value, want in zip(("lora_A", "lora_B"), got["factors"], _to_factors(x, g, A, B)):
        require(value is not None, f"{name} gets no gradient after merge()")
        near(value, want, what=f"the gradient of {name} after merge()")


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


def round_trip(kata, weight, bias, A, B, weight2, bias2, x, train):
    first = make(kata, weight, bias, A, B)
    second = kata.QLoRALinear(linear(weight2, bias2), rank=A.shape[0], alpha=10.5, block_size=24)
    second.train(train)(x)
    with torch.no_grad():
        second(x)
        held = sorted(n for n, p in second.named_parameters() if p.requires_grad)
        second.load_state_dict(first.state_dict())
        if held != sorted(n for n, p in second.named_parameters() if p.requires_grad):
            raise Missing("After load_state_dict other parameters train than before")
        quiet = second(x)
    return first(x), quiet, second(x), second.merge()(x)


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs, the bias included."""
    for train in (True, False):
        W, b, A, B = pieces(draw)
        W2, b2, *_ = pieces(draw)
        x = draw(5, IN)
        first, quiet, y, merged = stage(round_trip, W, b, A, B, W2, b2, x, train)
        base, update = oracle(x, W, b, A, B)
        other, _ = oracle(x, W2, b, A, B)
        unless = {
            "bias-not-in-state": base - b.double() + b2.double() + update,
            "decoded-weight-kept": other + update,
        }
        near(first, base + update, what="the output of the layer that was saved")
        for out in (quiet, y):
            near(out, base + update, what="the output after load_state_dict", unless=unless)
        near(merged, base + update, what="the merged layer's output after load_state_dict")


def state_of(kata, weight, bias):
    from torch.utils._pytree import tree_leaves

    base = linear(weight, bias)
    full = sum(v.numel() * v.element_size() for v in base.state_dict().values())
    state = kata.QLoRALinear(base, rank=4).state_dict()
    leaves = {f"{n} {i}": v for n in state for i, v in enumerate(tree_leaves(state[n]))}
    tensors = [v for v in leaves.values() if isinstance(v, torch.Tensor)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    others = sum(len(v) for v in leaves.values() if isinstance(v, (bytes, str)))
    others += sum(getattr(v, "nbytes", 0) for v in leaves.values() if not hasattr(v, "dim"))
    large = {n: v for n, v in state.items() if hasattr(v, "numel") and v.numel() >= weight.numel()}
    return (sum(storages.values()) + others) / full, dict(list(large.items())[:1])


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
    """Bytes alive after each of the ways to use a layer: of floating-point tensors, of all
    tensors, of what is no tensor. And the largest tensor, where they are too many."""
    import gc
    import tracemalloc

    from torch.multiprocessing.reductions import StorageWeakRef
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    made = {}  # of each storage that an operator gave out: a weak reference, bytes, dtype if float
    n = weight.numel()

    class Watch(TorchDispatchMode):
        @classmethod
        def _should_skip_dynamo(cls):
            return False

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for t in tree_leaves(out):
                if isinstance(t, torch.Tensor) and t.device.type == "cpu":
                    for held in parts(t):
                        note(held)
            return out

    def parts(t):
        """What holds the values: of a sparse tensor its indices and values."""
        if t.layout is torch.strided:
            return (t,)
        if t.layout is torch.sparse_coo:
            return t._indices(), t._values()
        return (t.values(),) if hasattr(t, "values") and t.is_sparse_csr else ()

    def note(t):
        storage = t.untyped_storage()
        ref, _, dtype = made.get(storage._cdata) or (StorageWeakRef(storage), 0, None)
        real = t.is_floating_point() or t.is_complex()
        made[storage._cdata] = ref, storage.nbytes(), t.dtype if real else dtype

    def alive():
        for key in [key for key, (ref, *_) in made.items() if ref.expired()]:
            del made[key]
        floats = sum(size for _, size, dtype in made.values() if dtype)
        whole = sum(size for _, size, _ in made.values())
        return floats, whole, tracemalloc.get_traced_memory()[0]

    def over(now):
        return now[0] >= n or now[1] >= 2 * n or now[2] >= 1.5 * n

    def use(values, bias, x, rank=4):
        layer = kata.QLoRALinear(linear(values, bias), rank=rank)

        def learn(x_trains):
            (layer(x.clone().requires_grad_(x_trains)) ** 2).sum().backward()

        def forward(x):
            with torch.no_grad():
                layer(x)

        calls = {
            "nothing but making it": lambda: None,
            "a training step": lambda: learn(True),
            "a training step whose x needs no gradient": lambda: learn(False),
            "a forward without backward": lambda: layer(x.clone().requires_grad_()),
            "a forward under no_grad": lambda: forward(x),
            "a second forward under no_grad": lambda: forward(x),
            "a forward of one vector": lambda: forward(x[0]),
            "a forward of x with four dimensions": lambda: forward(x[None, None]),
            "merge()": lambda: layer.merge(),
            "load_state_dict": lambda: layer.load_state_dict(layer.state_dict()),
        }
        for mode in ("train", "eval"):
            layer.train(mode == "train")
            for name, call in calls.items():
                call()
                now = alive()
                if over(now):
                    gc.collect()
                    now = alive()
                if over(now):
                    return f"{name} in {mode} mode", now, largest()
        return None

    def largest():
        floats = [item for item in made.values() if item[2]]
        ref, _, dtype = max(floats, key=lambda item: item[1], default=(None, 0, None))
        storage = ref and torch.UntypedStorage._new_with_weak_ptr(ref.cdata)
        return None if storage is None else torch.empty(0, dtype=dtype).set_(storage).clone()

    half = len(weight) // 2
    small = weight[:half, :half].double(), None, x[:, :half].double(), 1
    with Watch():
        seen = use(weight, bias, x)
    made.clear()
    if seen is None:  # a smaller layer in float64, without bias
        n = small[0].numel()
        with Watch():
            seen = use(*small)
        n = weight.numel()
        made.clear()
    if seen is None:  # what is imported or made once, and is no part of a layer, is there by now
        gc.collect()
        tracemalloc.start()
        seen = use(weight.flip(0), bias, x)
        tracemalloc.stop()
    return seen


@part("state")
def test_no_full_weight_is_kept(stage, draw):
    """Between calls neither the full-precision nor the decoded weight is kept anywhere, whatever
    was called: forwards in training or eval mode, with or without gradients, merge()."""
    W, b, *_ = pieces(draw, out=256, into=256, sizes=(64,))
    seen = stage(kept, W, b, draw(3, 256))
    if seen is None:
        return
    name, (floats, whole, traced), largest = seen
    n = W.numel()  # factors, absmax, bias and gradients take a third of this many bytes
    bug = _whose(largest, W, 64) if isinstance(largest, torch.Tensor) else None
    text = f"after {name} {floats} bytes of floating-point tensors are kept for {n} weights"
    require(floats < n, text, bug)
    require(whole < 2 * n, f"after {name} {whole} bytes of tensors are kept for {n} weights", bug)
    fail(f"after {name} {traced} bytes are kept outside of tensors for {n} weights")


# dtype


def kinds(kata, weight, bias):
    layer = kata.QLoRALinear(linear(weight, bias), rank=3)
    made = (layer.lora_A, layer.lora_B, need(layer, "codes"), need(layer, "absmax"))
    if not layer.lora_A.any():
        raise Missing(f"lora_A starts at zero in {str(weight.dtype).removeprefix('torch.')}")
    return [str(t.dtype).removeprefix("torch.") for t in made]


def in_dtype(kata, weight, bias, A, B, x, train):
    layer = make(kata, weight, bias, A, B, alpha=10.0).train(train)
    x = x.clone().requires_grad_()
    y = layer(x)
    (y * y).sum().backward()
    return y, layer.lora_A.grad, layer.lora_B.grad, x.grad


def merged_in_dtype(kata, weight, bias, A, B, x):
    merged = make(kata, weight, bias, A, B, alpha=10.0).merge()
    same_dtype = merged.weight.dtype == x.dtype
    return merged.weight, merged.bias, merged(x) if same_dtype else None


def _dtype(stage, draw, dtype, **tolerance):
    for lead, train, with_bias in (((5,), True, True), ((2, 3), False, False), ((), False, True)):
        W, b, A, B = pieces(draw, dtype)
        x = draw(*lead, IN, dtype=dtype)
        _in_dtype(stage, (W, b if with_bias else None, A, B), x, train, **tolerance)


def _in_dtype(stage, values, x, train, **tolerance):
    (W, b, A, B), dtype = values, x.dtype
    name = str(dtype).removeprefix("torch.")
    made = stage(kinds, W, b)
    for what, kind in zip(("lora_A", "lora_B"), made):
        bug = "float32-factors" if kind == "float32" else None
        require(kind == name, f"{what} is {kind}, the base is {name}", bug)
    require(made[2] == "uint8", f"codes of a {name} layer are {made[2]}, expected uint8")
    bug = "absmax-in-layer-dtype" if made[3] == name else None
    require(made[3] == "float32", f"absmax of a {name} layer is {made[3]}, expected float32", bug)
    third = 10 / 3
    # x and the factors are float64: what is float32 beside them is the decoded weight.
    with blame("decoded-in-float32", "got Double and Float", "double != float"):
        y, to_a, to_b, to_x = stage(in_dtype, W, b, A, B, x, train)
    near(y, sum(oracle(x, W, b, A, B, third)), dtype=dtype, **tolerance)
    g = 2 * sum(oracle(x, W, b, A, B, third))
    for what, got, want in zip(("lora_A", "lora_B"), (to_a, to_b), _to_factors(x, g, A, B)):
        require(got is not None, f"{what} gets no gradient", "factors-get-no-gradient")
        want = want * third / (ALPHA / RANK)
        near(got, want, what=f"the gradient of {what}", dtype=dtype, **tolerance)
    require(to_x is not None, "no gradient reaches the input", "input-gradient-cut")
    want = g @ (quantized(W) + third * (B.double() @ A.double()))
    near(to_x, want, what="the gradient to the input", dtype=dtype, **tolerance)
    weight, bias, out = stage(merged_in_dtype, W, b, A, B, x)
    want = quantized(W) + third * (B.double() @ A.double())
    weight = tensor(weight, "the weight of the merged layer")
    text = f"the weight of the merged layer is {_kind(weight)}, the base was {name}"
    bug = "merge-in-float32" if weight.dtype == torch.float32 else None
    require(weight.dtype == dtype, text, bug)
    near(weight, want, what="the weight of the merged layer", dtype=dtype, **tolerance)
    if b is None:
        require(bias is None, "a layer without bias has been merged into one with a bias")
    else:
        near(bias, b.double(), what="the bias of the merged layer", dtype=dtype)
    right = F.linear(x.double(), want, None if b is None else b.double())
    near(out, right, what="the merged output", dtype=dtype, **tolerance)


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
        if any(t.device.type != "meta" for t in made):
            return made, None, None
        return made, layer(x), layer.merge().weight


@part("device")
def test_meta_device(stage):
    """A base on the meta device gives factors, codes, absmax, outputs and merged layers there."""
    try:
        made, y, merged = stage(on_meta)
    except LearnerRaised as error:  # torch raises NotImplementedError where meta has no values
        if "meta tensor" in error.text:
            fail(f"A value of a meta tensor was asked for: {error.text}")
        raise
    for name, t in zip(("lora_A", "lora_B", "codes", "absmax"), made, strict=True):
        place = tensor(t, name).device.type
        bug = "cpu-factors" if name.startswith("lora") and place == "cpu" else None
        require(place == "meta", f"{name} is on {place}; the base is on meta", bug)
    for name, t in zip(("lora_A", "lora_B"), made):
        bug = "float32-factors" if t.dtype == torch.float32 else None
        require(t.dtype == torch.bfloat16, f"{name} is {_kind(t)}; the base is bfloat16", bug)
    for what, t, shape in (("output", y, (2, 5, 12)), ("merged weight", merged, (12, 18))):
        right = isinstance(t, torch.Tensor) and t.device.type == "meta" and t.shape == shape
        text = f"the {what} is {described(t)}, expected bfloat16 of shape {shape} on meta"
        require(right and t.dtype == torch.bfloat16, text)


# errors


def bad_rank(kata, weight, rank):
    kata.QLoRALinear(linear(weight), rank=rank)


def after_bad_rank(kata, weight, rank):
    import contextlib

    base = linear(weight, weight[:, 0])
    kept = base.weight, base.bias
    with contextlib.suppress(ValueError):
        kata.QLoRALinear(base, rank=rank)
    there = base._parameters.get("weight") is kept[0] and base._parameters.get("bias") is kept[1]
    return kept[0].requires_grad and kept[1].requires_grad, there, kept[0], kept[1]


@part("errors")
def test_rank_below_one(stage, draw):
    """rank < 1 raises ValueError naming rank, before anything is changed."""
    W = draw(OUT, IN)
    for rank in (0, -1):
        outcome = stage.attempt(bad_rank, W, rank)
        rejects(outcome, "ValueError", "rank", what=f"rank={rank}", bug="rank-unchecked")
        trains, there, weight, bias = stage(after_bad_rank, W, rank)
        text = "the base was frozen before ValueError was raised"
        require(trains, text, "checked-after-freeze")
        require(there, "the base has other parameters after the ValueError")
        same(weight, W, "the base's weight after the ValueError")
        same(bias, W[:, 0].contiguous(), "the base's bias after the ValueError")


def bad_base(kata, which):
    made = {
        "Conv1d": lambda: nn.Conv1d(6, 6, 1),
        "Embedding": lambda: nn.Embedding(6, 6),
        "Sequential": lambda: nn.Sequential(nn.Linear(6, 6)),
        "look-alike": look_alike,
        "Tensor": lambda: torch.zeros(6, 6),
        "NoneType": lambda: None,
    }[which]()
    kata.QLoRALinear(made, rank=2)


def after_bad_base(kata):
    import contextlib

    base = nn.Conv1d(6, 6, 1)
    kept = base.weight, base.bias
    with contextlib.suppress(TypeError):
        kata.QLoRALinear(base, rank=2)
    return all(p.requires_grad for p in kept)


def heir(kata, weight, bias, A, B, x):
    class Heir(nn.Linear):
        pass

    base = Heir(weight.shape[1], weight.shape[0])
    set_(base, weight=weight, bias=bias)
    layer = kata.QLoRALinear(base, rank=A.shape[0], alpha=10.5, block_size=24)
    set_(layer, lora_A=A, lora_B=B)
    return layer(x)


def look_alike():
    module = nn.Module()
    module.weight = nn.Parameter(torch.ones(6, 6))
    module.bias = None
    module.in_features = module.out_features = 6
    return module


@part("errors")
def test_base_must_be_linear(stage, draw):
    """A base that is no nn.Linear raises TypeError naming base, before anything is changed; a
    subclass of it is one."""
    for which in ("look-alike", "Conv1d", "Embedding", "Sequential", "Tensor", "NoneType"):
        outcome = stage.attempt(bad_base, which)
        what = f"a base of type {which}"
        bug = None if which in ("Tensor", "NoneType") else "base-type-unchecked"
        rejects(outcome, "TypeError", "base", what=what, bug=bug)
    trains = stage(after_bad_base)
    require(trains, "the base was frozen before TypeError was raised", "checked-after-freeze")
    values, x = pieces(draw), draw(5, IN)
    got = stage.attempt(heir, *values, x)
    if isinstance(got, Raised):
        refused = got.deliberate and "builtins.TypeError" in got.types
        text = f"a subclass of nn.Linear as base raises {got.types[0].rpartition('.')[2]}"
        fail(f"{text}: {got.text}", "subclass-refused" if refused else None)
    near(got, sum(oracle(x, *values)), what="the output with a subclass of nn.Linear as the base")


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
