"""What is checked of `build_lora_adapter_model`. Contract: He et al. 2022, section 4.6."""

import torch
import torch.nn.functional as F
from torch import nn

from grader.exam.checks import Raised, blame, near, part, rejects, require, same
from grader.exam.kit import CheapMeta, Missing, need, set_

D, H, RANK, ALPHA, LOW = 8, 11, 3, 10.5, 5
NAMES = ("blocks.0.proj", "out")  # two of the four linears


# The base, on the stage and for the examiner


def net(values):
    """tanh(fc), tanh(blocks.0.proj), tanh(blocks.1), out, times gain; it has parameters of its own
    that are called like ours."""
    fc, proj, last, out, gain = values

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.proj = nn.Linear(11, 11)

        def forward(self, x):
            return torch.tanh(self.proj(x))

    class Base(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 11)
            self.blocks = nn.ModuleList([Block(), nn.Linear(11, 11, bias=False)])
            self.out = nn.Linear(11, 8)
            self.lora_A_gain = nn.Parameter(torch.ones(8))
            self.adapter_gain = nn.Parameter(torch.ones(8))
            self.lora_A = nn.Parameter(torch.ones(8))
            self.aside = nn.Sequential(nn.LayerNorm(8), nn.Dropout(0.5))  # not run
            self.d_model = self.in_features = 8

        def forward(self, x):
            h = self.blocks[0](torch.tanh(self.fc(x)))
            y = self.out(torch.tanh(self.blocks[1](h))) * self.lora_A
            return y * self.lora_A_gain * self.adapter_gain

    made = Base().to(gain.device, gain.dtype)
    made.register_buffer("seen", torch.zeros((), dtype=torch.float64))
    for layer, (weight, bias) in zip((made.fc, made.blocks[0].proj, made.out), (fc, proj, out)):
        set_(layer, weight=weight, bias=bias)
    set_(made.blocks[1], weight=last)
    set_(made, lora_A_gain=gain)
    return made


def pieces(draw, dtype=torch.float32):
    def layer(out, into):
        return draw(out, into, std=0.4, dtype=dtype), draw(out, std=0.4, dtype=dtype)

    gain = 1 + draw(D, std=0.3, dtype=dtype)
    return layer(H, D), layer(H, H), draw(H, H, std=0.4, dtype=dtype), layer(D, H), gain


def factors(draw, dtype=torch.float32):
    """A and B for each of NAMES."""
    sizes = ((H, H), (D, H))
    return [
        (draw(RANK, into, std=0.4, dtype=dtype), draw(out, RANK, std=0.5, dtype=dtype))
        for out, into in sizes
    ]


def bottleneck(draw, dtype=torch.float32):
    return (
        draw(LOW, D, std=0.4, dtype=dtype),
        draw(LOW, std=0.5, dtype=dtype),
        draw(D, LOW, std=0.8, dtype=dtype),
        draw(D, std=0.5, dtype=dtype),
    )


def base_of(x, values, pairs=None, scale=ALPHA / RANK):
    fc, proj, last, out, gain = values
    zero = 0.0
    first, second = [scale * (B.double() @ A.double()) for A, B in pairs] if pairs else (zero, zero)
    h = torch.tanh(x.double() @ fc[0].double().T + fc[1].double())
    h = torch.tanh(h @ (proj[0].double() + first).T + proj[1].double())
    h = torch.tanh(h @ last.double().T)
    return (h @ (out[0].double() + second).T + out[1].double()) * gain.double()


def delta_of(x, adapter):
    w1, b1, w2, b2 = (t.double() for t in adapter)
    return F.gelu(x.double() @ w1.T + b1) @ w2.T + b2


# What probes do


def build(kata, values, low=None, names=NAMES, **options):
    base = net(values)
    extra = {} if low is None else {"d_model": 8, "bottleneck_dim": low}
    model, params = kata.build_lora_adapter_model(
        base, list(names), **{"rank": 3, "alpha": 10.5, **extra, **options}
    )
    block = hasattr(model, "sublayer") and hasattr(model, "adapter")
    if low is not None and model is not base and not block:
        kind = type(model).__name__
        raise Missing(f"with bottleneck_dim the model should be an AdapterBlock, not a {kind}")
    return base, model, params


