"""What is checked of `inject_lora_recursive`. Contract: LoRA (Hu et al. 2021), section 4.1, for all
linear layers, as in QLoRA (Dettmers et al. 2023), section 4."""

import itertools

import torch
from torch import nn

from grader.exam.checks import blame, near, part, require, same
from grader.exam.kit import CheapMeta, Missing, need, set_

STRANGE, EARLIER = "a tensor that is not in the model", "a factor of an earlier call"
RANK, ALPHA = 3, 10.5  # alpha / rank = 3.5
# Parameters of the model's own that are called as if they were an adapter's.
OWN = {"lora_gate", "lora_act.weight", "mix.lora_A_gain", "lora_A", "lora_B"}


# Models, built on the stage and here alike


def net():
    """Linears at the top, in plain modules, in a ModuleList, a Sequential and a ModuleDict."""

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
            self.exits = nn.ModuleDict({"out": nn.Linear(6, 4), "0": nn.Linear(6, 4)})
            self.gain = nn.Parameter(torch.ones(4))
            self.lora_gate = nn.Parameter(torch.ones(4))
            self.lora_act = nn.PReLU()
            self.mix = nn.Module()
            self.mix.lora_A_gain = nn.Parameter(torch.ones(4))
            self.lora_A, self.lora_B = (nn.Parameter(torch.ones(4)) for _ in range(2))
            self.fc_gate = nn.Parameter(torch.ones(()))
            self.tones = nn.ParameterList([nn.Parameter(torch.ones(4))])
            for holder in (self.exits, self.blocks[0].mlp):
                holder.register_parameter("tone", nn.Parameter(torch.ones(4)))
            self.register_buffer("offset", torch.ones(4))

        def forward(self, x):
            x = self.neck(self.fc(x))
            for block in self.blocks:
                x = block(x)
            x = self.lora_act(self.exits["out"](x) + self.exits["0"](x))
            return self.gain * x + self.lora_gate + self.mix.lora_A_gain + self.offset

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
    """Layers whose names hold each other."""

    class Alike(nn.Module):
        def __init__(self):
            super().__init__()
            for name in ("proj", "proj2", "proj_out", "q_proj", "k", "inner_proj", "other"):
                self.add_module(name, nn.Linear(4, 4))
            self.other = nn.Linear(1, 1)
            self.inner = nn.ModuleDict({"proj": nn.Linear(4, 4), "k": nn.Linear(4, 4)})
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


def nested():
    """All linears are below a child of the root."""

    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = plain()

        def forward(self, x):
            return self.inner(x)

    return Nested()


def called_base():
    """Linears that are called `base` where no adapter is."""

    class Named(nn.Module):
        def __init__(self, inner=None):
            super().__init__()
            self.base, self.head = nn.Linear(5, 5), nn.Linear(5, 5)
            if inner is not None:
                self.inner = inner

    return Named(Named())


def others():
    """Modules with weights that are no linears, some of them much like one."""

    class Linear(nn.Module):  # in name and attributes alone
        pass

    odd = Linear()
    odd.weight, odd.bias = nn.Parameter(torch.zeros(6, 6)), None
    odd.in_features = odd.out_features = 6
    kinds = {"embed": nn.Embedding(6, 6), "conv": nn.Conv1d(6, 6, 1), "norm": nn.LayerNorm(6)}
    kinds |= {"pair": nn.Bilinear(6, 6, 6), "cell": nn.GRUCell(6, 6), "odd": odd}
    return nn.Sequential(nn.Linear(6, 6), nn.ModuleDict(kinds), nn.Linear(6, 6))


def built(which):
    """The model of this name. (A probe knows the functions that it names.)"""
    makers = {"net": net, "tied": tied, "sharing": sharing, "alike": alike, "deep": deep}
    makers |= {"nested": nested}
    return {**makers, "plain": plain, "called_base": called_base, "others": others}[which]()


def linears(model):
    """Names of its linears: for one that has several, the first."""
    return [name for name, module in model.named_modules() if type(module) is nn.Linear]


def states(draw, model, dtype=torch.float32):
    """Values for every tensor of a model; tied ones get the same."""
    drawn = {}
    state = {}
    for name, value in model.state_dict().items():
        key = value.data_ptr(), tuple(value.shape)
        if key not in drawn:
            drawn[key] = draw(*value.shape, std=0.4, dtype=dtype)
        state[name] = drawn[key]
    return state


def updates(draw, model, names, dtype=torch.float32, rank=RANK):
    """Factors for the named layers: updates as large as the weights."""
    return {name: factors(draw, model.get_submodule(name), dtype, rank) for name in names}


def factors(draw, layer, dtype, rank):
    out, wide = layer.weight.shape
    return draw(rank, wide, std=0.3, dtype=dtype), draw(out, rank, std=0.3, dtype=dtype)


def oracle(model, state, pairs, x, scale=ALPHA / RANK):
    """float64: the output, and by name the gradients of its squared sum (`x` is the input).

    The weights hold their updates here; the factors' gradients follow from those of the weights.
    """
    model = model.double()
    model.load_state_dict({name: value.double() for name, value in state.items()})
    pairs = {name: (A.double(), B.double()) for name, (A, B) in pairs.items()}
    for name, (A, B) in pairs.items():
        layer = model.get_submodule(name)
        layer.weight = nn.Parameter(layer.weight.detach() + scale * B @ A)  # not of its ties
    x = x.double().requires_grad_()
    y = model(x)
    y.square().sum().backward()
    gradients = {"x": x.grad}
    for name, (A, B) in pairs.items():
        grad = model.get_submodule(name).weight.grad
        gradients[f"{name}.lora_A"] = scale * B.T @ grad
        gradients[f"{name}.lora_B"] = scale * grad @ A.T
    return y.detach(), gradients


# What probes share


def inject(kata, model, **options):
    """The model and the list, as inject_lora_recursive returns them."""
    result = kata.inject_lora_recursive(model, **options)
    if isinstance(result, nn.Module):
        raise Missing("inject_lora_recursive returns the model alone, not (model, lora_params)")
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        kind = type(result).__name__
        raise Missing(f"inject_lora_recursive should return (model, lora_params), not {kind}")
    if not isinstance(result[0], nn.Module):
        kind = type(result[0]).__name__
        raise Missing(f"inject_lora_recursive returns the model first, not a {kind}")
    return result


def filled(model, state):
    model.to(next(iter(state.values())).dtype).load_state_dict(state)
    return model


def put(model, pairs):
    """Write the factors into the adapted layers."""
    for name, (A, B) in pairs.items():
        set_(model.get_submodule(name), lora_A=A, lora_B=B)
    return model


def adapt(kata, model, state, pairs, **options):
    """The filled model with its layers adapted and the factors in place."""
    filled(model, state)
    inject(kata, model, **{"rank": RANK, "alpha": ALPHA, **options})
    return put(model, pairs)


