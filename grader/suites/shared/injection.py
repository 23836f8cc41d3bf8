"""What holds of functions that put adapters into a model which is already built.

A suite tells how its function is called, which layers it must then wrap, and what a wrapped layer
computes of what its base gives (`Injection`); outputs and gradients follow. Each property is one
check. Last come those of functions that are given the layers' names, and those of LoRA.

A model is given by the function that makes it, on the stage and in the examiner alike.
"""

import itertools
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from grader.exam.checks import Raised, blame, fail, near, rejects, require, same
from grader.exam.kit import CheapMeta, Missing, set_

WIDTH = 5  # of what goes into `net` and `plain`
STRANGE, EARLIER = "a tensor that is not in the model", "a tensor of an earlier call"
# Parameters of the model's own that are called as if they were an adapter's.
OWN = {"lora_gate", "lora_act.weight", "mix.lora_A_gain", "lora_A", "lora_B"}
OWN |= {"scale", "rms.scale", "scale_act.weight", "logit_scale", "pair.scale"}


# Models


def net():
    """Layers at the top, in modules, in a ModuleList, a Sequential and a ModuleDict; `pair`
    is much like an adapted layer."""

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj = nn.Linear(6, 9)
            self.o_proj = nn.Linear(9, 6, bias=False)

        def forward(self, x):
            return self.o_proj(torch.tanh(self.q_proj(x)))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(6)
            self.attn = Attention()
            self.mlp = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 6), nn.Tanh())

        def forward(self, x):
            x = x + self.attn(self.norm(x))
            return x + self.mlp(x)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(5, 6)
            self.neck = Attention()
            self.blocks = nn.ModuleList([Block(), Block()])
            self.mix, self.rms, self.pair = nn.Module(), nn.Module(), nn.Module()
            self.pair.base = nn.Linear(4, 4)
            self.exits = nn.ModuleDict({"out": nn.Linear(6, 4), "0": nn.Linear(6, 4)})
            self.lora_act, self.scale_act = nn.PReLU(), nn.PReLU()
            self.tones = nn.ParameterList([nn.Parameter(torch.ones(4))])
            self.fc_gate = nn.Parameter(torch.ones(()))
            self.register_buffer("offset", torch.ones(4))
            own = {self: "gain shift lora_gate lora_A lora_B scale logit_scale"}
            own |= {self.mix: "lora_A_gain", self.rms: "scale", self.pair: "scale"}
            own |= {self.exits: "tone", self.blocks[0].mlp: "tone"}
            for holder, called in own.items():
                for word in called.split():
                    holder.register_parameter(word, nn.Parameter(torch.ones(4)))

        def forward(self, x):
            x = self.neck(self.fc(x))
            for block in self.blocks:
                x = block(x)
            x = self.lora_act(self.exits["out"](x) + self.exits["0"](x))
            x = self.gain * x + self.pair.scale * self.pair.base(x)
            x = self.scale_act(x + self.lora_gate + self.mix.lora_A_gain + self.rms.scale)
            return self.scale + x + self.logit_scale + self.shift + self.offset

    return Net()


def tied():
    """`enc` is `dec` too, `side.1` is `out` and `top` is `box.0`; `stack.0` and `stack.1` are one
    module; `mid` is like `enc`, untied."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc = nn.Linear(6, 6)
            self.mid = nn.Linear(6, 6)
            self.dec = self.enc
            shared = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
            self.stack = nn.ModuleList([shared, shared])
            self.side = nn.Sequential(nn.Tanh(), nn.Linear(6, 6))
            self.out = self.side[1]
            self.top = nn.Linear(6, 6)
            self.box = nn.ModuleList([self.top])

        def forward(self, x):
            x = self.dec(torch.tanh(self.mid(torch.tanh(self.enc(x)))))
            for layer in self.stack:
                x = x + layer(x)
            return self.top(self.out(x + self.side(x))) + self.box[0](x)

    return Tied()


TIES = (("enc", "dec"), ("stack.0.0", "stack.1.0"), ("side.1", "out"), ("top", "box.0"))


def sharing():
    """`left` and `right` are two layers with one weight, which is the embedding's too."""

    class Sharing(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(6, 6)
            self.mid = nn.Linear(6, 6)
            self.left, self.right = (nn.Linear(6, 6, bias=False) for _ in range(2))
            self.left.weight = self.right.weight = self.embed.weight

        def forward(self, x):
            x = self.mid(torch.tanh(self.left(x)))
            return self.right(torch.tanh(x)) + self.embed.weight.sum(0)

    return Sharing()


def alike():
    """Layers whose names hold each other, or are like those in an adapted layer."""

    class Alike(nn.Module):
        def __init__(self):
            super().__init__()
            for name in ("proj", "proj2", "proj_out", "q_proj", "k", "inner_proj"):
                self.add_module(name, nn.Linear(4, 4))
            self.register_module("gap", None)
            self.base, self.other = nn.Linear(1, 1), nn.Linear(1, 1)
            self.inner = nn.ModuleDict({n: nn.Linear(4, 4) for n in ("proj", "k", "base")})
            self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(12)])

    return Alike()


def deep():
    """Plain modules in one another, with a layer called `fc` at each depth."""

    class Deep(nn.Module):
        def __init__(self, depth):
            super().__init__()
            self.fc = nn.Linear(4, 4)
            if depth:
                self.inner = Deep(depth - 1)

    return Deep(6)


def plain():
    """Two linears at the top, and nothing else."""

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(5, 7), nn.Linear(7, 4)

        def forward(self, x):
            return self.second(torch.tanh(self.first(x)))

    return Plain()


def others():
    """Two linears, and modules between them that are none, some of them much like one."""

    class Linear(nn.Module):  # in name and attributes alone
        pass

    odd = Linear()
    odd.weight, odd.bias = nn.Parameter(torch.zeros(6, 6)), None
    odd.in_features = odd.out_features = 6
    kinds = {"embed": nn.Embedding(6, 6), "conv": nn.Conv1d(6, 6, 1), "norm": nn.LayerNorm(6)}
    kinds |= {"pair": nn.Bilinear(6, 6, 6), "cell": nn.GRUCell(6, 6), "odd": odd}
    return nn.Sequential(nn.Linear(6, 6), nn.ModuleDict(kinds), nn.Linear(6, 6))


@cache
def specimen(make):
    """A model to look at, for the examiner."""
    return make()


def linears(make):
    """Names of the linears: for one that has several, the first."""
    return [name for name, m in specimen(make).named_modules() if type(m) is nn.Linear]


def states(draw, make, dtype=torch.float32):
    """Values for every tensor of a model; tied ones get the same."""
    state = specimen(make).state_dict()
    tensors = {(v.data_ptr(), v.shape): v for v in state.values()}
    sizes = [v.numel() for v in tensors.values()]
    drawn = draw(sum(sizes), std=0.4, dtype=dtype).split(sizes)
    values = dict(zip(tensors, drawn))
    return {n: values[v.data_ptr(), v.shape].view(v.shape) for n, v in state.items()}


# What a suite tells

Make = Callable[[], nn.Module]