def fill(base, model, pairs, adapter=None):
    for name, (A, B) in zip(NAMES, pairs):
        set_(base.get_submodule(name), lora_A=A, lora_B=B)
    if adapter is not None:
        inside = need(model, "adapter")
        set_(need(inside, "down_proj"), weight=adapter[0], bias=adapter[1])
        set_(need(inside, "up_proj"), weight=adapter[2], bias=adapter[3])
    return model


# shape


def outputs(kata, values, pairs, adapter, xs):
    plain_base, plain, _ = build(kata, values)
    fill(plain_base, plain, pairs)
    block_base, block, _ = build(kata, values, adapter[0].shape[0])
    fill(block_base, block, pairs, adapter)
    return [(plain(x), block(x)) for x in xs]


def wholes(x, values, pairs, adapter):
    """What is right with the adapter, and what known mistakes make of it."""
    f = base_of(x, values, pairs)
    h = x.double() + f
    return h + delta_of(h, adapter), {
        "adapter-missing": f,
        "block-residual-missing": f + delta_of(f, adapter),
        "adapter-parallel": h + delta_of(x, adapter),
        "alpha-ignored": _scaled(x, values, pairs, adapter, 16.0 / RANK),
        "scale-missing": _scaled(x, values, pairs, adapter, 1.0),
    }


def _scaled(x, values, pairs, adapter, scale):
    h = x.double() + base_of(x, values, pairs, scale)
    return h + delta_of(h, adapter)


@part("shape")
def test_outputs_of_any_shape(stage, draw):
    """Both models take (..., d): none, one or several leading dimensions."""
    values, pairs, adapter = pieces(draw), factors(draw), bottleneck(draw)
    xs = [draw(*lead, D) for lead in [(5,), (2, 7), (2, 3, 4), (1, 1), ()]]
    with blame("no-block", "should be an AdapterBlock"):
        got = stage(outputs, values, pairs, adapter, xs)
    for (y, z), x in zip(got, xs):
        f = base_of(x, values, pairs)
        known = {
            "alpha-ignored": base_of(x, values, pairs, 16.0 / RANK),
            "scale-missing": base_of(x, values, pairs, 1.0),
        }
        near(y, f, what=f"the output without an adapter for x {tuple(x.shape)}", unless=known)
        want, known = wholes(x, values, pairs, adapter)
        near(z, want, what=f"the output with an adapter for x {tuple(x.shape)}", unless=known)


def layout(kata, values):
    base, model, _ = build(kata, values, 5)
    if model is base:
        return {"base": True}
    inside = need(model, "adapter")
    layer = base.get_submodule("out")
    return {
        "base": False,
        "sublayer": need(model, "sublayer") is base,
        "down": tuple(need(inside, "down_proj").weight.shape),
        "up": tuple(need(inside, "up_proj").weight.shape),
        "A": tuple(need(layer, "lora_A").shape),
        "B": tuple(need(layer, "lora_B").shape),
    }


@part("shape")
def test_sizes(stage, draw):
    """The adapter is (d_model, bottleneck_dim), the factors have the rank asked for."""
    got = stage(layout, pieces(draw))
    require(not got["base"], "with bottleneck_dim the base itself is returned", "adapter-missing")
    down, up = tuple(got["down"]), tuple(got["up"])
    known = "dim-is-rank" if down[0] == RANK else None
    require(down == (5, 8), f"down_proj.weight has shape {down}, expected (5, 8)", known)
    require(up == (8, 5), f"up_proj.weight has shape {up}, expected (8, 5)", known)
    known = "rank-ignored" if got["A"][0] == 8 else None
    require(tuple(got["A"]) == (3, 11), f"lora_A has shape {tuple(got['A'])} at rank 3", known)
    require(tuple(got["B"]) == (8, 3), f"lora_B has shape {tuple(got['B'])} at rank 3", known)


def smallest(kata, values, pairs, adapter, x, alpha):
    base, model, _ = build(kata, values, 1, rank=1, alpha=alpha)
    size = need(need(model, "adapter"), "down_proj").out_features
    return size, fill(base, model, pairs, adapter)(x) if size == 1 else None