def labels(model, params):
    """What the parameters of a list are called in the model: the factors and the base of a layer
    under its name, whatever else they are registered as."""
    known = {}
    for name, layer in model.named_modules(remove_duplicate=False):
        if not (name and hasattr(layer, "lora_A") and hasattr(layer, "lora_B")):
            continue
        known.setdefault(id(layer.lora_A), f"{name}.lora_A")
        known.setdefault(id(layer.lora_B), f"{name}.lora_B")
        base = getattr(layer, "base", None)
        for key, p in base.named_parameters() if isinstance(base, nn.Module) else ():
            known.setdefault(id(p), f"{name}.base.{key}")
    for name, p in model.named_parameters():
        known.setdefault(id(p), name)
    return [known.get(id(p), stranger(p)) for p in params]


def stranger(value):
    return STRANGE if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"


def training(model):
    """What the parameters that train are called, each once."""
    return labels(model, [p for p in model.parameters() if p.requires_grad])


def kind_of(new, old):
    """What stands where `old` stood."""
    if new is old:
        return "left"
    base = getattr(new, "base", None)
    if base is old and hasattr(new, "lora_A") and hasattr(new, "lora_B"):
        return "wrapped"
    return "copied" if isinstance(base, nn.Linear) else type(new).__name__


def pairs_of(names):
    return [f"{name}.{factor}" for name in names for factor in ("lora_A", "lora_B")]


# shape


def factor_shapes(kata, rank, inside=False):
    model = nested() if inside else plain()
    inject(kata, model, rank=rank, alpha=10.5)
    within = model.inner if inside else model
    layers = within.first, within.second
    return [(tuple(need(v, "lora_A").shape), tuple(need(v, "lora_B").shape)) for v in layers]


@part("shape")
def test_factor_shapes(stage):
    """Every wrapped layer has lora_A (rank, in_features) and lora_B (out_features, rank)."""
    with blame("parameters-not-returned", "the model alone"):
        shapes = stage(factor_shapes, 3)
    shapes = [*shapes, *stage(factor_shapes, 3, True)]
    names, sizes = ("first", "second", "inner.first", "inner.second"), ((7, 5), (4, 7)) * 2
    for name, got, (out, wide) in zip(names, shapes, sizes):
        bug = "rank-not-passed" if got == ((8, wide), (out, 8)) else None
        require(got[0] == (3, wide), f"{name}.lora_A has shape {got[0]} at rank 3", bug)
        require(got[1] == (out, 3), f"{name}.lora_B has shape {got[1]} at rank 3", bug)


@part("shape")
def test_rank_one(stage):
    """A rank of 1 is legal."""
    got = stage(factor_shapes, 1)
    require(got[0] == ((1, 5), (7, 1)), f"at rank 1 the factors of `first` are {got[0]}")


def run(kata, which, state, pairs, x, skip):
    model = adapt(kata, built(which), state, pairs, skip=skip)
    return model(x)


def _right(stage, which, state, pairs, x, what, skip=()):
    want, _ = oracle(built(which), state, pairs, x)
    known = {"alpha-not-passed": lambda: oracle(built(which), state, pairs, x, 16.0 / RANK)[0]}
    near(stage(run, which, state, pairs, x, skip), want, what=what, unless=known)


def _plain(draw):
    return states(draw, plain()), updates(draw, plain(), linears(plain()))


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """The adapted model takes the same inputs as before: (..., d), a single vector too."""
    state, pairs = _plain(draw)
    for lead in [(7,), (2, 3), (2, 3, 4), (1, 1), ()]:
        x = draw(*lead, 5)
        _right(stage, "plain", state, pairs, x, f"the output for x {tuple(x.shape)}")


def run_strided(kata, state, pairs, x):
    model = adapt(kata, plain(), state, pairs)
    return model(x.transpose(0, 1)), model(x[:, ::2])


@part("shape")
def test_non_contiguous_input(stage, draw):
    """Inputs need not be contiguous."""
    state, pairs = _plain(draw)
    x = draw(4, 6, 5)
    turned, skipped = stage(run_strided, state, pairs, x)
    near(turned, oracle(plain(), state, pairs, x.transpose(0, 1))[0])
    near(skipped, oracle(plain(), state, pairs, x[:, ::2])[0])


# init


def same_model(kata):
    model = plain()
    old = model.first
    got, _ = inject(kata, model)
    return got is model, kind_of(model.first, old)


@part("init")
def test_returns_the_same_model(stage):
    """The very model passed in is changed and returned, not a copy."""
    returned, kind = stage(same_model)
    changed = kind != "left"
    message = "the model returned is another object than the one passed in"
    require(returned, message, None if changed else "model-copied")
    require(changed, "in the model passed in the layers are still the same")


def replaced(kata, which, state, skip=(), twice=False):
    """Of every module but the root, under each of its names, what stands there now; of every
    linear the weight, and whether it is the same Parameter."""
    model = filled(built(which), state)
    before = dict(model.named_modules(remove_duplicate=False))
    weights = {n: m.weight for n, m in before.items() if type(m) is nn.Linear}
    inject(kata, model, rank=2, skip=skip)
    kinds, values, kept = {}, {}, {}
    for name, old in before.items():
        if name:
            new = model.get_submodule(name)
            kinds[name] = kind_of(new, old)
        if name in weights:
            base = getattr(new, "base", new)
            values[name] = getattr(base, "weight", None)
            kept[name] = values[name] is weights[name]
    return kinds, values, kept


def _wrapped(stage, which, state, *, left=None, skip=()):
    """Every linear must be wrapped but those in `skip`; returns what else has been replaced.
    left: names the mistake, given the linears that have been left plain."""
    kinds, values, kept = stage(replaced, which, state, skip)
    names = [name for name in values if name not in skip]
    missed = [name for name in names if kinds[name] == "left"]
    bug = left(missed, names) if missed and left else None
    require(not missed, f"not replaced: {', '.join(missed)}", bug)
    for name in names:
        if isinstance(values[name], torch.Tensor):
            weight = state[f"{name}.weight"]
            same(values[name], weight, f"the weight of `{name}`", "weights-lost")
        copied = "base-copied" if kinds[name] == "copied" else None
        wrapped = kinds[name] == "wrapped"
        require(wrapped, f"`{name}` has not become a LoRALinear around the old layer", copied)
        require(kept[name], f"the weight of `{name}` is another Parameter than before")
    return [name for name in kinds if name not in names and kinds[name] != "left"]


def _head(missed, names):
    return "head-left-plain" if missed == names[-1:] and len(names) > 1 else None


def endless(kata):
    """Whether the call has wrapped the base of what it had wrapped itself."""
    model = plain()
    try:
        kata.inject_lora_recursive(model)
    except RecursionError:
        return hasattr(model.first, "lora_A")
    inner = getattr(getattr(model.first, "base", None), "base", None)
    return hasattr(model.first, "lora_A") and isinstance(inner, nn.Module)