@dataclass(frozen=True)
class Injection:
    """A function that puts adapters into a model, in place.

    call: a probe's helper with the function's name, `call(kata, model, where, **options)`, where
    `where` is what the function is told of the layers; layers: of what makes a model and of `where`
    the names of those that it must wrap; usual: `where` for `net`; every: for all of a model.
    new: what an adapter's tensors are called; word: what messages call one; draws: their values,
    of draw, layer and dtype; right, slips: formulas of what an adapter computes of x, of its
    base's output and of the values, and of what known mistakes do.
    own: the mistake of taking a parameter for an adapter's by its name; ordered: whether the list
    has an order.
    """

    call: Callable[..., Any]
    layers: Callable[[Make, Any], list[str]]
    usual: Any
    every: Callable[[Make], Any]
    new: tuple[str, ...]
    word: str
    draws: Callable[..., tuple[Tensor, ...]]
    right: Callable[..., Tensor]
    slips: Mapping[str, Callable[..., Tensor]]
    own: str = "own-names-taken"
    ordered: bool = True

    def ask(self, stage, probe, *args, make=net):
        return stage(probe, *args, make=make, call=self.call, new=self.new)

    def after(
        self, stage, make, *wheres, probe=None, beside=(), form=None, state=None, x=None, **options
    ):
        """What is so after a call for the last of `wheres`, those before in earlier calls, and one
        for another model where `beside` holds one: the words are those of `after_call`."""
        names = [name for where in wheres for name in self.layers(make, where)]
        args = list(wheres), names, list(beside), form, state, x, options
        return SimpleNamespace(**self.ask(stage, probe or after_call, *args, make=make))

    def tensors(self, names):
        return [f"{name}.{new}" for name in names for new in self.new]

    def adapted(self, draw, make, where, dtype=torch.float32, **options):
        """A model with layers to be wrapped, with values for all its tensors and all adapters."""
        model = specimen(make)
        layers = {name: model.get_submodule(name) for name in self.layers(make, where)}
        values = {n: self.draws(draw, layer, dtype, **options) for n, layer in layers.items()}
        return Adapted(self, make, where, states(draw, make, dtype), values)

    def net(self, draw, dtype=torch.float32):
        return self.adapted(draw, net, self.usual, dtype)


@contextmanager
def borrowed(make):
    """A float64 model without gradients of its own, and its tensors by name: to make one takes
    longer than to run it. One thread has it at a time."""
    spare = _spare.setdefault(make, [])
    try:
        model, held = spare.pop()
    except IndexError:
        model = make().double().requires_grad_(False)
        held = model.state_dict(keep_vars=True)
    try:
        yield model, held
    finally:
        for layer in model.modules():
            vars(layer).pop("forward", None)
        spare.append((model, held))


_spare: dict[Make, list[tuple[nn.Module, dict[str, Tensor]]]] = {}


@dataclass(frozen=True)
class Adapted:
    """A model, `where` it is adapted, the values of its tensors and, by layer, of its adapters."""

    kind: Injection
    make: Make
    where: Any
    state: dict[str, Tensor]
    values: dict[str, tuple[Tensor, ...]]

    def ask(self, stage, probe, *args):
        given = self.state, self.where, self.values
        return self.kind.ask(stage, probe, *given, *args, make=self.make)

    def output(self, x, formula=None):
        with torch.no_grad(), self._run({"x": x.double()}, formula or self.kind.right) as y:
            return y

    def gradients(self, x):
        """Of the output's squared sum, by name: to the input (`x`) and to the adapters."""
        inputs = {"x": x}
        for name, tensors in self.values.items():
            inputs |= zip(self.kind.tensors([name]), tensors)
        leaves = {n: v.double().clone().requires_grad_() for n, v in inputs.items()}
        with self._run(leaves, self.kind.right) as y:
            found = torch.autograd.grad(y.square().sum(), list(leaves.values()))
        return dict(zip(leaves, found))

    @contextmanager
    def _run(self, leaves, formula):
        """The output of the float64 model, each adapted layer of which computes the formula. Inside
        nobody else has the model: its tensors are those that the gradients need."""
        with borrowed(self.make) as (model, held):
            for name, value in self.state.items():
                held[name].copy_(value)
            for name, values in self.values.items():
                wide = [
                    leaves.get(f"{name}.{n}", v.double()) for n, v in zip(self.kind.new, values)
                ]
                layer = model.get_submodule(name)

                def forward(x, base=layer.forward, values=wide):
                    return formula(x, base(x), *values)

                layer.forward = forward
            yield model(leaves["x"])


# What probes share; `it` holds what Injection.ask hands to each


def inject(kata, model, where, it, **options):
    """The model and the list, as the call returns them."""
    given = list(where) if isinstance(where, list) else where
    result = it["call"](kata, model, where, **options)
    name = it["call"].__name__
    if where != given:
        raise Missing(f"{name} changes the list of names that it is given")
    if isinstance(result, nn.Module):
        raise Missing(f"{name} returns the model alone, not (model, list of parameters)")
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        kind = type(result).__name__
        raise Missing(f"{name} should return (model, list of parameters), not {kind}")
    if not isinstance(result[0], nn.Module):
        raise Missing(f"{name} returns the model first, not a {type(result[0]).__name__}")
    return result


def filled(model, state):
    model.to(next(iter(state.values())).dtype).load_state_dict(state)
    return model


def put(model, values, it):
    """Write the adapters' values."""
    for name, tensors in values.items():
        set_(model.get_submodule(name), **dict(zip(it["new"], tensors)))
    return model


def adapt(kata, state, where, values, it):
    """The model with its layers adapted and all values in place."""
    model = filled(it["make"](), state)
    inject(kata, model, where, it)
    return put(model, values, it)


def is_adapted(layer, it):
    if type(layer).__module__.startswith("torch.nn."):
        return False  # asking it for what it has not got would take long
    return all(hasattr(layer, name) for name in it["new"])


def called(model, it, names=()):
    """By id what parameters are called: an adapter's, and those of its base, under its name,
    `names` before others, whatever else they are registered as."""
    known = {}
    layers = [(name, model.get_submodule(name)) for name in names]
    for name, layer in (*layers, *model.named_modules(remove_duplicate=False)):
        if not (name and is_adapted(layer, it)):
            continue
        for new in it["new"]:
            known.setdefault(id(getattr(layer, new)), f"{name}.{new}")
        base = getattr(layer, "base", None)
        for key, p in base.named_parameters() if isinstance(base, nn.Module) else ():
            known.setdefault(id(p), f"{name}.base.{key}")
    for name, p in model.named_parameters():
        known.setdefault(id(p), name)
    return known


def labels(params, known):
    return [known.get(id(p), stranger(p)) for p in params]


def stranger(value):
    return STRANGE if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"


def training(model, known):
    """What the parameters that train are called, each once."""
    return labels([p for p in model.parameters() if p.requires_grad], known)


def kind_of(new, old, it):
    """What stands where `old` stood."""
    if new is old:
        return "left"
    base = getattr(new, "base", None)
    if base is old and is_adapted(new, it):
        return "wrapped"
    return "copied" if isinstance(base, nn.Linear) else type(new).__name__


def formed(names, form):
    """Names as another iterable than a list."""
    forms = {"tuple": tuple, "set": set, "dict": dict.fromkeys, "iterator": iter}
    forms |= {"keys": lambda names: dict.fromkeys(names).keys()}
    forms |= {"generator": lambda names: (name for name in names)}
    return forms[form](names) if form else names