@part("shape")
def test_smallest_sizes(stage, draw):
    """A rank of 1, a bottleneck_dim of 1 and a negative alpha are legal."""
    values, x = pieces(draw), draw(5, D)
    pairs = [(A[:1], B[:, :1]) for A, B in factors(draw)]
    w1, b1, w2, b2 = bottleneck(draw)
    adapter = w1[:1], b1[:1], w2[:, :1], b2
    size, y = stage(smallest, values, pairs, adapter, x, -2.0)
    require(size == 1, f"the bottleneck has {size} features, expected 1")
    h = x.double() + base_of(x, values, pairs, -2.0)
    near(y, h + delta_of(h, adapter), what="the output at rank 1, bottleneck_dim 1 and alpha -2")


# init


def result(kata, values, d_model, low, once=True):
    base = net(values)
    kept = {name: module for name, module in base.named_modules() if name not in NAMES}
    linears = {name: base.get_submodule(name) for name in NAMES}
    options = {} if low is None else {"bottleneck_dim": low}
    names = iter(NAMES) if once else list(NAMES)
    model, params = kata.build_lora_adapter_model(base, names, d_model=d_model, **options)
    sublayer = model if low is None else need(model, "sublayer")
    return {
        "base": model is base,
        "sublayer": sublayer is base,
        "copied": sublayer is not base and type(sublayer) is type(base),
        "adapter": hasattr(model, "adapter"),
        "list": isinstance(params, list),
        "kept": all(base.get_submodule(name) is module for name, module in kept.items()),
        "wrapped": [
            getattr(base.get_submodule(name), "base", None) is linears[name] for name in NAMES
        ],
    }


@part("init")
def test_base_alone_without_bottleneck_dim(stage, draw):
    """Without bottleneck_dim the result is base itself, whatever d_model says."""
    values = pieces(draw)
    for d_model in (None, 8):
        got = stage(result, values, d_model, None)
        known = "adapter-unasked" if d_model and got["adapter"] else None
        text = f"with d_model={d_model} and no bottleneck_dim the model should be base itself"
        require(got["base"], text, "base-copied" if got["copied"] else known)
        require(got["list"], "trainable_params should be a list", "params-no-list")


@part("init")
def test_block_around_the_base(stage, draw):
    """With bottleneck_dim the result is a block whose sublayer is the very base passed in."""
    got = stage(result, pieces(draw), 8, 5)
    require(not got["base"], "with bottleneck_dim the base itself is returned", "adapter-missing")
    known = "base-copied" if got["copied"] else None
    require(got["sublayer"], "model.sublayer should be the very base passed in", known)
    require(got["list"], "trainable_params should be a list", "params-no-list")


@part("init")
def test_wraps_the_named_linears(stage, draw):
    """The named linears of base are wrapped in place; every other module stays where it was."""
    for low in (None, 5):
        values = pieces(draw)
        got = stage(result, values, 8, low)
        used_up = not any(got["wrapped"]) and all(stage(result, values, 8, low, False)["wrapped"])
        where, known = " where lora_names is an iterator", "iterator-used-up"
        for name, wrapped in zip(NAMES, got["wrapped"]):
            text = f"{name} is not wrapped by a LoRALinear around it{where if used_up else ''}"
            require(wrapped, text, known if used_up else None)
        require(got["kept"], "another module of base has been replaced")


def start(kata, values, x):
    base, model, _ = build(kata, values)
    other, block, _ = build(kata, values, 5)
    modes = base.training, other.training
    alive = bool(need(need(block, "adapter"), "down_proj").weight.any())
    params = {n: p.detach().clone() for n, p in base.named_parameters()}
    return model(x), block(x), params, modes, alive


def modes(kata, values, low):
    """Which modules of base, partly in eval mode, have another mode afterwards; whether all
    follow train() and eval(); how base's dropout is set."""
    base = net(values)
    base.eval().blocks.train()
    before = {id(m): (n, m.training) for n, m in base.named_modules()}
    options = {} if low is None else {"d_model": 8, "bottleneck_dim": low}
    model, _ = kata.build_lora_adapter_model(base, ["out"], **options)
    now = {id(m): m.training for m in base.modules()}
    changed = [n for i, (n, mode) in before.items() if now.get(i, mode) != mode]
    follows = [
        all(m.training == mode for m in model.train(mode).modules()) for mode in (True, False)
    ]
    return changed, all(follows), base.aside[1].p