@part("init")
def test_wraps_every_layer(stage, draw):
    """Every nn.Linear becomes a LoRALinear; its `base` is that very layer, its values untouched."""
    text = "the base of a layer that the call has wrapped itself is wrapped again"
    require(not stage(endless), text, "bases-wrapped-again")
    _wrapped(stage, "plain", states(draw, plain()), left=_head)


def with_gap(kata):
    model = nn.Module()
    model.first = old = nn.Linear(4, 4)
    model.register_module("gap", None)
    model.inner = nn.Sequential(nn.Linear(4, 4))
    model.inner.register_module("gap", None)
    inner = model.inner[0]
    inject(kata, model)
    return kind_of(model.first, old), kind_of(model.inner[0], inner)


@part("init")
def test_passes_over_empty_places(stage, draw):
    """A place that is registered as None stays empty; the layers around it are wrapped."""
    _wrapped(stage, "net", states(draw, net()))
    kinds = stage(with_gap)
    require(kinds == ("wrapped",) * 2, f"beside an empty place layers are {', '.join(kinds)}")


@part("init")
def test_wraps_at_any_depth(stage, draw):
    """Linears are found at any depth."""
    _wrapped(stage, "plain", states(draw, plain()))

    def deeper(missed, names):
        below = missed == names[-len(missed) :] and missed != names
        return "deep-layers-missed" if below else None

    _wrapped(stage, "deep", states(draw, deep()), left=deeper)


def container_roots(kata):
    roots = nn.ModuleList([nn.Linear(4, 4)]), nn.ModuleDict({"0": nn.Linear(4, 4)})
    before = [root.get_submodule("0") for root in roots]
    for root in roots:
        inject(kata, root)
    return [kind_of(root.get_submodule("0"), old) for root, old in zip(roots, before)]


@part("init")
def test_wraps_inside_containers(stage, draw):
    """Also inside nn.ModuleList, nn.Sequential and nn.ModuleDict, and where there is no bias."""
    _wrapped(stage, "deep", states(draw, deep()))

    def inside(missed, names):
        """All that one or two kinds of containers hold, and nothing else."""
        lists, dicts = ([n for n in names if n.startswith(p)] for p in ("blocks.", "exits."))
        steps = [n for n in names if ".mlp." in n]
        held = (lists, dicts, steps, [*lists, *dicts], [*steps, *dicts])
        return "container-layers-missed" if missed in held else None

    _wrapped(stage, "net", states(draw, net()), left=inside)
    for root, kind in zip(("ModuleList", "ModuleDict"), stage(container_roots)):
        require(kind == "wrapped", f"in a model that is a {root} itself a layer is {kind}")


@part("init")
def test_names_do_not_matter(stage, draw):
    """A linear is wrapped whatever it is called: `base`, for one."""
    _wrapped(stage, "deep", states(draw, deep()))

    def base(missed, names):
        called = [name for name in names if name.endswith("base")]
        return "layers-called-base-missed" if missed == called else None

    _wrapped(stage, "called_base", states(draw, called_base()), left=base)


@part("init")
def test_leaves_other_modules(stage, draw):
    """Modules that are no nn.Linear stay as they are, those that look like one too."""
    for which in ("net", "others"):
        with blame("other-modules-wrapped" if which == "others" else None):
            extra = _wrapped(stage, which, states(draw, built(which)))
        require(not extra, f"also replaced: {', '.join(extra)}", "other-modules-wrapped")


def in_place(kata, weight, bias, x):
    inner, model = nn.Sequential(), nn.Sequential()  # their keys are no positions
    inner.add_module("1", nn.Linear(6, 6)), inner.add_module("0", nn.Tanh())
    parts = {"2": nn.Linear(6, 6), "1": nn.Tanh(), "0": inner, "3": nn.LayerNorm(6)}
    for name, module in parts.items():
        model.add_module(name, module)
    before = [*model, *inner]
    for layer in (model[0], inner[0]):
        set_(layer, weight=weight, bias=bias)
    inject(kata, model)
    # Where what stands there now stood before; a wrapped layer counts as the layer.
    places = [at for new in (*model, *inner) for at, old in enumerate(before) if stems(new, old)]
    return places, model(x)


def stems(new, old):
    return kind_of(new, old) in ("left", "wrapped")


@part("init")
def test_children_keep_their_order(stage, draw):
    """A layer takes the place of the one it replaces: a Sequential runs in the order it had."""
    _wrapped(stage, "net", states(draw, net()))
    weight, bias, x = draw(6, 6, std=0.5), draw(6, std=0.5), draw(3, 6)
    places, y = stage(in_place, weight, bias, x)
    require(sorted(places) == list(range(6)), "a Sequential has not kept its modules")
    kept = places == list(range(6))
    require(kept, "the modules of a Sequential stand in another order afterwards", "order-lost")
    want = x.double()
    for _ in range(2):
        want = torch.tanh(want @ weight.double().T + bias.double())
    near(y, nn.functional.layer_norm(want, (6,)), what="the output of a Sequential at the start")


def listed(kata, which, skip):
    before = list(inject(kata, plain(), rank=2)[1])
    model = built(which)
    _, params = inject(kata, model, rank=2, skip=skip)
    if not isinstance(params, list):
        return type(params).__name__, []
    earlier = {id(p) for p in before}
    found = zip(params, labels(model, params))
    return "list", [EARLIER if id(p) in earlier else name for p, name in found]


@part("init")
def test_list_of_the_factors(stage, draw):
    """The list holds exactly the new factors, each once, themselves and no copies."""
    for which in ("plain", "net"):
        _wrapped(stage, which, states(draw, built(which)))
        kind, got = stage(listed, which, [])
        require(kind == "list", f"the parameters come as a {kind}, expected a list", "not-a-list")
        _listed(got, linears(built(which)), missing="factors-not-listed")
    _, got = stage(listed, "plain", ["first"])
    _listed(got, ["second"])


def _listed(got, names, *, doubled=None, missing=None):
    """`got` must be the factors of these layers, in any order. doubled: what a list that holds
    a factor twice is called; missing: what one is that lacks some."""
    want = pairs_of(names)
    if sorted(got) == sorted(want):
        return
    bug, extra = None, set(got) - set(want)
    if STRANGE in got and len(got) == len(want):
        bug = "factors-copied"
    elif EARLIER in got:
        bug = "earlier-factors-returned"
    elif extra and extra <= OWN:
        bug = "own-names-taken"
    elif any(".base." in name for name in got):
        bug = "base-parameters-listed"
    elif set(got) == set(want):
        bug = doubled
    elif set(got) < set(want) and len(set(got)) == len(got):
        bug = missing
    require(False, f"the list holds {_words(got)}; expected {_words(want)}", bug)


def _words(names):
    runs = ((name, len(list(same))) for name, same in itertools.groupby(names))
    return ", ".join(name if n == 1 else f"{n} x {name}" for name, n in runs) or "nothing"