def after_call(kata, wheres, names, beside, form, state, x, options, **it):
    """What is so after the last of some calls for one model. Modules go by the names that they
    had before that call."""
    lists = [inject(kata, it["make"](), w, it)[1] for w in beside]
    elsewhere = [p for params in lists for p in params]
    model = it["make"]() if state is None else filled(it["make"](), state)
    *earlier, where = wheres
    lists += [inject(kata, model, other, it)[1] for other in earlier]
    were = [list(map(id, params)) for params in lists if isinstance(params, list)]
    old = dict(model.named_modules(remove_duplicate=False))
    modes = {n: m.training for n, m in old.items() if type(m) is not nn.Linear}
    held = {
        (n, key): (value, value.detach().clone())
        for n, m in old.items()
        for key, value in (*m._parameters.items(), *m._buffers.items())
        if value is not None
    }
    got, params = inject(kata, model, formed(where, form), it, **options)
    still = [list(map(id, params)) for params in lists if isinstance(params, list)]
    after = dict(model.named_modules(remove_duplicate=False))
    now = {n: model.get_submodule(n) for n in old}  # `after` may hold another of this name
    fresh = {n: m for n, m in now.items() if m is not old[n]}
    adapted = {n: now[n] for n in names if is_adapted(now[n], it)}
    tensors = {f"{n}.{new}": getattr(m, new) for n, m in adapted.items() for new in it["new"]}
    bases = {**now, **{n: getattr(m, "base", m) for n, m in fresh.items()}}
    kept = [(f"{n}.{key}", getattr(bases[n], key, None), *was) for (n, key), was in held.items()]
    state, known = model.state_dict(), called(model, it, names)
    found = labels(params, known) if isinstance(params, list) else []
    ids = {id(m): n for n, m in reversed(now.items())}
    return {
        "returned": got is model,
        "kinds": {n: kind_of(m, old[n], it) for n, m in fresh.items()},
        "one": {n: ids[id(m)] for n, m in now.items() if ids[id(m)] != n},  # its first name
        "ordered": [n for n in after if n in old] == list(old),
        "switched": [n or "the model" for n, mode in modes.items() if old[n].training != mode],
        "moved": [n for n, v, was, _ in kept if v is not was],
        "altered": [n for n, v, _, copy in kept if v is not None and not equal(v, copy)],
        "biased": [n for n in names if getattr(bases[n], "bias", None) is not None],
        "dtypes": {n: bases[n].weight.dtype for n in adapted if hasattr(bases[n], "weight")},
        "made": {n: (tuple(v.shape), v.dtype, v.device.type) for n, v in tensors.items()},
        "saved": [n for n in tensors if n in state],
        "type": "list" if isinstance(params, list) else type(params).__name__,
        "stays": still == were,
        "list": [EARLIER if any(p is e for e in elsewhere) else n for p, n in zip(params, found)],
        "trains": training(model, known),
        "y": None if x is None else model(x),
    }


def equal(value, other):
    same = value.dtype == other.dtype and value.device == other.device
    return same and (value.device.type == "meta" or torch.equal(value, other))


# What lists of names say


def holds(kind, got, names, *, order=None, doubled=None, missing=None, otherwise=None):
    """A list of parameters must hold the adapters' of these layers. order: what another order
    than any known one is called; doubled: what a list that holds one twice is; missing: what one
    is that lacks some; otherwise: what one is that holds a strange tensor."""
    want = kind.tensors(names)
    if got == want or (not kind.ordered and sorted(got) == sorted(want)):
        return
    bug = otherwise if STRANGE in got else None
    extra = set(got) - set(want)
    if otherwise is None and STRANGE in got and len(got) == len(want):
        bug = f"{kind.word}s-copied"
    elif EARLIER in got:
        bug = f"earlier-{kind.word}s-returned"
    elif extra and extra <= OWN:
        bug = kind.own
    elif otherwise is None and any(of_base(name, names) for name in got):
        bug = "base-parameters-listed"
    elif set(got) == set(want) and len(got) > len(want):
        bug = doubled
    elif set(got) < set(want) and len(set(got)) == len(got):
        bug = missing
    elif sorted(got) == sorted(want):
        bug = known_order(kind, got, names) or order
    require(False, f"the list holds {words(got)}; expected {words(want)}", bug)


def known_order(kind, got, names):
    if len(names) < 2:
        return None  # too short to tell one order from another
    if got == [f"{name}.{new}" for name in names for new in reversed(kind.new)]:
        return "b-before-a"
    grouped = [f"{name}.{new}" for new in kind.new for name in names]
    return "all-a-before-all-b" if got == grouped else None


def of_base(parameter, names):
    """Whether a parameter is one of the base of one of these layers."""
    layer, base, _ = parameter.rpartition(".base.")
    return bool(base) and layer in names


def words(names):
    runs = ((name, len(list(run))) for name, run in itertools.groupby(names))
    return ", ".join(name if n == 1 else f"{n} x {name}" for name, n in runs) or "nothing"


def only(kind, flags, names, frozen=(), skipped=()):
    """Of all parameters only the adapters' of these layers must train. flags: names of those that
    do; frozen: for each of the adapters' whether requires_grad is False; skipped: layers whose
    training is a mistake of its own."""
    want = set(kind.tensors(names))
    missing, extra = sorted(want - set(flags)), sorted(set(flags) - want)
    bug = f"{kind.word}s-frozen" if all(frozen) and len(missing) == len(frozen) > 0 else None
    require(not missing, f"not among what trains: {', '.join(missing)}", bug)
    owners = {name.rpartition(".")[0] for name in extra}
    inside = [name for name in extra if of_base(name, names)]
    new = [name for name in extra if name.endswith(tuple(f".{n}" for n in kind.new))]
    if extra and owners <= set(skipped):
        bug = "skipped-not-frozen"
    elif extra and OWN.issuperset(extra):
        bug = kind.own
    elif extra and all(name.endswith(".bias") for name in extra):
        bug = "biases-not-frozen"
    elif not inside and OWN.issuperset(new) and owners.isdisjoint(names):
        bug = "others-not-frozen"
    elif len(inside) == len(extra):
        bug = "base-not-frozen"
    require(not extra, f"not frozen: {', '.join(extra)}", bug)


def akin(name, other):
    """Whether one name is in the other, or they end alike, any character standing for a dot."""
    name, other = name.replace(".", "_"), other.replace(".", "_")
    return name in other or name.rpartition("_")[2] == other.rpartition("_")[2]


def short(dtype):
    return str(dtype).removeprefix("torch.")


# Shapes


def adapters_have_shapes(stage, draw, kind, make, where, slips=None, **options):
    """Every adapter's tensors have the shapes that fit its layer. slips: by mistake the options
    that give its shapes."""
    slips = slips or {}
    made = kind.after(stage, make, where, **options).made
    for name in kind.layers(make, where):
        layer, called = specimen(make).get_submodule(name), kind.tensors([name])
        require(all(new in made for new in called), f"`{name}` has no {' and '.join(kind.new)}")
        got = [made[new][0] for new in called]
        want, *wrong = (
            [tuple(v.shape) for v in kind.draws(draw, layer, torch.float32, **given)]
            for given in (options, *slips.values())
        )
        bug = next((bug for bug, other in zip(slips, wrong) if got == other), None)
        for new, shape, right in zip(called, got, want):
            require(shape == right, f"{new} has shape {shape}, expected {right}", bug)