@part("init")
def test_modes(stage, draw):
    """Every module of base has the mode and the dropout it came with, and follows train()."""
    for low in (None, 5):
        changed, follows, p = stage(modes, pieces(draw), low)
        where = "without an adapter" if low is None else "with an adapter"
        names = ", ".join(n or "base itself" for n in changed[:3])
        require(not changed, f"training is not as it was in: {names} ({where})")
        require(follows, f"train() or eval() of the model does not reach all of it ({where})")
        require(p == 0.5, f"the p of base's dropout was 0.5 and is {p} now ({where})")


@part("init")
def test_starts_as_the_base(stage, draw):
    """At the start the output is base(x), or x + base(x) with the adapter, which can learn."""
    values, x = pieces(draw), draw(4, D)
    y, z, params, modes, alive = stage(start, values, x)
    f = base_of(x, values)
    near(y, f, what="the output at the start")
    near(z, x.double() + f, what="the output at the start, with an adapter")
    for name, value in (("fc.weight", values[0][0]), ("out.base.weight", values[3][0])):
        if name in params:
            same(params[name], value, f"{name} of the base")
    require(all(modes), "base was in training mode and is in eval mode now", "base-in-eval")
    require(alive, "down_proj starts at zero like up_proj: the adapter can never learn")


def listed(kata, values, low, names, tied, quiet):
    """What trains and what is listed. Parameters are told apart by identity: base's own have the
    names they had before, LoRA's that of their layer, all others those in the model. `quiet`: base
    is in eval mode, and the model is built under no_grad."""
    base = net(values)
    if tied:
        base.again = base.out
    own = {id(p): n for n, p in base.named_parameters()}
    extra = {} if low is None else {"d_model": 8, "bottleneck_dim": low}
    base.train(not quiet)
    with torch.set_grad_enabled(not quiet):
        model, params = kata.build_lora_adapter_model(base, iter(names), 3, 10.5, **extra)
        kept = torch.is_grad_enabled() != quiet
    kind = type(params).__name__
    params = params if isinstance(params, list) else []
    layers = {name: base.get_submodule(name) for name in names}
    factors = {
        id(p): f"{name}.lora_{which}"
        for name, layer in reversed(layers.items())
        for which in "AB"
        if (p := getattr(layer, f"lora_{which}", None)) is not None
    }
    adapter = {}
    if low is not None and model is not base:
        parts = need(model, "adapter").named_parameters()
        adapter = {id(p): f"adapter.{n}" for n, p in parts}
    inside = dict(model.named_parameters())
    known = {**{id(p): n for n, p in inside.items()}, **adapter, **factors, **own}
    return {
        "own": list(own.values()),
        "factors": list(factors.values()),
        "adapter": list(adapter.values()),
        "held": [known[id(p)] for p in inside.values()],
        "trains": [known[id(p)] for p in inside.values() if p.requires_grad],
        "listed": [known.get(id(p), "a tensor that is not in the model") for p in params],
        "tied": bool(tied) and base.again is base.out,
        "kept": kept,
        "kind": kind,
    }


def expected(low, names):
    """The names of what trains: the factors and, with an adapter, its four tensors."""
    factors = [f"{name}.lora_{which}" for name in dict.fromkeys(names) for which in "AB"]
    parts = [f"adapter.{n}_proj.{t}" for n in ("down", "up") for t in ("weight", "bias")]
    return factors, [] if low is None else parts


