"""What is checked of `build_lora_adapter_model`. Contract: He et al. 2022, section 4.6."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from grader.exam.checks import Raised, blame, near, part, rejects, require, same
from grader.exam.kit import CheapMeta, Missing, need, set_
from grader.suites.shared import bottlenecks, properties
from grader.suites.shared.bottlenecks import write
from grader.suites.shared.properties import MODES, Layer

D, H, RANK, ALPHA, LOW = 8, 11, 3, 10.5, 5
NAMES = ("blocks.0.proj", "out")  # two of the four linears


# The base, on the stage and for the examiner


def net(values):
    """tanh(fc), tanh(blocks.0.proj), tanh(blocks.1), out, times gain; it has parameters of its own
    that are called like ours."""
    fc, fc_bias, proj, proj_bias, last, out, out_bias, gain = values[:8]

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
    set_(made.fc, weight=fc, bias=fc_bias)
    set_(made.blocks[0].proj, weight=proj, bias=proj_bias)
    set_(made.blocks[1], weight=last)
    set_(made.out, weight=out, bias=out_bias)
    set_(made, lora_A_gain=gain)
    return made


# What is right, computed by the examiner. The values are the eight of base, A and B for each of
# NAMES and, with an adapter, its four.


def pieces(draw, dtype=torch.float32, adapter=True):
    shapes = ((H, D), (H,), (H, H), (H,), (H, H), (D, H), (D,))
    base = [draw(*shape, std=0.4, dtype=dtype) for shape in shapes]
    gain = 1 + draw(D, std=0.3, dtype=dtype)
    factors = ((RANK, H, 0.4), (H, RANK, 0.5), (RANK, H, 0.4), (D, RANK, 0.5))
    factors = [draw(rows, columns, std=std, dtype=dtype) for rows, columns, std in factors]
    own = bottlenecks.pieces(draw, dtype, D, LOW) if adapter else ()
    return (*base, gain, *factors, *own)


def base_of(x, values, scale=ALPHA / RANK):
    fc, fc_bias, proj, proj_bias, last, out, out_bias, gain, A1, B1, A2, B2, *_ = values
    h = torch.tanh(x @ fc.T + fc_bias)
    h = torch.tanh(h @ (proj + scale * (B1 @ A1)).T + proj_bias)
    h = torch.tanh(h @ last.T)
    return (h @ (out + scale * (B2 @ A2)).T + out_bias) * gain


def delta_of(x, values):
    w1, b1, w2, b2 = values[12:]
    return F.gelu(x @ w1.T + b1) @ w2.T + b2


def whole_of(x, values, scale=ALPHA / RANK):
    f = base_of(x, values, scale)
    return x + f + delta_of(x + f, values) if len(values) > 12 else f


def scaled(scale):
    return lambda x, *values: whole_of(x, values, scale)


def right(x, *values):
    return whole_of(x, values)


def without_residual(x, *values):
    f = base_of(x, values)
    return f + delta_of(f, values)


SCALES = {"alpha-ignored": scaled(16.0 / RANK), "scale-missing": scaled(1.0)}
SLIPS = SCALES | {
    "adapter-missing": lambda x, *values: base_of(x, values),
    "block-residual-missing": without_residual,
    "adapter-parallel": lambda x, *values: x + base_of(x, values) + delta_of(x, values),
}


def model_of(draw, adapter=True, dtype=torch.float32):
    values = pieces(draw, dtype, adapter)
    what = "the output with an adapter" if adapter else "the output without an adapter"
    return Layer(make, fill, right, SLIPS if adapter else SCALES, values, D, what=what)


def wide(values):
    return [v.double() for v in values]


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


def fill(model, *values):
    """Put the values of LoRA and of the adapter into a model; those of base stay."""
    base = need(model, "sublayer") if len(values) > 12 else model
    for name, (A, B) in zip(NAMES, (values[8:10], values[10:12])):
        set_(base.get_submodule(name), lora_A=A, lora_B=B)
    if len(values) > 12:
        write(need(model, "adapter"), *values[12:])
    return model


def make(kata, *values):
    return fill(build(kata, values, values[12].shape[0] if len(values) > 12 else None)[1], *values)


# shape


@part("shape")
def test_outputs_of_any_shape(stage, draw):
    """Both models take (..., d): none, one or several leading dimensions."""
    leads = ((2, 7), (2, 3, 4), (1, 1), ())
    with blame("no-block", "should be an AdapterBlock"):
        for adapter in (False, True):
            model = model_of(draw, adapter)
            properties.leading_dimensions(stage, draw, model, leads, bug=None)


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


def smallest(kata, x, *values):
    _, model, _ = build(kata, values, 1, rank=1, alpha=-2.0)
    size = need(need(model, "adapter"), "down_proj").out_features
    return size, fill(model, *values)(x) if size == 1 else None


@part("shape")
def test_smallest_sizes(stage, draw):
    """A rank of 1, a bottleneck_dim of 1 and a negative alpha are legal."""
    *base, A1, B1, A2, B2 = pieces(draw, adapter=False)
    factors, adapter = (A1[:1], B1[:, :1], A2[:1], B2[:, :1]), bottlenecks.pieces(draw, d=D, low=1)
    values, x = (*base, *factors, *adapter), draw(5, D)
    size, y = stage(smallest, x, *values)
    require(size == 1, f"the bottleneck has {size} features, expected 1")
    want = whole_of(x.double(), wide(values), -2.0)
    near(y, want, what="the output at rank 1, bottleneck_dim 1 and alpha -2")


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
    f = base_of(x.double(), wide(values), 0.0)
    near(y, f, what="the output at the start")
    near(z, x.double() + f, what="the output at the start, with an adapter")
    for name, value in (("fc.weight", values[0]), ("out.base.weight", values[5])):
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


@part("forward")
def test_output_with_lora_and_adapter(stage, draw):
    """The output is h + adapter.forward_delta(h), h = x + base(x), LoRA at work in base."""
    model = model_of(draw)
    values = replace(model, values=(*model.values[:8], *pieces(draw)[8:]))
    properties.follows_its_values(stage, draw, model, values, slips=SLIPS)


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
    write(model.adapter, *adapter)
    y = model(x)
    runs = base.runs
    (y * g).sum().backward()
    return y, x.grad, runs


@part("forward")
def test_base_across_positions(stage, draw):
    """The base gets x as it is, runs once, and its output is not changed in place."""
    weight, bias = draw(D, D, std=0.4), draw(D, std=0.4)
    adapter = bottlenecks.pieces(draw, d=D, low=LOW)
    x, g = draw(2, 3, D), draw(2, 3, D)
    y, to_x, runs = stage(other_base, weight, bias, adapter, x, g)
    xd = x.double().requires_grad_()
    h = xd + torch.tanh(xd.cumsum(-2) @ weight.double().T + bias.double())
    want = h + delta_of(h, (*[None] * 12, *wide(adapter)))
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


def default_scale(kata, x, *values):
    return fill(kata.build_lora_adapter_model(net(values), list(NAMES))[0], *values)(x)


@part("forward")
def test_default_rank_and_alpha(stage, draw):
    """rank defaults to 8 and alpha to 16."""
    *base, A1, B1, A2, B2 = pieces(draw, adapter=False)
    A1, A2 = (torch.cat([A, A, A])[:8] for A in (A1, A2))
    B1, B2 = (torch.cat([B, B, B], 1)[:, :8] for B in (B1, B2))
    values, x = (*base, A1, B1, A2, B2), draw(5, D)
    want = whole_of(x.double(), wide(values), 2.0)
    near(stage(default_scale, x, *values), want, what="the output at the default rank and alpha")


# gradient


def strays(kata, x, *values):
    """What gets a gradient, though it is base's own."""
    base, model, _ = build(kata, values, values[12].shape[0] if len(values) > 12 else None)
    layers = [base.get_submodule(name) for name in NAMES]
    own = {id(p) for layer in layers for p in (layer.lora_A, layer.lora_B)}
    fill(model, *values)(x).square().sum().backward()
    return [n for n, p in base.named_parameters() if p.grad is not None and id(p) not in own]