def output_for(kata, state, where, values, x, **it):
    return adapt(kata, state, where, values, it)(x)


def computes(stage, model, x, what="the output"):
    """The adapted model's output for x is right."""
    slips = model.kind.slips.items()
    known = {bug: lambda slip=slip: model.output(x, slip) for bug, slip in slips}
    near(model.ask(stage, output_for, x), model.output(x), what=what, unless=known, dtype=x.dtype)


def any_leading_dimensions(stage, draw, model):
    """The adapted model takes (..., d), a single vector too."""
    for lead in [(7,), (2, 3), (2, 3, 4), (1, 1), ()]:
        x = draw(*lead, WIDTH)
        computes(stage, model, x, f"the output for x {tuple(x.shape)}")


def output_for_views(kata, state, where, values, x, **it):
    model = adapt(kata, state, where, values, it)
    return model(x.transpose(0, 1)), model(x[:, ::2])


def non_contiguous(stage, draw, model):
    """Inputs need not be contiguous."""
    x = draw(4, 6, WIDTH)
    for y, view in zip(model.ask(stage, output_for_views, x), (x.transpose(0, 1), x[:, ::2])):
        near(y, model.output(view))


# What is replaced, and what is returned


def returns_the_same_model(stage, kind, make, where):
    """The very model passed in is changed and returned, not a copy."""
    came = kind.after(stage, make, where)
    message = "the model returned is another object than the one passed in"
    require(came.returned, message, None if came.kinds else "model-copied")
    require(came.kinds, "in the model passed in the layers are still the same")


def wraps(stage, kind, make, where, left=None):
    """Every layer asked for is wrapped, its values untouched; returns what else is replaced.
    left: the mistake of leaving some plain, or a function of those and of all that names it."""
    names = kind.layers(make, where)
    came = kind.after(stage, make, where)
    missed = [name for name in names if name not in came.kinds]
    bug = left(missed, names) if missed and callable(left) else left
    require(not missed, f"not replaced: {', '.join(missed)}", bug)
    for name in names:
        made, weight = came.kinds[name], f"{name}.weight"
        require(weight not in came.altered, f"`{weight}` has changed", "weights-lost")
        text = f"`base` of `{name}` is not the layer that was there"
        require(made != "copied", text, "base-copied")
        text = f"`{name}` is now a {made}, not an adapted layer around the old one"
        require(made == "wrapped", text)
    extra = [name for name in came.kinds if name not in names]
    altered = [name for name in came.altered if name.rpartition(".")[0] not in extra]
    require(not altered, f"the values of {', '.join(altered)} have changed")
    nothing_moved(came, extra)
    return extra


def nothing_moved(came, extra=()):
    """Every tensor is the one that it was, so that layers which share one go on sharing; those of
    `extra` modules aside."""
    moved = [name for name in came.moved if name.rpartition(".")[0] not in extra]
    require(not moved, f"not the same tensors as before: {', '.join(moved)}")


def out_of_order():
    """Sequentials in which keys are no positions."""
    inner, model = nn.Sequential(), nn.Sequential()
    inner.add_module("1", nn.Linear(6, 6)), inner.add_module("0", nn.Tanh())
    parts = {"2": nn.Linear(6, 6), "1": nn.Tanh(), "0": inner, "3": nn.LayerNorm(6)}
    for name, module in parts.items():
        model.add_module(name, module)
    return model


def children_keep_their_order(stage, draw, kind):
    """A layer takes the place of the one it replaces: a Sequential runs in the order it had."""
    where, x = kind.every(out_of_order), draw(3, 6)
    extra = wraps(stage, kind, out_of_order, where)
    require(not extra, f"in a Sequential also replaced: {', '.join(extra)}")
    bare = Adapted(kind, out_of_order, where, states(draw, out_of_order), {})
    came = kind.after(stage, out_of_order, where, state=bare.state, x=x)
    text = "the modules of a Sequential stand in another order afterwards"
    require(came.ordered, text, "order-lost")
    near(came.y, bare.output(x), what="the output of a Sequential at the start")


def listed(stage, kind, make, where, **how):
    """What is so after a call that wraps all that it must, another model having been adapted."""
    came = kind.after(stage, make, where, beside=[where], **how)
    left = [name for name in kind.layers(make, where) if f"{name}.{kind.new[0]}" not in came.made]
    require(not left, f"not adapted: {', '.join(left)}")
    return came


def list_of_the_new(stage, kind, make, where, missing=None):
    """The list holds exactly what is new, each once, itself and no copy."""
    came = listed(stage, kind, make, where)
    text = f"the parameters come as a {came.type}, expected a list"
    require(came.type == "list", text, "not-a-list")
    holds(kind, came.list, kind.layers(make, where), missing=missing)


def starts_as_it_was(stage, draw, kind, where):
    """Right after the call `net` computes what it did before, with the same values."""
    bare, x = Adapted(kind, net, None, states(draw, net), {}), draw(4, WIDTH)
    came = kind.after(stage, net, where, state=bare.state, x=x)
    require("neck.o_proj" not in came.biased, "`neck.o_proj` had no bias and has one now")
    near(came.y, bare.output(x), what="the output right after the call")
    require(not came.altered, f"the call changes the values of {', '.join(came.altered)}")


def net_in_eval():
    model = net().eval()
    model.blocks[0].train()
    return model


def net_in_training():
    model = net()
    model.blocks[0].eval()
    return model


def modes_stay(stage, kind):
    """Every module stays in the mode it was in, training or evaluation."""
    for make in (net_in_training, net_in_eval):
        changed = ", ".join(kind.after(stage, make, kind.usual).switched)
        text = f"the call switched between train() and eval(): {changed}"
        require(not changed, text, "mode-switched")


# Freezing


def flags_after_backward(kata, where, names, x, options, **it):
    model = it["make"]()
    inject(kata, model, where, it, **options)
    known = called(model, it, names)
    flags = training(model, known)
    if flags:
        model(x).square().sum().backward()
    layers = [model.get_submodule(name) for name in names]
    new = [getattr(v, n) for v in layers for n in it["new"] if hasattr(v, n)]
    touched = labels([p for p in model.parameters() if p.grad is not None], known)
    return flags, [not p.requires_grad for p in new], touched


def all_else_is_frozen(stage, draw, kind, where, skipped=(), **options):
    """What is new in `net` trains and gets gradients, and nothing else does."""
    names, x = kind.layers(net, where), draw(4, WIDTH)
    flags, frozen, touched = kind.ask(stage, flags_after_backward, where, names, x, options)
    only(kind, flags, names, frozen, skipped)
    strange = sorted(set(touched) - set(flags))
    require(not strange, f"a frozen parameter receives a gradient: {', '.join(strange)}")
    lost = sorted(set(flags) - set(touched))
    require(not lost, f"no gradient reaches {', '.join(lost)}")


def net_frozen_in_part():
    model = net().eval()
    for number, p in enumerate(model.parameters()):
        p.requires_grad_(number % 4 < 2)
    return model