def _parameters(stage, values, low, names, tied=False, quiet=False):
    got = stage(listed, values, low, names, tied, quiet)
    require(got["kept"], "a call under no_grad leaves gradients switched on")
    factors, parts = expected(low, ["out"] if tied else names)
    want = [*factors, *parts]
    where = "without an adapter" if low is None else "with an adapter"
    where += ", base in eval mode, built under no_grad" if quiet else ""
    text = f"trainable_params should be a list, not {got['kind']} ({where})"
    require(got["kind"] == "list", text, "params-no-list")
    absent = [n for n in want if n not in got["held"]]
    require(not absent, f"{', '.join(absent[:3])} is not a parameter of the model ({where})")
    still = [n for n in want if n not in got["trains"]]
    frozen = "factors-frozen" if low is None else "lora-frozen-by-the-block"
    known = frozen if {*still} <= {*factors} else None
    known = "adapter-frozen" if {*still} <= {*parts} else known
    require(not still, f"{', '.join(still[:3])} should train ({where})", known)
    extra = [n for n in got["trains"] if n not in want]
    known = "base-thawed" if {*extra} <= {*got["own"]} else None
    require(not extra, f"{', '.join(extra[:3])} should be frozen ({where})", known)
    lost = [n for n in want if n not in got["listed"]]
    known = "adapter-not-listed" if {*lost} <= {*parts} else None
    known = "factors-not-listed" if {*lost} <= {*factors} else known
    require(not lost, f"{', '.join(lost[:3])} is missing in trainable_params ({where})", known)
    wrong = sorted({n for n in got["listed"] if n not in want})
    text = f"trainable_params holds what does not train: {', '.join(wrong[:3])}"
    known = "frozen-listed" if {*wrong} <= {*got["own"]} else None
    require(not wrong, text, known)
    require(len(got["listed"]) == len(want), "trainable_params holds a parameter twice", "twice")
    return got


# freeze


@part("freeze")
def test_what_trains(stage, draw):
    """LoRA's factors and the adapter train; every parameter of base's own is frozen."""
    values = pieces(draw)
    for quiet in (False, True):
        _parameters(stage, values, None, NAMES, quiet=quiet)
        _parameters(stage, values, 5, NAMES, quiet=quiet)


@part("freeze")
def test_without_names(stage, draw):
    """With no names nothing of base trains; the adapter does."""
    values = pieces(draw)
    _parameters(stage, values, None, ())
    _parameters(stage, values, 5, ())


@part("freeze")
def test_name_given_twice(stage, draw):
    """A name that is given twice counts once."""
    values = pieces(draw)
    _parameters(stage, values, None, ("out", "fc", "out"))
    _parameters(stage, values, 5, ("out", "fc", "out"))


@part("freeze")
def test_tied_layers_are_listed_once(stage, draw):
    """A layer under two names is wrapped once, and its factors are listed once."""
    for low in (None, 5):
        got = _parameters(stage, pieces(draw), low, ("out", "again"), tied=True)
        require(got["tied"], "a layer under two names is no longer tied")


# forward


def run(kata, values, pairs, adapter, x, mode="train"):
    base, block, _ = build(kata, values, adapter[0].shape[0])
    block.train(mode == "train")
    with torch.set_grad_enabled("no_grad" not in mode):
        block(x)
        return fill(base, block, pairs, adapter)(x), x


@part("forward")
def test_output_with_lora_and_adapter(stage, draw):
    """The output is h + adapter.forward_delta(h), h = x + base(x), LoRA at work in base."""
    values, pairs, adapter = pieces(draw), factors(draw), bottleneck(draw)
    x = draw(3, 4, D)
    want, known = wholes(x, values, pairs, adapter)
    for mode in ("train", "eval", "eval, no_grad"):
        y, kept = stage(run, values, pairs, adapter, x, mode)
        same(kept, x, "the input")
        near(y, want, what=f"the output ({mode} mode)", unless=known if mode == "train" else {})


def other_base(kata, weight, bias, adapter, x, g):
    """Output and gradient to the input around a base that looks across positions and ends in an
    activation, and how often it ran."""

    class Across(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 8)
            self.runs = 0

        def forward(self, x):
            self.runs += 1
            return torch.tanh(self.fc(x.cumsum(-2)))

    base = Across()
    set_(base.fc, weight=weight, bias=bias)
    model, _ = kata.build_lora_adapter_model(base, ["fc"], 3, 10.5, 8, adapter[0].shape[0])
    x = x.clone().requires_grad_()
    set_(model.adapter.down_proj, weight=adapter[0], bias=adapter[1])
    set_(model.adapter.up_proj, weight=adapter[2], bias=adapter[3])
    y = model(x)
    runs = base.runs
    (y * g).sum().backward()
    return y, x.grad, runs