def _gradients(stage, draw, model, modes):
    names = [f"{name}.lora_{which}" for name in NAMES for which in "AB"]
    if len(model.values) > 12:
        names = [f"sublayer.{name}" for name in names]
        names += [f"adapter.{name}" for name in bottlenecks.NAMES]
    places = {name: place for place, name in enumerate(names, 8)}
    words = {"to_input": True, "after_no_grad": True, "modes": modes}
    properties.gradients_of(stage, draw, model, places, **words)
    stray = ", ".join(stage(strays, draw(5, D), *model.values)[:3])
    require(not stray, f"of base {stray} gets a gradient", "base-thawed")


@part("gradient")
def test_gradients(stage, draw):
    """Factors, adapter and input get the exact gradients; base's own parameters get none."""
    model = model_of(draw)
    _gradients(stage, draw, model, MODES)
    fresh = [0 * v if place in (9, 11, 14, 15) else v for place, v in enumerate(model.values)]
    what = f"{model.what}, lora_B and up_proj at zero"
    _gradients(stage, draw, replace(model, values=tuple(fresh), what=what), ("train",))


@part("gradient")
def test_gradients_without_an_adapter(stage, draw):
    """Without bottleneck_dim factors and input get the exact gradients too."""
    _gradients(stage, draw, model_of(draw, adapter=False), ("train",))


# state


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another model's state reproduces its outputs."""
    properties.state_round_trip(stage, draw, model_of(draw), model_of(draw))


# dtype and device


def kinds(kata, values, names):
    base, model, _params = build(kata, values, 5, names)
    return {
        "adapter": sorted({str(p.dtype)[6:] for p in need(model, "adapter").parameters()}),
        "base": sorted({str(p.dtype)[6:] for p in base.parameters()}),
    }


def _dtype(stage, draw, dtype):
    model = model_of(draw, dtype=dtype)
    name = str(dtype).removeprefix("torch.")
    for names in (NAMES, ()):
        got = stage(kinds, model.values, names)
        require(got["base"] == [name], f"base was {name} and is now {', '.join(got['base'])}")
        known = "adapter-float32" if got["adapter"] == ["float32"] else None
        where = "" if names else " (no lora_names)"
        text = f"the adapter is {', '.join(got['adapter'])}, the base's parameters are {name}"
        require(got["adapter"] == [name], f"{text}{where}", known)
    properties.in_dtype(stage, draw, model)


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


def on_device(kata, x, device, *values):
    moved = net(values).to(device)
    model, _params = kata.build_lora_adapter_model(moved, list(NAMES), 3, 10.5, 8, 5)
    places = sorted({p.device.type for p in model.parameters()})
    return places, fill(model, *(v.to(device) for v in values))(x.to(device))


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs on the accelerator are those of the CPU, and nothing stays behind."""
    model, x = model_of(draw), draw(4, D)
    places, y = stage(on_device, x, stage.device, *model.values)
    text = f"parameters are on {', '.join(places)}"
    require(list(places) == [stage.device], text, "adapter-on-cpu")
    near(y, model.output(x), rtol=1e-3, atol=1e-3)