def freezes_all_else(stage, kind, make, where):
    """Of what the model has after a call only what is new trains; what is shared stays so."""
    came = kind.after(stage, make, where)
    only(kind, came.trains, kind.layers(make, where))
    nothing_moved(came)


def call_under_no_grad(kata, *args, **it):
    """Called under no_grad, with another default dtype: what it leaves, and all else."""
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            came = after_call(kata, *args, **it)
            grad = torch.is_grad_enabled()
        dtype = torch.get_default_dtype()
    finally:
        torch.set_default_dtype(torch.float32)
    return {**came, "grad": grad, "dtype": dtype}


def called_under_no_grad(stage, draw, kind, where):
    """The call leaves grad mode and default dtype as they were, and freezes as ever."""
    state = states(draw, net)
    came = kind.after(stage, net, where, state=state, probe=call_under_no_grad)
    require(not came.grad, "called under torch.no_grad(), it leaves grad mode on")
    left = short(came.dtype)
    require(left == "float64", f"the default dtype was float64 and is {left} now")
    only(kind, came.trains, kind.layers(net, where))
    for name, (_, dtype, _) in came.made.items():
        require(dtype == torch.float32, f"{name} is {short(dtype)}, the layer is float32")


# What the adapted model computes


def outputs_of_the_moment(kata, state, where, values, more, x, **it):
    """For train, eval and train mode: after each step the output with a graph and without."""
    model = adapt(kata, state, where, values, it)
    seen = []
    for mode in (True, False, True):
        model.train(mode)
        for step in (values, more):
            put(model, step, it)
            seen.append(model(x))
            with torch.no_grad():
                seen.append(model(x))
    return seen


def follows_its_values(stage, draw, kind):
    """Outputs follow the values of the moment, and are the same in train and eval mode."""
    model, x = kind.net(draw), draw(4, WIDTH)
    other = replace(model, values=kind.net(draw).values)
    wanted = [m.output(x) for m in (model, other) for _ in range(2)]
    got = model.ask(stage, outputs_of_the_moment, other.values, x)
    for at, (y, want) in enumerate(zip(got, wanted * 3, strict=True)):
        mode = "train" if at // 4 != 1 else "eval"
        what = f"the output in {mode} mode{' under no_grad' * (at % 2)}"
        near(y, want, what=f"{what}{f' with new {kind.word}s' * (at > 1)}")


def output_after_a_step(kata, state, where, values, x, **it):
    model = filled(it["make"](), state)
    _, params = inject(kata, model, where, it)
    steps = {f"{n}.{new}": v for n, some in values.items() for new, v in zip(it["new"], some)}
    found = labels(params, called(model, it, values))
    with torch.no_grad():
        for p, name in zip(params, found):
            if name in steps:
                p.add_(steps[name] - p)
    return found, model(x)


def training_the_list_trains_the_model(stage, draw, kind):
    """What an optimizer does to the parameters of the list, the model computes with."""
    model, x = kind.net(draw), draw(4, WIDTH)
    listed(stage, kind, net, kind.usual)
    found, y = model.ask(stage, output_after_a_step, x)
    holds(kind, found, list(model.values))
    near(y, model.output(x), what="the output after a step on the list")


def outputs_of_two(kata, state, where, values, other, x, **it):
    first, second = (filled(it["make"](), s) for s in (state, other))
    inject(kata, first, where, it)
    inject(kata, second, where, it)
    put(first, values, it)
    return first(x), second(x)


def models_do_not_share(stage, draw, kind):
    """Two models adapted one after the other have nothing in common."""
    model, x = kind.net(draw), draw(4, WIDTH)
    bare = replace(model, state=states(draw, net), values={})
    first, second = model.ask(stage, outputs_of_two, bare.state, x)
    near(first, model.output(x), what="the output of the first of two models")
    near(second, bare.output(x), what="the output of the second of two models")


def input_after(kata, state, where, values, x, **it):
    model = adapt(kata, state, where, values, it)
    model(x)
    model.eval()(x)
    return x


def input_is_left_unchanged(stage, draw, kind):
    """The adapted model does not change its input in place."""
    x = draw(4, WIDTH)
    same(kind.net(draw).ask(stage, input_after, x), x, "the input")


def gradients_in_mode(kata, state, where, values, x, mode, device, **it):
    """In training, or in eval mode after a call without a graph: where parameters are after the
    call, the output, and the gradients of its squared sum by name."""
    model = filled(it["make"](), state).to(device)
    inject(kata, model, where, it)
    places = sorted({p.device.type for p in model.parameters()})
    put(model, {name: [v.to(device) for v in some] for name, some in values.items()}, it)
    x = x.to(device).requires_grad_()
    with torch.no_grad():
        model.eval()(x)
    y = model.train(mode)(x)
    y.square().sum().backward()
    new = [(name, n) for name in values for n in it["new"]]
    grads = {f"{name}.{n}": getattr(model.get_submodule(name), n).grad for name, n in new}
    return places, y, {"x": x.grad, **grads}


def gradients(stage, model, x):
    """All that is new and the input get their gradients, in either mode."""
    want = model.gradients(x)
    for mode in (True, False):
        _, _, got = model.ask(stage, gradients_in_mode, x, mode, "cpu")
        for name, value in want.items():
            what = "the gradient to the input" if name == "x" else f"the gradient of {name}"
            what += "" if mode else " in eval mode"
            require(got[name] is not None, f"{what} is missing")
            near(got[name], value, what=what, rtol=5e-4)


def same_on_the_accelerator(stage, draw, kind):
    """Outputs and gradients are those of the CPU, and nothing stays behind."""
    model, x = kind.net(draw), draw(4, WIDTH)
    places, y, got = model.ask(stage, gradients_in_mode, x, True, stage.device)
    text = f"parameters are on {', '.join(places)}; all was on {stage.device}"
    require(places == [stage.device], text)
    near(y, model.output(x), rtol=1e-3, atol=1e-3)
    for name, value in model.gradients(x).items():
        near(got[name], value, what=f"the gradient of {name}", rtol=2e-3, atol=1e-3)


# State, dtype, device


def state_names(stage, kind):
    """What is new is in the model's state dict under the layer's path."""
    names = kind.after(stage, net, kind.usual).saved
    for name in kind.tensors(kind.layers(net, kind.usual)):
        require(name in names, f"`{name}` is not in the state dict")


def outputs_after_loading(kata, state, where, values, other, x, **it):
    first, second = adapt(kata, state, where, values, it), filled(it["make"](), other)
    inject(kata, second, where, it)
    second(x)
    with torch.no_grad():
        second.eval()(x)
    second.load_state_dict(first.state_dict())
    return second(x), second.train()(x)


def state_round_trip(stage, draw, kind):
    """load_state_dict of another adapted model's state reproduces its outputs."""
    model, x = kind.net(draw), draw(4, WIDTH)
    for y in model.ask(stage, outputs_after_loading, states(draw, net), x):
        near(y, model.output(x), what="the output after load_state_dict")


def net_of_several_dtypes():
    model = net().double()
    model.neck.float()
    model.exits.bfloat16()
    return model