@part("forward")
def test_base_across_positions(stage, draw):
    """The base gets x as it is, runs once, and its output is not changed in place."""
    weight, bias, adapter = draw(D, D, std=0.4), draw(D, std=0.4), bottleneck(draw)
    x, g = draw(2, 3, D), draw(2, 3, D)
    y, to_x, runs = stage(other_base, weight, bias, adapter, x, g)
    xd = x.double().requires_grad_()
    h = xd + torch.tanh(xd.cumsum(-2) @ weight.double().T + bias.double())
    want = h + delta_of(h, adapter)
    (want * g.double()).sum().backward()
    what = "where base looks across positions"
    near(y, want.detach(), what=f"the output {what}")
    require(runs == 1, f"the base runs {runs} times in a forward")
    near(to_x, xd.grad, what=f"the gradient to the input {what}")


def other_size(kata, values):
    base = net(values)
    model, _params = kata.build_lora_adapter_model(
        base=base, lora_names=["out"], rank=13, alpha=1.0, d_model=8, bottleneck_dim=12
    )
    layer = base.get_submodule("out")
    return tuple(layer.lora_A.shape), tuple(need(model, "adapter").down_proj.weight.shape)


@part("forward")
def test_arguments_by_name(stage, draw):
    """All arguments can be given by name; rank and bottleneck_dim may be larger than the layers."""
    A, down = stage(other_size, pieces(draw))
    known = "rank-ignored" if A[0] == 8 else None
    require(tuple(A) == (13, 11), f"lora_A has shape {tuple(A)} at rank 13", known)
    text = f"down_proj.weight has shape {tuple(down)} at bottleneck_dim 12"
    require(tuple(down) == (12, 8), text)


def default_scale(kata, values, pairs, x):
    base = net(values)
    pairs = [(torch.cat([A, A, A])[:8], torch.cat([B, B, B], 1)[:, :8]) for A, B in pairs]
    model, _ = kata.build_lora_adapter_model(base, list(NAMES))
    return fill(base, model, pairs)(x), pairs


@part("forward")
def test_default_rank_and_alpha(stage, draw):
    """rank defaults to 8 and alpha to 16."""
    values, pairs, x = pieces(draw), factors(draw), draw(5, D)
    y, used = stage(default_scale, values, pairs, x)
    near(y, base_of(x, values, used, 2.0), what="the output at the default rank and alpha")


# gradient


def gradients(kata, values, pairs, adapter, x, g, mode):
    base, model, _params = build(kata, values, None if adapter is None else adapter[0].shape[0])
    fill(base, model, pairs, adapter)
    model.train(mode == "train")
    x = x.clone().requires_grad_()
    with torch.no_grad():
        model(x)
    y = model(x)
    if y.requires_grad:
        (y * g).sum().backward()
    layers = [base.get_submodule(name) for name in NAMES]
    lora = [p for layer in layers for p in (layer.lora_A, layer.lora_B)]
    inside = [] if adapter is None else [model.adapter.down_proj, model.adapter.up_proj]
    parts = [p for layer in inside for p in (layer.weight, layer.bias)]
    ours = {id(p) for p in (*lora, *parts)}
    return {
        "x": x.grad,
        "lora": [p.grad for p in lora],
        "adapter": [p.grad for p in parts],
        "stray": [
            n for n, p in base.named_parameters() if p.grad is not None and id(p) not in ours
        ],
        "lora_trains": all(p.requires_grad for p in lora),
        "adapter_trains": all(p.requires_grad for p in parts),
    }