def skipping(kata, which, kind, names):
    made = {"list": list, "tuple": tuple, "set": set, "dict": dict.fromkeys}[kind](names)
    model = built(which)
    before = dict(model.named_modules())
    inject(kata, model, skip=made)
    now = {name: model.get_submodule(name) for name in before}
    return [n for n, old in before.items() if type(old) is nn.Linear and now[n] is old]


def _skips(stage, which, names, left, bug, kind="list"):
    """With skip `names` exactly the layers `left` must stay plain; `bug` if more do, and those
    are such as the mistake would leave."""
    got = stage(skipping, which, kind, names)
    what = f"with skip {names}" + (f" as a {kind}" if kind != "list" else "")
    missing = [name for name in left if name not in got]
    extra = [name for name in got if name not in left]
    ignored = "skip-ignored" if len(missing) == len(left) and not extra else None
    require(not missing, f"{what} replaced all the same: {_words(missing)}", ignored)
    akin = {"skip-matches-part": _alike, "skip-covers-containers": _inside}.get(bug)
    known = bug if akin and all(any(akin(e, name) for name in names) for e in extra) else None
    if extra and _cut_off(linears(built(which)), left, got):
        known = "skip-stops-the-walk"
    require(not extra, f"{what} not replaced: {_words(extra)}", known)


def _cut_off(names, skipped, left):
    """Whether what is left is all that follows a skipped layer, in the model or in its parent."""
    after = [name for at, name in enumerate(names) if set(names[: at + 1]) & set(skipped)]
    parents = {name.rpartition(".")[0] for name in skipped}
    beside = [name for name in after if name.rpartition(".")[0] in parents]
    return any(len(gone) > 1 and set(left) == set(gone) for gone in (after, beside))


def _alike(name, skipped):
    """Whether one name holds the other, or they end alike, any character standing for a dot."""
    name, skipped = name.replace(".", "_"), skipped.replace(".", "_")
    return skipped in name or name.rpartition("_")[2] == skipped.rpartition("_")[2]


def _inside(name, skipped):
    return name.startswith(f"{skipped}.")


@part("init")
def test_skip(stage):
    """The layers whose dotted names are in `skip`, any collection of names, stay plain."""
    _skips(stage, "alike", [], [], None)
    for names in (["proj"], ["inner.k", "layers.3"], ["other", "proj2", "inner.proj"]):
        _skips(stage, "alike", names, names, "skip-matches-part")
    for kind in ("tuple", "set", "dict"):
        _skips(stage, "alike", ["k", "inner.proj"], ["k", "inner.proj"], None, kind)


@part("init")
def test_skip_compares_whole_names(stage):
    """A part of a name, its last one for instance, skips nothing."""
    _skips(stage, "alike", [], [], None)
    for names in (["layers.1"], ["q_proj"], ["k"], ["inner.proj"]):
        _skips(stage, "alike", names, names, "skip-matches-part")
    _skips(stage, "net", [], [], None)
    for names in (["o_proj", "q_proj"], ["attn.q_proj"], ["0"]):
        _skips(stage, "net", names, [], "skip-matches-part")


@part("init")
def test_skip_of_containers_and_unknown_names(stage):
    """Unknown names in `skip`, and names of containers, have no effect."""
    for names in ([], ["fc"]):
        _skips(stage, "net", names, names, None)
    for names in (["blocks.0", "neck"], ["exits"], ["blocks.1.mlp", "fc"]):
        left = [name for name in names if name == "fc"]
        _skips(stage, "net", names, left, "skip-covers-containers")
    unknown = ["FC", "Linear", "fc.weight", "exits.*", " exits.0"]
    for names in (["nope"], ["neck.nope", "fc"], ["blocks.9.attn.q_proj"], unknown):
        left = [name for name in names if name == "fc"]
        with blame("unknown-skip-refused"):
            _skips(stage, "net", names, left, None)


def tie(kata, which, state, names, skip, pairs, x):
    """What becomes of layers that are one, or have one weight, and of `mid`, a plain one."""
    model = filled(built(which), state)
    before = [model.get_submodule(name) for name in names]
    mid = model.mid
    _, params = inject(kata, model, rank=RANK, alpha=ALPHA, skip=skip)
    layers = [model.get_submodule(name) for name in names]
    kinds = [kind_of(layer, old) for layer, old in zip(layers, before)]
    one = all(layer is layers[0] for layer in layers)
    found = labels(model, params)
    y = put(model, pairs)(x) if set(kinds) == {"wrapped"} else None
    return kinds, one, found, y, kind_of(model.mid, mid) == "wrapped"


def _factors_fit(stage, draw):
    """Layers that are not tied take factors of the rank asked for, and their model runs."""
    state, pairs = _plain(draw)
    stage(run, "plain", state, pairs, draw(4, 5), [])
    pairs = updates(draw, net(), linears(net()))
    stage(run, "net", states(draw, net()), pairs, draw(4, 5), [])


@part("init")
def test_tied_layer_is_wrapped_once(stage, draw):
    """A layer registered under two names is wrapped once and stays tied."""
    _wrapped(stage, "net", states(draw, net()))
    _factors_fit(stage, draw)
    state, x = states(draw, tied()), draw(3, 6)
    pairs = updates(draw, tied(), linears(tied()))
    ties = (["enc", "dec"], ["stack.0.0", "stack.1.0"], ["side.1", "out"], ["top", "box.0"])
    for names in ties:
        with blame("tied-not-kept"):
            kinds, one, got, y, mid = stage(tie, "tied", state, names, [], pairs, x)
        both = f"`{names[0]}` and `{names[1]}`, one layer,"
        require(mid, "a layer with one name, `mid`, is not wrapped")
        left = "second-name-left" if kinds == ["wrapped", "left"] else "tied-not-kept"
        require(kinds == ["wrapped"] * 2, f"{both} are not both wrapped", left)
        require(one, f"{both} are two afterwards", "tied-not-kept")
    _listed(got, linears(tied()), doubled="factors-listed-twice")
    near(y, oracle(tied(), state, pairs, x)[0], what="the output of a model with ties")


@part("init")
def test_tied_layer_skipped(stage, draw):
    """A layer is left plain where all of its names are in `skip`."""
    state, x = states(draw, tied()), draw(3, 6)
    kinds, one, *_ = stage(tie, "tied", state, ["enc", "dec"], ["enc", "dec"], {}, x)
    require(kinds == ["left"] * 2 and one, "`enc` and `dec`, both skipped, were replaced")
    state, names = states(draw, sharing()), ["left", "right"]
    kinds, *_ = stage(tie, "sharing", state, names, ["left"], {}, x)
    text = "`left` is skipped and `right`, another layer with the same weight, is not: they are"
    require(kinds == ["left", "wrapped"], f"{text} {', '.join(kinds)}")


def still_shared(kata):
    model = sharing()
    inject(kata, model)
    layers = model.left, model.right
    bases = [getattr(layer, "base", layer).weight for layer in layers]
    return all(weight is model.embed.weight for weight in bases)