def dtype_of_the_layer(stage, kind, where, single=None):
    """What is new has its layer's dtype, in a model of several too. single: the mistake of making
    all in float32."""
    model = specimen(net_of_several_dtypes)
    came = kind.after(stage, net_of_several_dtypes, where)
    narrow = {dtype for _, dtype, _ in came.made.values()} == {torch.float32}
    for name in kind.layers(net_of_several_dtypes, where):
        require(name in came.dtypes, f"`{name}` is not wrapped")
        dtype, base = model.get_submodule(name).weight.dtype, came.dtypes[name]
        text = f"{name} was {short(dtype)}, its base is now {short(base)}"
        require(base == dtype, text, "model-cast")
        for new in kind.tensors([name]):
            made = came.made[new][1]
            text = f"{new} is {short(made)}, the layer is {short(dtype)}"
            require(made == dtype, text, single if narrow else None)


def works_in_dtype(stage, draw, model):
    """The output has the model's dtype, to its tolerance; the list holds the parameters."""
    dtype = next(iter(model.state.values())).dtype
    came = listed(stage, model.kind, model.make, model.where, state=model.state)
    holds(model.kind, came.list, list(model.values))
    computes(stage, model, draw(4, WIDTH, dtype=dtype))


def plain_on_meta():
    return plain().to("meta", torch.bfloat16)


def plain_half_on_meta():
    model = plain()
    model.first.to("meta")
    return model


def call_on_meta(kata, *args, **it):
    with CheapMeta():
        return after_call(kata, *args, **it)


def meta_device(stage, kind, where, on_cpu=None):
    """A model on the meta device gets its adapters there. where: for `second` and `first`; on_cpu:
    the mistake of making them on the CPU."""
    came = listed(stage, kind, plain_on_meta, where, probe=call_on_meta)
    places = {place for _, _, place in came.made.values()}
    text = f"{kind.word}s are on {', '.join(sorted(places))}; the model is on meta"
    require(places == {"meta"}, text, on_cpu if places == {"cpu"} else None)
    holds(kind, came.list, kind.layers(plain, where))
    for name, (_, dtype, _) in came.made.items():
        text = f"{name} is {short(dtype)}; the layer is bfloat16"
        require(dtype == torch.bfloat16, text)
    x = torch.empty(2, 3, WIDTH, device="meta", dtype=torch.bfloat16)
    y = kind.after(stage, plain_on_meta, where, probe=call_on_meta, x=x).y
    require(tuple(y.shape) == (2, 3, 4), f"the output has shape {tuple(y.shape)}")
    require(y.device.type == "meta", f"the output is on {y.device.type}, expected meta")
    made = kind.after(stage, plain_half_on_meta, where, probe=call_on_meta).made
    for name, (_, _, place) in made.items():
        wanted = "meta" if name.startswith("first.") else "cpu"
        require(place == wanted, f"{name} is on {place}, its layer on {wanted}")


# Functions that are given the names of the layers


PLACES = ("exits.out", "blocks.1.mlp.2", "fc", "neck.q_proj", "exits.0", "blocks.0.attn.q_proj")
PLACES += ("neck.o_proj",)  # one of every kind, in no order of the model's; that one has no bias


def by_name(call, **rest):
    """An Injection by a function that takes the names of the layers to wrap."""

    def layers(make, names):
        return list(dict.fromkeys(names))

    return Injection(call=call, layers=layers, usual=list(PLACES), every=linears, **rest)


def subclassed():
    class Heir(nn.Linear):
        pass

    return nn.ModuleDict({"heir": Heir(6, 4)})


def wraps_a_subclass_of_linear(stage, kind):
    """A layer of a class derived from nn.Linear is wrapped like any other."""
    wraps(stage, kind, net, ["fc"])
    with blame("subclass-refused"):
        wraps(stage, kind, subclassed, ["heir"], "subclass-refused")


def follows_dotted_paths(stage, kind):
    """Names are dotted paths of any depth."""
    wraps(stage, kind, deep, ["fc"])
    for name in ("inner.fc", "inner.inner.fc", "inner.inner.inner.fc"):
        with blame("dotted-path-fails"):
            wraps(stage, kind, deep, [name], "dotted-path-fails")


def follows_paths_through_containers(stage, kind):
    """Paths lead through nn.ModuleList, nn.Sequential and nn.ModuleDict, whatever its keys."""
    wraps(stage, kind, deep, ["inner.inner.inner.fc"])
    wraps(stage, kind, net, ["neck.q_proj"])
    for name in ("blocks.0.attn.q_proj", "blocks.1.mlp.2", "exits.out", "exits.0"):
        with blame("container-path-fails"):
            wraps(stage, kind, net, [name], "container-path-fails")


def replaces_no_other_layer(stage, kind):
    """Only the layers with exactly these names are replaced; all other modules stay as they are."""
    lists = (["proj"], ["k"], ["q_proj", "layers.1"], ["layers.11"], ["inner.proj"])
    for names in (*lists, ["base"], ["inner.base"]):
        extra = wraps(stage, kind, alike, names)
        related = all(any(akin(name, other) for name in names) for other in extra)
        bug = "all-linears-replaced" if "other" in extra else "part-of-a-name-matches"
        bug = bug if related or "other" in extra else None
        require(not extra, f"for {names} also replaced: {', '.join(extra)}", bug)


def second_call_returns_its_own(stage, kind):
    """A second call returns what is new in the layers that it wraps itself."""
    one, other = ["fc"], ["neck.q_proj"]
    for names in (one, other):
        holds(kind, listed(stage, kind, net, names).list, names)
    for first, second in ((one, other), (other, one)):
        came = kind.after(stage, net, first, second)
        earlier = [name for name in came.list if name in kind.tensors(first)]
        text = f"a second call returned the {kind.word}s of an earlier one: {words(earlier)}"
        require(not earlier, text, f"earlier-{kind.word}s-returned")
        holds(kind, came.list, second)
        require(came.stays, "a later call changes the list that an earlier one has returned")
        there = came.made.keys() >= set(kind.tensors((*first, *second)))
        require(there, "after a second call the first one's layers are not adapted any more")


def list_in_the_order_of_the_names(stage, kind):
    """The list follows the order of linear_names."""
    model = [name for name, _ in specimen(net).named_modules() if name in PLACES]
    for names in (list(PLACES), list(PLACES[::-1])):
        got = listed(stage, kind, net, names).list
        order = None
        if got == kind.tensors(model):
            order = "order-of-the-model"
        elif got == kind.tensors(sorted(names)):
            order = "order-of-the-alphabet"
        elif got == kind.tensors(name.rpartition(".")[0] for name in got[:: len(kind.new)]):
            order = "order-not-kept"
        holds(kind, got, names, order=order)


def any_iterable_of_names(stage, kind):
    """linear_names may be any iterable, a one-shot iterator too."""
    names = ["neck.q_proj", "fc"]
    holds(kind, listed(stage, kind, net, names).list, names)
    for form in ("tuple", "keys", "iterator", "generator"):
        once = form in ("iterator", "generator")
        bug = "iterator-used-up" if once else None
        with blame("iterator-refused" if once else None):
            came = kind.after(stage, net, names, form=form)
        there = all(name in came.kinds for name in names)
        require(there, f"given a {form} of names not every layer was replaced", bug)
        holds(kind, came.list, names)