def _gradients(stage, draw, with_adapter, mode, fresh=False):
    values, pairs = pieces(draw), factors(draw)
    adapter = bottleneck(draw) if with_adapter else None
    if fresh:
        pairs = [(A, 0 * B) for A, B in pairs]
        adapter = adapter and (*adapter[:2], 0 * adapter[2], 0 * adapter[3])
    where = f"({mode} mode{', lora_B and up_proj at zero' if fresh else ''})"
    x, g = draw(2, 3, D), draw(2, 3, D)
    got = stage(gradients, values, pairs, adapter, x, g, mode)
    stray = ", ".join(got["stray"][:3])
    require(not stray, f"of base {stray} gets a gradient", "base-thawed")
    xd = x.double().requires_grad_()
    leaves = [[t.double().clone().requires_grad_() for t in pair] for pair in pairs]
    own = [t.double().clone().requires_grad_() for t in adapter or ()]
    y = base_of(xd, values, leaves)
    if own:
        h = xd + y
        y = h + delta_of(h, own)
    (y * g.double()).sum().backward()
    names = [f"lora_{which} of {name}" for name in NAMES for which in "AB"]
    known = None if got["lora_trains"] or not with_adapter else "lora-frozen-by-the-block"
    for name, value, leaf in zip(names, got["lora"], [leaf for pair in leaves for leaf in pair]):
        require(value is not None, f"{name} gets no gradient {where}", known)
        near(value, leaf.grad, what=f"the gradient of {name} {where}")
    known = None if got["adapter_trains"] else "adapter-frozen"
    names = [f"{n}_proj.{t}" for n in ("down", "up") for t in ("weight", "bias")]
    for name, value, leaf in zip(names, got["adapter"], own):
        require(value is not None, f"{name} of the adapter gets no gradient {where}", known)
        near(value, leaf.grad, what=f"the gradient of {name} {where}")
    require(got["x"] is not None, f"no gradient reaches the input {where}")
    near(got["x"], xd.grad, what=f"the gradient to the input {where}")


@part("gradient")
def test_gradients(stage, draw):
    """Factors, adapter and input get the exact gradients; base's own parameters get none."""
    for mode in ("train", "eval"):
        _gradients(stage, draw, True, mode)
    _gradients(stage, draw, True, "train", fresh=True)


@part("gradient")
def test_gradients_without_an_adapter(stage, draw):
    """Without bottleneck_dim factors and input get the exact gradients too."""
    _gradients(stage, draw, False, "train")


# state


def round_trip(kata, values, values2, pairs, adapter, x):
    base, block, _ = build(kata, values, adapter[0].shape[0])
    fill(base, block, pairs, adapter)
    _, other, _ = build(kata, values2, adapter[0].shape[0])
    other(x)
    other.load_state_dict(block.state_dict())
    return other(x)


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another model's state reproduces its outputs."""
    values, pairs, adapter = pieces(draw), factors(draw), bottleneck(draw)
    x = draw(5, D)
    y = stage(round_trip, values, pieces(draw), pairs, adapter, x)
    near(y, wholes(x, values, pairs, adapter)[0], what="the output after load_state_dict")


# dtype and device


def kinds(kata, values, names):
    base, model, _params = build(kata, values, 5, names)
    return {
        "adapter": sorted({str(p.dtype)[6:] for p in need(model, "adapter").parameters()}),
        "base": sorted({str(p.dtype)[6:] for p in base.parameters()}),
    }


def _dtype(stage, draw, dtype):
    values, pairs, adapter = pieces(draw, dtype), factors(draw, dtype), bottleneck(draw, dtype)
    name = str(dtype).removeprefix("torch.")
    for names in (NAMES, ()):
        got = stage(kinds, values, names)
        require(got["base"] == [name], f"base was {name} and is now {', '.join(got['base'])}")
        known = "adapter-float32" if got["adapter"] == ["float32"] else None
        where = "" if names else " (no lora_names)"
        text = f"the adapter is {', '.join(got['adapter'])}, the base's parameters are {name}"
        require(got["adapter"] == [name], f"{text}{where}", known)
    x = draw(4, D, dtype=dtype)
    y, _ = stage(run, values, pairs, adapter, x)
    near(y, wholes(x, values, pairs, adapter)[0], dtype=dtype)


@part("dtype")
def test_float64(stage, draw):
    """A float64 base gives a float64 adapter and outputs exact to 1e-9."""
    _dtype(stage, draw, torch.float64)


@part("dtype")
def test_bfloat16(stage, draw):
    """A bfloat16 base gives a bfloat16 adapter and outputs."""
    _dtype(stage, draw, torch.bfloat16)


def on_meta(kata):
    base = nn.Sequential(nn.Linear(8, 11), nn.Tanh(), nn.Linear(11, 8)).to("meta")
    with CheapMeta():
        model, _ = kata.build_lora_adapter_model(base, ["2"], 3, 6.0, 8, 5)
    places = sorted({p.device.type for p in need(model, "adapter").parameters()})
    if places != ["meta"]:
        return places, None, None
    with CheapMeta():
        y = model(torch.empty(2, 5, 8, device="meta"))
    return places, y.device.type, tuple(y.shape)