def frozen_before(kata):
    model = plain().requires_grad_(False)
    old = model.first
    inject(kata, model)
    return kind_of(model.first, old)


@part("init")
def test_layers_that_share_a_weight(stage, draw):
    """Two layers that share only a weight are two; the weight stays shared."""
    _wrapped(stage, "net", states(draw, net()))
    require(stage(frozen_before) == "wrapped", "a layer that was frozen before is not replaced")
    _factors_fit(stage, draw)
    state, x = states(draw, sharing()), draw(3, 6)
    pairs = updates(draw, sharing(), linears(sharing()))
    names = ["left", "right"]
    kinds, one, got, y, mid = stage(tie, "sharing", state, names, [], pairs, x)
    require(mid, "a layer with a weight of its own, `mid`, is not wrapped")
    text = "two layers that share a weight are not both wrapped"
    merged = "layers-merged-by-weight" if "wrapped" in kinds else None
    require(kinds == ["wrapped"] * 2, text, merged)
    require(not one, "two layers that share a weight have become one", "layers-merged-by-weight")
    _listed(got, linears(sharing()))
    near(y, oracle(sharing(), state, pairs, x)[0], what="the output with a shared weight")
    shared = stage(still_shared)
    require(shared, "the weight that two layers and an embedding share is not shared any more")


def again(kata, which, state, pairs, x, rank, skip):
    model = adapt(kata, built(which), state, pairs)
    before = dict(model.named_modules(remove_duplicate=False))
    tensors = dict(model.named_parameters(remove_duplicate=False))
    values = {name: p.detach().clone() for name, p in tensors.items()}
    y = model(x)
    _, params = inject(kata, model, rank=rank, skip=skip)
    now = dict(model.named_modules(remove_duplicate=False))
    changed = [n for n in {**before, **now} if before.get(n) is not now.get(n)]
    after = dict(model.named_parameters(remove_duplicate=False))
    other = [n for n, p in tensors.items() if after.get(n) is not p or not p.equal(values[n])]
    return changed, other, labels(model, params), y, model(x)


@part("init")
def test_adapted_layers_are_left_alone(stage, draw):
    """A LoRALinear that is there is left alone: a second call returns [] and changes no output."""
    _wrapped(stage, "net", states(draw, net()))
    for which, rank, skip in (("net", RANK, []), ("net", 2, ["fc"]), ("tied", RANK, [])):
        state, x = states(draw, built(which)), draw(4, 5 if which == "net" else 6)
        pairs = updates(draw, built(which), linears(built(which)))
        changed, other, got, before, after = stage(again, which, state, pairs, x, rank, skip)
        highest = [name for name in changed if name.rpartition(".")[0] not in changed]
        bases = all(name.endswith(".base") for name in highest)
        text = f"a second call replaced {_words(changed)}"
        require(not changed, text, "bases-wrapped-again" if bases else None)
        earlier = set(got) <= set(pairs_of(linears(built(which))))
        bug = "earlier-factors-returned" if earlier else None
        require(not got, f"a second call returned {_words(got)}; expected nothing", bug)
        near(after, before.double(), what="the output after a second call")
        require(not other, f"a second call replaced or changed {_words(other)}")


def partly(kata, state, pairs, x):
    """Some layers are adapted first: which stay plain, the list, which old parameters are in it,
    and the output."""
    model = filled(net(), state)
    inject(kata, model.neck, rank=RANK, alpha=ALPHA)
    inject(kata, model.blocks[1], rank=RANK, alpha=ALPHA, skip=["mlp.0"])
    before = list(model.parameters())
    _, params = inject(kata, model, rank=RANK, alpha=ALPHA)
    old = labels(model, [p for p in before if any(p is q for q in params)])
    left = [name for name in pairs if not hasattr(model.get_submodule(name), "lora_A")]
    return left, labels(model, params), old, None if left else put(model, pairs)(x)


@part("init")
def test_partly_adapted_model(stage, draw):
    """In a model that is adapted in part, the layers that are still plain are wrapped."""
    state, x = states(draw, net()), draw(4, 5)
    _wrapped(stage, "net", state)
    pairs = updates(draw, net(), linears(net()))
    left, got, old, y = stage(partly, state, pairs, x)
    rest = [n for n in linears(net()) if not n.startswith(("neck.", "blocks.1.")) or "mlp.0" in n]
    stopped = "stops-when-adapted" if left == rest and not got else None
    require(not left, f"in a model with adapted layers not replaced: {_words(left)}", stopped)
    factors = old and all(name.endswith(("lora_A", "lora_B")) for name in old)
    bug = "earlier-factors-returned" if factors else None
    require(not old, f"parameters that were there before are in the list: {_words(old)}", bug)
    _listed(got, rest)
    near(y, oracle(net(), state, pairs, x)[0], what="the output of a model adapted in two calls")


def single(kata, state):
    inject(kata, filled(plain(), state).first, rank=2)


def roots(kata, state, x):
    """What becomes of a root that is a linear, and of one that is an adapted layer."""
    found = []
    model = filled(plain(), state)
    inject(kata, model, rank=2)
    for root in (filled(plain(), state).first, model.first):
        before, keys = dict(root.named_modules()), list(root.state_dict())
        got, params = inject(kata, root, rank=2)
        now = dict(root.named_modules())
        changed = list(now) != list(before) or any(now[n] is not before[n] for n in before)
        changed = changed or list(root.state_dict()) != keys
        found.append((got is root, changed, len(list(params)), root(x)))
    return found


@part("init")
def test_root(stage, draw):
    """A root that is itself an nn.Linear or a LoRALinear is left alone; the list is empty."""
    state, x = states(draw, plain()), draw(4, 5)
    want = x.double() @ state["first.weight"].double().T + state["first.bias"].double()
    bugs = ("root-replaced", "bases-wrapped-again")
    _wrapped(stage, "plain", state)
    with blame("root-refused"):
        stage(single, state)
    found = stage(roots, state, x)
    for what, bug, (kept, changed, count, y) in zip(("an nn.Linear", "a LoRALinear"), bugs, found):
        require(kept, f"for a root that is {what} another module is returned", bug)
        require(not changed, f"a root that is {what} was changed inside", bug)
        require(count == 0, f"a root that is {what} gives {count} parameters, expected none")
        near(y, want, what=f"the output of a root that is {what}")


def without_linears(kata):
    model = nn.Sequential(nn.LayerNorm(6), nn.Conv1d(6, 6, 1))
    got, params = inject(kata, model)
    return got is model, len(list(params)), training(model)


def start(kata, state, x):
    model = filled(net(), state)
    inject(kata, model)
    values = model.state_dict()
    kept = {}
    for name in state:
        at = name if name in values else ".base.".join(name.rsplit(".", 1))
        kept[name] = values.get(at)
    base = getattr(model.neck.o_proj, "base", None)
    return model(x), kept, getattr(base, "bias", None) is None