def name_given_twice_counts_once(stage, kind):
    """A name given twice counts once."""
    bug = "name-twice-fails"
    holds(kind, listed(stage, kind, net, ["neck.q_proj", "fc"]).list, ["neck.q_proj", "fc"])
    for names in (["fc", "fc", "neck.q_proj"], ["neck.q_proj", "fc", "fc", "fc"]):
        with blame(bug):
            came = kind.after(stage, net, names)
        once = list(dict.fromkeys(names))
        for name in once:
            wrapped = came.kinds.get(name) == "wrapped"
            require(wrapped, f"with {names} `{name}` is not wrapped once", bug)
        holds(kind, came.list, once, doubled=f"{kind.word}s-listed-twice", otherwise=bug)


def second_name_of_a_layer(stage, kind):
    """A layer that the model has under two names can be given by either."""
    bug = "second-name-unknown"
    for first, second in TIES:
        wraps(stage, kind, tied, [first])
        with blame(bug):
            wraps(stage, kind, tied, [second], bug)


def named_ties_are_kept(stage, draw, kind):
    """A layer reached under two listed names is wrapped once and stays tied."""
    x, bug, doubled = draw(3, 6), "tied-not-kept", f"{kind.word}s-listed-twice"
    for name in itertools.chain(*TIES):
        came = kind.after(stage, tied, [name])
        require(came.kinds.get(name) == "wrapped", f"`{name}` is not wrapped")
        holds(kind, came.list, [name])
    computes(stage, kind.adapted(draw, sharing, ["right", "mid"]), x)
    for names in (*map(list, TIES), *(list(pair[::-1]) for pair in TIES)):
        both = f"`{names[0]}` and `{names[1]}`, one layer,"
        with blame(bug):
            came = kind.after(stage, tied, names)
        wrapped = all(came.kinds.get(name) == "wrapped" for name in names)
        require(wrapped, f"{both} are not both wrapped", bug)
        require(set(names) & came.one.keys(), f"{both} are two afterwards", bug)
        holds(kind, came.list, names[:1], doubled=doubled, otherwise=bug)
        with blame(bug):
            model = replace(kind.adapted(draw, tied, names[:1]), where=names)
            computes(stage, model, x, "the output when tied")


def layers_that_share_a_weight(stage, draw, kind, where):
    """Two layers that share only their weight are two; the weight stays shared."""
    names, bug = ["left", "right"], "layers-merged-by-weight"
    model = kind.adapted(draw, sharing, where)
    came = kind.after(stage, sharing, where)
    kinds = [came.kinds.get(name) for name in names]
    require(any(kinds), "two layers that share a weight were not replaced")
    left = [n for n in model.values if n not in (*names, *came.kinds)]
    require(not left, f"with a weight of its own, `{', '.join(left)}` is not wrapped")
    text = "two layers that share a weight are not both wrapped"
    require(kinds == ["wrapped"] * 2, text, bug if "wrapped" in kinds else None)
    require("right" not in came.one, "two layers that share a weight became one", bug)
    nothing_moved(came)
    holds(kind, came.list, list(model.values))
    computes(stage, model, draw(3, 6), "the output with a shared weight")


def empty_list_freezes_all(stage, kind):
    """With no names nothing is replaced, the list is empty, and all parameters are frozen."""
    for form in (None, "iterator"):
        came = kind.after(stage, net, [], form=form)
        require(came.returned, "the model returned is another object than the one passed in")
        require(not came.kinds, f"an empty list of names replaced {', '.join(came.kinds)}")
        require(not came.list, f"an empty list of names gave {words(came.list)}")
        everything = len(came.trains) == len(list(specimen(net).parameters()))
        bug = "empty-list-freezes-nothing" if everything else None
        require(not came.trains, f"not frozen: {', '.join(came.trains)}", bug)


def output_after_two_calls(kata, state, where, values, more, x, **it):
    model = adapt(kata, state, where, values, it)
    inject(kata, model, list(more), it)
    return put(model, more, it)(x)


def second_call_keeps_the_first(stage, draw, kind):
    """A second call leaves the layers of the first as they are."""
    x = draw(4, WIDTH)
    model = kind.adapted(draw, net, ["fc", "blocks.1.mlp.2"])
    more = kind.adapted(draw, net, ["neck.q_proj", "blocks.1.mlp.0"]).values
    y = model.ask(stage, output_after_two_calls, more, x)
    want = replace(model, values={**model.values, **more}).output(x)
    near(y, want, what="the output after two calls")


# Names that are refused


def net_and_others():
    model = net()
    model.extra = others()
    return model


def before_bad_names(kata, first, it):
    """The model for bad arguments: some layers adapted before, or some parameters frozen."""
    model = it["make"]()
    for number, p in enumerate(model.parameters()):
        p.requires_grad_(number % 3 != 0)
    if first:
        inject(kata, model, first, it)
    return model


def refused(kata, cases, options, first, **it):
    """Of each list of names the exception's types and text and what the call has changed, or None
    if none was raised. The last is the first that was not refused or has changed something."""
    model = before_bad_names(kata, first, it)
    modules = dict(model.named_modules(remove_duplicate=False))
    params = dict(model.named_parameters(remove_duplicate=False))
    flags = {name: p.requires_grad for name, p in params.items()}
    values = {name: p.detach().clone() for name, p in params.items()}
    rest = {name: held(module) for name, module in modules.items()}
    seen = []
    for names in cases:
        try:
            it["call"](kata, model, names, **options)
        except Exception as error:
            types = [f"{c.__module__}.{c.__qualname__}" for c in type(error).__mro__]
            now = dict(model.named_modules(remove_duplicate=False))
            after = dict(model.named_parameters(remove_duplicate=False))
            changed = {
                "modules": [n for n in {**modules, **now} if modules.get(n) is not now.get(n)],
                "order": [] if list(now) == list(modules) else ["modules"],
                "params": [n for n in {**params, **after} if params.get(n) is not after.get(n)],
                "flags": [n for n, p in params.items() if p.requires_grad != flags[n]],
                "values": [n for n, p in params.items() if not torch.equal(p, values[n])],
            }
            if not any(changed.values()):
                changed["rest"] = [n or "it" for n, m in modules.items() if held(m) != rest[n]]
            seen.append((types, str(error), changed))
            if not any(changed.values()):
                continue
        else:
            seen.append(None)
        break
    return seen


def held(module):
    """What a module holds, by name: of hooks and the like how many, of all else which."""
    return {k: len(v) if isinstance(v, dict) else id(v) for k, v in vars(module).items()}


def refused_alone(kata, names, options, first, **it):
    it["call"](kata, before_bad_names(kata, first, it), names, **options)


CHANGES = {
    "modules": ("replaced-before-check", "modules were replaced"),
    "order": (None, "the order was changed of"),
    "params": (None, "parameters were replaced"),
    "flags": ("frozen-before-check", "requires_grad was changed"),
    "values": (None, "values were changed"),
    "rest": (None, "attributes, hooks or the mode of a module were changed"),
}