@part("device")
def test_meta_device(stage):
    """A base on the meta device gives an adapter and outputs there."""
    places, device, shape = stage(on_meta)
    text = f"the adapter is on {', '.join(places)}, the base is on meta"
    require(places == ["meta"], text, "adapter-on-cpu" if places == ["cpu"] else None)
    require(device == "meta", f"the output is on {device}, expected meta")
    require(tuple(shape) == (2, 5, 8), f"the output has shape {tuple(shape)}")


# errors


def bad_call(kata, values, names, d_model, low, look):
    """The call, or how base looks after it failed."""
    base, sizes = net(values), {"d_model": d_model, "bottleneck_dim": low}
    modules = dict(base.named_modules())
    kept = {n: (p, p.detach().clone()) for n, p in base.named_parameters()}
    base.fc.bias.requires_grad_(False)
    if not look:
        return kata.build_lora_adapter_model(base, names, 3, 6.0, **sizes) and None
    raised = False
    try:
        kata.build_lora_adapter_model(base, names, 3, 6.0, **sizes)
    except (KeyError, TypeError, ValueError):
        raised = True
    now = dict(base.named_parameters())
    return {
        "raised": raised,
        "modules": dict(base.named_modules()) == modules,
        "parameters": list(now) == list(kept)
        and all(now[n] is p and torch.equal(p, value) for n, (p, value) in kept.items()),
        "flags": [n for n, p in now.items() if p.requires_grad != (n != "fc.bias")],
        "mode": all(module.training for module in base.modules()),
    }


def _rejected(stage, values, names, d_model, low, error, name, bug):
    unsized = low is not None and d_model is None
    what = "bottleneck_dim without d_model" if unsized else f"lora_names={names}"
    call = (bad_call, values, names, d_model, low)
    outcome = stage.attempt(*call, False)
    # A name that is passed over is one that raises nothing; what else fails says nothing of names.
    known = bug if unsized or not isinstance(outcome, Raised) else None
    rejects(outcome, error, name, what=what, bug=known)
    after = stage(*call, True)
    require(after["raised"], f"{what} raises in one call and not in the next")
    known = "checked-too-late"
    require(after["modules"], f"after {what} modules of base have been replaced", known)
    require(after["parameters"], f"after {what} the parameters of base have changed", known)
    flags = ", ".join(after["flags"][:3])
    require(not flags, f"after {what} requires_grad of {flags} has changed", known)
    require(after["mode"], f"after {what} base is no longer in training mode", known)


@part("errors")
def test_bottleneck_dim_needs_d_model(stage, draw):
    """bottleneck_dim without d_model raises ValueError naming d_model, base as it was."""
    values, bug = pieces(draw), "d-model-unchecked"
    _rejected(stage, values, ["out"], None, 5, "ValueError", "d_model", bug)


@part("errors")
def test_bad_names(stage, draw):
    """Unknown names raise KeyError, names of other modules TypeError, base as it was."""
    values = pieces(draw)
    for low, d_model in ((None, None), (5, 8)):
        skipped, bad = "bad-names-skipped", ["out", "blocks.0"]
        _rejected(stage, values, ["out", "nothere"], d_model, low, "KeyError", "nothere", skipped)
        _rejected(stage, values, bad, d_model, low, "TypeError", "blocks.0", skipped)


# gpu


def on_device(kata, values, pairs, adapter, x, device):
    base, block, _ = build(kata, values, 5)
    want = fill(base, block, pairs, adapter)(x)
    moved = net(values).to(device)
    model, _params = kata.build_lora_adapter_model(moved, list(NAMES), 3, 10.5, 8, 5)
    places = sorted({p.device.type for p in model.parameters()})
    fill(moved, model, [(A.to(device), B.to(device)) for A, B in pairs], adapter)
    return places, model(x.to(device)), want


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs on the accelerator are those of the CPU, and nothing stays behind."""
    values, pairs, adapter = pieces(draw), factors(draw), bottleneck(draw)
    places, y, want = stage(on_device, values, pairs, adapter, draw(4, D), stage.device)
    text = f"parameters are on {', '.join(places)}"
    require(list(places) == [stage.device], text, "adapter-on-cpu")
    near(y, want.double(), rtol=1e-3, atol=1e-3)