@part("init")
def test_starts_as_it_was(stage, draw):
    """Right after the call the model computes what it did before, with the same values."""
    state, x = states(draw, net()), draw(4, 5)
    y, kept, bare = stage(start, state, x)
    require(bare, "the base of `neck.o_proj` had no bias and has one now")
    near(y, oracle(net(), state, {}, x)[0], what="the output right after the call")
    for name, value in kept.items():
        if value is not None:
            same(value, state[name], f"`{name}`")


def called(kata, state, pairs, x, args, options):
    model = filled(plain(), state)
    kata.inject_lora_recursive(model, *args, **options)
    return put(model, pairs)(x)


def called_by_name(kata):
    model = plain()
    kata.inject_lora_recursive(skip=["second"], alpha=4.0, rank=2, model=model)
    return model.first.lora_A.shape[0], hasattr(model.second, "lora_A")


CALLS = (  # rank, arguments by place and by name, scale
    (8, (), {}, 2.0),
    (4, (), {"rank": 4}, 4.0),
    (8, (), {"alpha": 2.0}, 0.25),
    (1, (), {"rank": 1, "alpha": -3}, -3.0),
    (4, (4, 10.0), {}, 2.5),
    (4, (4, 10.0, ["nope"]), {}, 2.5),
)


@part("init")
def test_arguments(stage, draw):
    """rank (from 1 up) defaults to 8, alpha to 16, skip to none; arguments by place or by name."""
    state, x = states(draw, plain()), draw(4, 5)
    for rank, args, options, scale in CALLS:
        pairs = updates(draw, plain(), linears(plain()), rank=rank)
        y = stage(called, state, pairs, x, args, options)
        given = ", ".join([*map(str, args), *(f"{k}={v}" for k, v in options.items())])
        what = f"the output with {given or 'the default rank and alpha'}"
        near(y, oracle(plain(), state, pairs, x, scale)[0], what=what)
    rank, skipped = stage(called_by_name)
    require(rank == 2, f"with all arguments by name lora_A has {rank} rows at rank 2")
    require(not skipped, "with all arguments by name a skipped layer is replaced")


def fresh(kata):
    models = [nn.Sequential(nn.Linear(40, 30), nn.Linear(40, 30)) for _ in range(2)]
    with torch.random.fork_rng(devices=[]):
        for seed, model in enumerate(models):
            torch.manual_seed(seed)
            inject(kata, model)
    first, second = models
    return first[0].lora_A, first[0].lora_B, first[1].lora_A, second[0].lora_A


@part("init")
def test_factors_start(stage):
    """lora_A starts random and lora_B at zero, anew for every layer."""
    A, B, *others = stage(fresh)
    require(bool((B == 0).all()), "lora_B should start at zero")
    require(bool((A != 0).any()), "lora_A starts at zero")
    require(bool(A.std() > 0), "lora_A starts constant")
    require(bool(A.std() < 1.5), f"lora_A starts with std {float(A.std()):.3g}")
    rank = int(torch.linalg.matrix_rank(A))
    require(rank == len(A), f"lora_A starts with rank {rank}; it has {len(A)} rows")
    for other, what in zip(others, ("one call", "two calls after different seeds")):
        require(not torch.equal(A, other), f"two layers of {what} start with the same lora_A")


def modes(kata, training):
    model = net()
    model.train(training)
    model.blocks[0].train(not training)
    before = {n: (m, m.training) for n, m in model.named_modules() if type(m) is not nn.Linear}
    inject(kata, model)
    return [name or "the model" for name, (m, mode) in before.items() if m.training != mode]


@part("init")
def test_modes_stay(stage):
    """Every module stays in the mode it was in, training or evaluation."""
    for training in (True, False):
        changed = stage(modes, training)
        text = f"the call switched between train() and eval(): {', '.join(changed)}"
        require(not changed, text, "mode-switched")


# freeze


def after_backward(kata, skip, x):
    model = net()
    inject(kata, model, rank=5, skip=skip)  # a rank that nothing before has used
    flags = training(model)
    if flags:
        model(x).square().sum().backward()
    layers = [m for m in model.modules() if hasattr(m, "lora_A") and m is not model]
    frozen = [not p.requires_grad for v in layers for p in (v.lora_A, v.lora_B)]
    touched = labels(model, [p for p in model.parameters() if p.grad is not None])
    return flags, frozen, touched


def _only(flags, want, frozen=(), skip=()):
    """The names of the parameters that train must be these. frozen: for each factor whether
    requires_grad is False."""
    missing, extra = set(want) - set(flags), sorted(set(flags) - set(want))
    bug = "factors-frozen" if all(frozen) and len(missing) == len(frozen) > 0 else None
    require(not missing, f"not among what trains: {', '.join(sorted(missing))}", bug)
    inside = [name for name in extra if ".base." in name]
    layers = {name.rpartition(".")[0] for name in want}
    outside = not any(name.rpartition(".")[0] in layers for name in extra)
    if extra and all(name.rpartition(".")[0] in skip for name in extra):
        bug = "skipped-not-frozen"
    elif extra and OWN.issuperset(extra):
        bug = "own-names-taken"
    elif extra and all(name.endswith(".bias") for name in extra):
        bug = "biases-not-frozen"
    elif (
        not inside and outside and not any(name.endswith((".lora_A", ".lora_B")) for name in extra)
    ):
        bug = "others-not-frozen"
    elif len(inside) == len(extra):
        bug = "base-not-frozen"
    require(not extra, f"not frozen: {', '.join(extra)}", bug)


def _frozen(stage, draw, skip):
    flags, frozen, touched = stage(after_backward, skip, draw(4, 5))
    _only(flags, pairs_of(name for name in linears(net()) if name not in skip), frozen, skip)
    others = sorted(set(touched) - set(flags))
    require(not others, f"a frozen parameter receives a gradient: {', '.join(others)}")
    lost = sorted(set(flags) - set(touched))
    require(not lost, f"no gradient reaches {', '.join(lost)}")


@part("freeze")
def test_all_else_is_frozen(stage, draw):
    """lora_A and lora_B train; all else is frozen: biases, norms, a `lora_gate` of the model's."""
    _frozen(stage, draw, [])


@part("freeze")
def test_skipped_layers_are_frozen(stage, draw):
    """Skipped layers are frozen like all else."""
    _frozen(stage, draw, ["fc", "blocks.0.mlp.2", "neck.o_proj"])


def flags_of(kata, which):
    model = built(which)
    if which == "net":
        model.eval()
        for number, p in enumerate(model.parameters()):
            p.requires_grad_(number % 2 == 0)
    inject(kata, model, rank=2)
    return training(model)


@part("freeze")
def test_other_models_are_frozen(stage):
    """Shared parameters, embeddings and convolutions are frozen; what was frozen stays so."""
    for which in ("others", "tied", "sharing", "net"):
        _only(stage(flags_of, which), pairs_of(linears(built(which))))