def refuses(stage, kind, error, bug, cases, first=(), instead=(None, None), **options):
    """Each case, (names, what the message names), raises `error` and changes nothing. bug: the
    mistake of not looking; first: layers adapted before; instead: (another error, the mistake of
    raising that one)."""
    given = options, list(first)
    if first:
        saved = kind.after(stage, net_and_others, list(first)).saved
        require(saved, f"nothing of an adapter is among the parameters of `{first[0]}`")
    lists = [names for names, _ in cases]
    found = kind.ask(stage, refused, lists, *given, make=net_and_others)
    for (names, named), got in zip(cases, found):
        what = f"linear_names {names}" + "".join(f", {k}={v}" for k, v in options.items())
        if not (got and f"builtins.{error}" in got[0] and named in got[1]):
            alone = kind.ask(stage.attempt, refused_alone, names, *given, make=net_and_others)
            types = alone.types if isinstance(alone, Raised) and alone.deliberate else []
            if f"builtins.{instead[0]}" in types and f"builtins.{error}" not in types:
                fail(f"{what} must raise {error}, not {instead[0]}: {alone.text}", instead[1])
            rejects(alone, error, named, what=what, bug=bug)
            fail(f"{what} is refused in a new model, but not after other calls that failed")
        for key, (early, text) in CHANGES.items():
            changed = got[2].get(key, ())
            require(not changed, f"{what}: before the error {text}: {', '.join(changed)}", early)


def refuses_unknown_names(stage, kind):
    """A name that the model does not have raises KeyError with that name; nothing is changed."""
    bug, instead = "unknown-name-unchecked", ("TypeError", "unknown-is-type-error")
    cases = []
    for name in ("neck.nope", "fc.nope", "blocks.7.attn.q_proj", "exits.nope", "blocks.first.mlp"):
        cases += [(names, name) for names in ([name], ["fc", name], [name, "fc"])]
    for names in ([], ["fc", "neck.q_proj"], ["fc", "fc"]):
        cases += [([*names, "nope"], "nope")]
    refuses(stage, kind, "KeyError", bug, cases, instead=instead)
    for name in ("q_proj", "attn.q_proj", "mlp.2", "net.fc", "out"):
        outcome = stage.attempt(replaced_for, name, call=kind.call)
        new = [] if isinstance(outcome, Raised) else outcome
        related = new and all(akin(name, other) for other in new)
        text = f"linear_names {[name]} must raise KeyError; {words(new)} was replaced"
        require(not new, text, "part-of-a-name-matches" if related else None)
        refuses(stage, kind, "KeyError", bug, [(["fc", name], name)], instead=instead)
    near_misses = ("blocks.-1.attn.q_proj", "blocks.01.attn.q_proj", "exits.1", "FC", " fc")
    for name in (*near_misses, "model.fc"):
        refuses(stage, kind, "KeyError", None, [([name], name)], instead=instead)


def replaced_for(kata, name, call):
    """Which modules are replaced where this name does not raise."""
    model = net()
    before = dict(model.named_modules())
    call(kata, model, [name])
    return [n for n, old in before.items() if model.get_submodule(n) is not old]


def refuses_other_modules(stage, kind):
    """The name of a module that is no nn.Linear raises TypeError with that name."""
    names = [f"extra.1.{name}" for name in ("odd", "conv", "embed", "pair", "cell")]
    names += ["blocks.0.norm", "blocks", "blocks.1.mlp", "exits"]
    cases = [(some, name) for name in names for some in ([name], ["fc", "exits.0", name])]
    instead = ("KeyError", "other-modules-unknown")
    refuses(stage, kind, "TypeError", "type-unchecked", cases, instead=instead)


def refuses_adapted_layers(stage, kind):
    """The name of a layer that is adapted already raises TypeError with that name."""
    cases = [(["neck.o_proj", "neck"], "neck")]
    refuses(stage, kind, "TypeError", "type-unchecked", cases, ["fc"])
    for name in ("fc", "blocks.0.attn.q_proj"):
        cases = [([name], name), (["exits.0", name], name)]
        refuses(stage, kind, "TypeError", "adapted-twice", cases, [name])


# LoRA


RANK, ALPHA = 3, 10.4


def factors(draw, layer, dtype, rank=RANK):
    """lora_A and lora_B for a layer: an update as large as its weight."""
    out, wide = layer.weight.shape
    return draw(rank, wide, std=0.3, dtype=dtype), draw(out, rank, std=0.3, dtype=dtype)


def low_rank(scale):
    """What an adapted layer computes with this scale."""
    return lambda x, y, A, B: y + scale * (x @ A.T @ B.T)


LORA: dict[str, Any] = {
    "new": ("lora_A", "lora_B"),
    "word": "factor",
    "draws": factors,
    "right": low_rank(ALPHA / RANK),
    "slips": {"alpha-not-passed": low_rank(16.0 / RANK)},
}


def output_with_arguments(kata, state, where, values, x, args, options, **it):
    model = filled(it["make"](), state)
    getattr(kata, it["call"].__name__)(model, *args, **options)
    return put(model, values, it)(x)


def takes_rank_and_alpha(stage, draw, kind, make, where, first=(), last=()):
    """rank (from 1 up) defaults to 8 and alpha to 16; arguments by place or by name. first, last:
    arguments before rank, and others that may follow alpha."""
    x = draw(4, WIDTH)
    calls = [  # rank, arguments by place and by name, scale
        (8, (), {}, 2.0),
        (4, (), {"rank": 4}, 4.0),
        (8, (), {"alpha": 2.0}, 0.25),
        (1, (), {"rank": 1, "alpha": -3}, -3.0),
        (2, (), {"rank": 2, "alpha": 0.0}, 0.0),
        *((4, (4, 10.0, *more), {}, 2.5) for more in ((), *last)),
    ]
    for rank, args, options, scale in calls:
        model = kind.adapted(draw, make, where, rank=rank)
        y = model.ask(stage, output_with_arguments, x, (*first, *args), options)
        given = ", ".join([*map(str, args), *(f"{k}={v}" for k, v in options.items())])
        what = f"the output with {given or 'the default rank and alpha'}"
        near(y, model.output(x, low_rank(scale)), what=what)


def factors_at_the_start(kata, where, **it):
    models = [nn.Sequential(nn.Linear(40, 30), nn.Linear(40, 30)) for _ in range(2)]
    with torch.random.fork_rng(devices=[]):
        for seed, model in enumerate(models):
            torch.manual_seed(seed)
            inject(kata, model, where, it, rank=8)
    first, second = models
    return first[0].lora_A, first[0].lora_B, first[1].lora_A, second[0].lora_A


def factors_start(stage, kind, where):
    """lora_A starts random and lora_B at zero, anew for every layer. where: for `0` and `1`."""
    A, B, *rest = kind.ask(stage, factors_at_the_start, where)
    require(bool((B == 0).all()), "lora_B should start at zero")
    require(bool((A != 0).any()), "lora_A starts at zero")
    require(bool(A.std() > 0), "lora_A starts constant")
    require(bool(A.std() < 1.5), f"lora_A starts with std {float(A.std()):.3g}")
    rank = int(torch.linalg.matrix_rank(A))
    require(rank == len(A), f"lora_A starts with rank {rank}; it has {len(A)} rows")
    for other, what in zip(rest, ("one call", "two calls after different seeds")):
        require(not torch.equal(A, other), f"two layers of {what} start with the same lora_A")