@part("freeze")
def test_model_without_linears(stage):
    """A model without linears is frozen and gives an empty list."""
    kept, count, flags = stage(without_linears)
    require(kept, "the model returned is another object than the one passed in")
    require(count == 0, f"a model without linears gives {count} parameters, expected none")
    bug = "no-linears-freezes-nothing" if len(flags) == 4 else None
    require(not flags, f"not frozen: {', '.join(flags)}", bug)


def second_flags(kata):
    model = net()
    inject(kata, model, rank=2)
    inject(kata, model, rank=2)
    return training(model)


@part("freeze")
def test_frozen_after_a_second_call(stage):
    """After a second call all but factors is still frozen."""
    flags = [n for n in stage(second_flags) if not n.endswith((".lora_A", ".lora_B"))]
    require(not flags, f"not frozen after a second call: {', '.join(flags)}")


def ambient(kata):
    """Called under no_grad, with another default dtype: what it leaves, what trains."""
    model = net()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            inject(kata, model, rank=2, skip=["neck.q_proj"])
            grad = torch.is_grad_enabled()
        dtype = torch.get_default_dtype()
    finally:
        torch.set_default_dtype(torch.float32)
    return grad, dtype, training(model), model.fc.lora_A.dtype


@part("freeze")
def test_called_under_no_grad(stage):
    """The call leaves grad mode and default dtype as they were; under no_grad too all else is
    frozen and what is new trains."""
    grad, dtype, flags, kind = stage(ambient)
    require(not grad, "called under torch.no_grad(), it leaves grad mode on")
    require(dtype == torch.float64, f"the default dtype was float64 and is {_short(dtype)} now")
    _only(flags, pairs_of(n for n in linears(net()) if n != "neck.q_proj"))
    require(kind == torch.float32, f"fc.lora_A is {_short(kind)}, the layer is float32")


# forward


@part("forward")
def test_output_with_updates(stage, draw):
    """Every wrapped layer computes base(x) + alpha / rank * (x @ lora_A.T @ lora_B.T)."""
    state, x = states(draw, nested()), draw(3, 4, 5)
    pairs = updates(draw, nested(), linears(nested()))
    _right(stage, "nested", state, pairs, x, "the output of a nested model with updates")
    state = states(draw, net())
    for skip in ([], ["exits.out", "blocks.0.attn.q_proj", "fc"]):
        names = [name for name in linears(net()) if name not in skip]
        pairs = updates(draw, net(), names)
        what = "the output with updates" + (f" and skip {skip}" if skip else "")
        _right(stage, "net", state, pairs, x, what, skip)


def moves(kata, state, steps, x):
    """For train, eval and train mode: after each step the output with a graph and without."""
    model = adapt(kata, net(), state, steps[0])
    seen = []
    for mode in (True, False, True):
        model.train(mode)
        for pairs in steps:
            put(model, pairs)
            seen.append(model(x))
            with torch.no_grad():
                seen.append(model(x))
    return seen


@part("forward")
def test_follows_the_factors(stage, draw):
    """Outputs follow the factors of the moment, and are the same in train and eval mode."""
    state, x = states(draw, net()), draw(4, 5)
    steps = [updates(draw, net(), linears(net())) for _ in range(2)]
    wanted = [oracle(net(), state, pairs, x)[0] for pairs in steps for _ in range(2)]
    got = stage(moves, state, steps, x)
    for at, (y, want) in enumerate(zip(got, wanted * 3)):
        mode = "train" if at // 4 != 1 else "eval"
        what = f"the output in {mode} mode{' under no_grad' * (at % 2)}"
        near(y, want, what=f"{what}{' with new factors' * (at > 1)}")


def listed_step(kata, state, steps, x):
    model = filled(net(), state)
    _, params = inject(kata, model, rank=RANK, alpha=ALPHA)
    with torch.no_grad():
        for p, name in zip(params, labels(model, params)):
            p.add_(steps[name] - p)
    return model(x)


@part("forward")
def test_training_the_list_trains_the_model(stage, draw):
    """What an optimizer does to the parameters of the list, the model computes with."""
    state, x = states(draw, net()), draw(4, 5)
    pairs = updates(draw, net(), linears(net()))
    _wrapped(stage, "net", state)
    _listed(stage(listed, "net", [])[1], linears(net()))
    steps = dict(zip(pairs_of(pairs), itertools.chain(*pairs.values())))
    y = stage(listed_step, state, steps, x)
    near(y, oracle(net(), state, pairs, x)[0], what="the output after a step on the list")


def two_models(kata, state, other, pairs, x):
    first, second = filled(net(), state), filled(net(), other)
    inject(kata, first, rank=RANK, alpha=ALPHA)
    inject(kata, second, rank=RANK, alpha=ALPHA)
    put(first, pairs)
    return first(x), second(x)


@part("forward")
def test_models_do_not_share(stage, draw):
    """Two models adapted one after the other have nothing in common."""
    state, other, x = states(draw, net()), states(draw, net()), draw(4, 5)
    pairs = updates(draw, net(), linears(net()))
    first, second = stage(two_models, state, other, pairs, x)
    near(first, oracle(net(), state, pairs, x)[0], what="the output of the first of two models")
    near(second, oracle(net(), other, {}, x)[0], what="the output of the second of two models")


def input_after(kata, state, pairs, x):
    model = adapt(kata, net(), state, pairs)
    model(x)
    model.eval()(x)
    return x


@part("forward")
def test_input_is_left_unchanged(stage, draw):
    """The adapted model does not change its input in place."""
    x = draw(4, 5)
    got = stage(input_after, states(draw, net()), updates(draw, net(), linears(net())), x)
    same(got, x, "the input")


# gradient


def gradients(kata, which, state, pairs, x, mode):
    model = adapt(kata, net() if which == "net" else tied(), state, pairs)
    with torch.no_grad():
        model.eval()(x)
    x = x.requires_grad_()
    model.train(mode)(x).square().sum().backward()
    found = {"x": x.grad}
    for name in pairs:
        layer = model.get_submodule(name)
        found[f"{name}.lora_A"], found[f"{name}.lora_B"] = layer.lora_A.grad, layer.lora_B.grad
    return found


def _gradients(stage, which, made, state, pairs, x):
    _, want = oracle(made, state, pairs, x)
    for mode in (True, False):
        got = stage(gradients, which, state, pairs, x, mode)
        for name, value in want.items():
            what = "the gradient to the input" if name == "x" else f"the gradient of {name}"
            what += "" if mode else " in eval mode"
            require(got[name] is not None, f"{what} is missing")
            near(got[name], value, what=what, rtol=5e-4)


@part("gradient")
def test_gradients(stage, draw):
    """All factors and the input get their gradients, through the frozen layers too."""
    state, x = states(draw, net()), draw(3, 4, 5)
    _gradients(stage, "net", net(), state, updates(draw, net(), linears(net())), x)


@part("gradient")
def test_gradients_of_tied_layers(stage, draw):
    """The factors of a layer that runs twice get the sum of both gradients."""
    state, x = states(draw, tied()), draw(4, 6)
    _gradients(stage, "tied", tied(), state, updates(draw, tied(), linears(tied())), x)


# state


def state_names(kata):
    model = net()
    inject(kata, model, rank=2)
    return list(model.state_dict())


@part("state")
def test_state_names(stage):
    """The factors are in the model's state dict under the layer's path."""
    names = stage(state_names)
    for name in pairs_of(linears(net())):
        require(name in names, f"`{name}` is not in the state dict")


def round_trip(kata, state, other, pairs, x):
    first = adapt(kata, net(), state, pairs)
    second = filled(net(), other)
    inject(kata, second, rank=RANK, alpha=ALPHA)
    second(x)
    with torch.no_grad():
        second.eval()(x)
    second.load_state_dict(first.state_dict())
    return second(x), second.train()(x)


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another adapted model's state reproduces its outputs."""
    state, other, x = states(draw, net()), states(draw, net()), draw(4, 5)
    pairs = updates(draw, net(), linears(net()))
    want = oracle(net(), state, pairs, x)[0]
    for y in stage(round_trip, state, other, pairs, x):
        near(y, want, what="the output after load_state_dict")


# dtype and device


def mixed(kata):
    model = net().double()
    model.neck.float()
    model.exits.bfloat16()
    names = ["fc", "neck.q_proj", "exits.out", "exits.0"]
    dtypes = [model.get_submodule(name).weight.dtype for name in names]
    inject(kata, model, rank=2)
    found = []
    for name, dtype in zip(names, dtypes):
        layer = model.get_submodule(name)
        base = getattr(layer, "base", layer)
        found.append((name, dtype, layer.lora_A.dtype, layer.lora_B.dtype, base.weight.dtype))
    return found


@part("dtype")
def test_factors_have_the_dtype_of_their_layer(stage):
    """New factors have the dtype of the layer they adapt, in a model of several dtypes too."""
    found = stage(mixed)
    single = all(kind == torch.float32 for item in found for kind in item[2:4])
    bug = "float32-factors" if single else None
    for name, dtype, a_kind, b_kind, base in found:
        text = f"{name} was {_short(dtype)}, its base is now {_short(base)}"
        require(base == dtype, text, "model-cast")
        for factor, kind in (("lora_A", a_kind), ("lora_B", b_kind)):
            text = f"{name}.{factor} is {_short(kind)}, the layer is {_short(dtype)}"
            require(kind == dtype, text, bug)


def _short(dtype):
    return str(dtype).removeprefix("torch.")


@part("dtype")
def test_float64(stage, draw):
    """A float64 model stays exact to 1e-9."""
    state = states(draw, net(), torch.float64)
    pairs = updates(draw, net(), linears(net()), torch.float64)
    x = draw(4, 5, dtype=torch.float64)
    y, listed = stage(in_dtype, "net", state, pairs, x)
    require(listed, "the list of a float64 model holds tensors that are not in the model")
    near(y, oracle(net(), state, pairs, x, 10 / 3)[0], dtype=torch.float64)


def in_dtype(kata, which, state, pairs, x):
    model = net() if which == "net" else nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 4))
    filled(model, state)
    _, params = inject(kata, model, rank=RANK, alpha=10.0)
    known = {id(p) for p in model.parameters()}
    return put(model, pairs)(x), all(id(p) in known for p in params)


@part("dtype")
def test_bfloat16(stage, draw):
    """A bfloat16 model works."""
    kind = torch.bfloat16
    model = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 4))
    state, pairs = states(draw, model, kind), updates(draw, model, linears(model), kind)
    x = draw(4, 5, dtype=kind)
    y, listed = stage(in_dtype, "small", state, pairs, x)
    require(listed, "the list of a bfloat16 model holds tensors that are not in the model")
    near(y, oracle(model, state, pairs, x, 10 / 3)[0], dtype=kind)


def on_meta(kata):
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).to("meta", torch.bfloat16)
    with CheapMeta():
        _, params = inject(kata, model, rank=2)
    devices = [p.device.type for p in params]
    layer = model[0]
    inside = [layer.lora_A.device.type, layer.lora_B.device.type]
    if {*devices, *inside} != {"meta"}:
        return devices, inside, layer.lora_A.dtype, None
    with CheapMeta():
        y = model(torch.empty(2, 3, 6, device="meta", dtype=torch.bfloat16))
    return devices, inside, layer.lora_A.dtype, y


def beside(kata):
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4).to("meta"))
    with CheapMeta():
        inject(kata, model, rank=2)
    return [layer.lora_A.device.type for layer in model]


@part("device")
def test_meta_device(stage):
    """A model on the meta device gets its factors there."""
    devices, inside, dtype, y = stage(on_meta)
    places = {*devices, *inside}
    text = f"factors are on {', '.join(sorted(places))}; the model is on meta"
    require(places == {"meta"}, text, "cpu-factors" if set(inside) == {"cpu"} else None)
    require(len(devices) == 4, f"the list holds {len(devices)} parameters, expected 4")
    require(dtype == torch.bfloat16, f"lora_A is {_short(dtype)}; the layer is bfloat16")
    require(tuple(y.shape) == (2, 3, 4), f"the output has shape {tuple(y.shape)}")
    require(y.device.type == "meta", f"the output is on {y.device.type}, expected meta")
    got = stage(beside)
    text = f"of a layer on cpu and one on meta lora_A is on {' and '.join(got)}"
    require(got == ["cpu", "meta"], text)


# gpu


def on_device(kata, state, pairs, x, device):
    model = filled(net(), state).to(device)
    inject(kata, model, rank=RANK, alpha=ALPHA)
    where = [p.device.type for p in model.parameters()]
    put(model, {name: tuple(t.to(device) for t in pair) for name, pair in pairs.items()})
    x = x.to(device).requires_grad_()
    y = model(x)
    y.square().sum().backward()
    found = {"x": x.grad}
    for name in pairs:
        layer = model.get_submodule(name)
        found[f"{name}.lora_A"], found[f"{name}.lora_B"] = layer.lora_A.grad, layer.lora_B.grad
    return where, y, found


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU, and nothing stays behind."""
    state, pairs, x = states(draw, net()), updates(draw, net(), linears(net())), draw(4, 5)
    where, y, got = stage(on_device, state, pairs, x, stage.device)
    places = ", ".join(sorted(set(where)))
    require(set(where) == {stage.device}, f"parameters are on {places}; all was on {stage.device}")
    want, wanted = oracle(net(), state, pairs, x)
    near(y, want, rtol=1e-3, atol=1e-3)
    for name, value in wanted.items():
        near(got[name], value, what=f"the gradient of {name}", rtol=2e-3, atol=1e-3)
