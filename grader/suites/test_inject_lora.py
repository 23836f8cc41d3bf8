"""What is checked of `inject_lora`. Contract: LoRA (Hu et al. 2021), section 4.2."""

import itertools

import torch
from torch import nn

from grader.exam.checks import Raised, blame, near, part, rejects, require, same
from grader.exam.kit import CheapMeta, Missing, need, set_

STRANGE, EARLIER = "a tensor that is not in the model", "a factor of an earlier call"
RANK, ALPHA = 3, 10.5  # alpha / rank = 3.5
# One of every kind of place, in an order that is neither the model's nor the alphabet's.
PLACES = ("heads.out", "blocks.1.mlp.2", "fc", "neck.q_proj", "heads.0", "blocks.0.attn.q_proj")
PLACES += ("neck.o_proj",)  # that one has no bias
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
            self.heads = nn.ModuleDict({"out": nn.Linear(6, 4), "0": nn.Linear(6, 4)})
            self.gain = nn.Parameter(torch.ones(4))
            self.lora_gate = nn.Parameter(torch.ones(4))
            self.lora_act = nn.PReLU()
            self.mix = nn.Module()
            self.mix.lora_A_gain = nn.Parameter(torch.ones(4))
            self.lora_A, self.lora_B = (nn.Parameter(torch.ones(4)) for _ in range(2))
            self.fc_gate = nn.Parameter(torch.ones(()))
            self.tones = nn.ParameterList([nn.Parameter(torch.ones(4))])
            for holder in (self.heads, self.blocks[0].mlp):
                holder.register_parameter("tone", nn.Parameter(torch.ones(4)))
            self.register_buffer("offset", torch.ones(4))

        def forward(self, x):
            x = self.neck(self.fc(x))
            for block in self.blocks:
                x = block(x)
            x = self.lora_act(self.heads["out"](x) + self.heads["0"](x))
            return self.gain * x + self.lora_gate + self.mix.lora_A_gain + self.offset

    return Net()


def tied():
    """`enc` is `dec` too, `side.1` is `out`, and `stack.0` and `stack.1` are one module; `left`
    and `right` are two layers with one weight, which is the embedding's."""

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
            self.embed = nn.Embedding(6, 6)
            self.left, self.right = (nn.Linear(6, 6, bias=False) for _ in range(2))
            self.left.weight = self.right.weight = self.embed.weight

        def forward(self, x):
            x = self.dec(torch.tanh(self.mid(torch.tanh(self.enc(x)))))
            for layer in self.stack:
                x = x + layer(x)
            x = self.out(x + self.side(x))
            return self.left(x) + self.right(torch.tanh(x)) + self.embed.weight.sum(0)

    return Tied()


def alike():
    """Layers whose names hold each other, or are like those in an adapted layer."""

    class Alike(nn.Module):
        def __init__(self):
            super().__init__()
            for name in ("proj", "proj2", "proj_out", "q_proj", "k", "inner_proj", "other"):
                self.add_module(name, nn.Linear(4, 4))
            self.register_module("gap", None)
            self.base = nn.Linear(1, 1)
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

    return Deep(3)


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


def inject(kata, model, names, **options):
    """The model and the list, as inject_lora returns them."""
    given = list(names) if isinstance(names, list) else names
    result = kata.inject_lora(model, names, **options)
    if names != given:
        raise Missing("inject_lora changes the list of names that it is given")
    if isinstance(result, nn.Module):
        raise Missing("inject_lora returns the model alone, not (model, lora_params)")
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        kind = type(result).__name__
        raise Missing(f"inject_lora should return (model, lora_params), not {kind}")
    if not isinstance(result[0], nn.Module):
        raise Missing(f"inject_lora returns the model first, not a {type(result[0]).__name__}")
    return result


def filled(model, state):
    model.to(next(iter(state.values())).dtype).load_state_dict(state)
    return model


def put(model, pairs):
    """Write the factors into the adapted layers."""
    for name, (A, B) in pairs.items():
        set_(model.get_submodule(name), lora_A=A, lora_B=B)
    return model


def adapt(kata, model, state, pairs, alpha=ALPHA):
    """The filled model with its layers adapted and the factors in place."""
    filled(model, state)
    inject(kata, model, list(pairs), rank=RANK, alpha=alpha)
    return put(model, pairs)


def labels(model, params, names=()):
    """What the parameters of a list are called in the model: the factors and the base of a layer
    under its name, `names` before others, whatever else they are registered as."""
    modules = dict(model.named_modules(remove_duplicate=False))
    known = {}
    for name in (*names, *modules):
        layer = model.get_submodule(name)
        if name in names:
            need(layer, "lora_A"), need(layer, "lora_B")
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


def training(model, names=()):
    """What the parameters that train are called, each once."""
    return labels(model, [p for p in model.parameters() if p.requires_grad], names)


def kind_of(new, old):
    """What stands where `old` stood."""
    if new is old:
        return "left"
    base = getattr(new, "base", None)
    if base is old:
        return "wrapped"
    return "copied" if isinstance(base, nn.Linear) else type(new).__name__


def pairs_of(names):
    return [f"{name}.{factor}" for name in names for factor in ("lora_A", "lora_B")]


# shape


def factor_shapes(kata, names):
    model = net()
    inject(kata, model, names, rank=3, alpha=10.5)
    layers = [model.get_submodule(name) for name in names]
    return [(tuple(need(v, "lora_A").shape), tuple(need(v, "lora_B").shape)) for v in layers]


@part("shape")
def test_factor_shapes(stage):
    """Every wrapped layer has lora_A (rank, in_features) and lora_B (out_features, rank)."""
    _shapes(stage, ["fc"], [(6, 5)])
    _shapes(stage, ["neck.q_proj", "neck.o_proj", "heads.out"], [(9, 6), (6, 9), (4, 6)])


def _shapes(stage, names, sizes):
    with blame("parameters-not-returned", "the model alone"):
        got = stage(factor_shapes, names)
    for name, (a_shape, b_shape), (out, wide) in zip(names, got, sizes):
        bug = "rank-not-passed" if (a_shape, b_shape) == ((8, wide), (out, 8)) else None
        require(a_shape == (3, wide), f"{name}.lora_A has shape {a_shape} at rank 3", bug)
        require(b_shape == (out, 3), f"{name}.lora_B has shape {b_shape} at rank 3", bug)


def rank_one(kata):
    model = net()
    inject(kata, model, ["fc"], rank=1)
    layer = model.fc
    return tuple(need(layer, "lora_A").shape), tuple(need(layer, "lora_B").shape)


@part("shape")
def test_rank_one(stage):
    """A rank of 1 is legal."""
    stage(factor_shapes, ["fc"])
    with blame("rank-one-refused", "rank"):
        shapes = stage(rank_one)
    require(tuple(shapes) == ((1, 5), (6, 1)), f"at rank 1 the factors of `fc` are {shapes}")


def run(kata, state, pairs, x):
    model = adapt(kata, net(), state, pairs)
    return model(x)


def _right(stage, state, pairs, x, what):
    want, _ = oracle(net(), state, pairs, x)
    y = stage(run, state, pairs, x)
    known = {"alpha-not-passed": lambda: oracle(net(), state, pairs, x, 16.0 / RANK)[0]}
    near(y, want, what=what, unless=known)


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """The adapted model takes the same inputs as before: (..., d), a single vector too."""
    state, pairs = states(draw, net()), updates(draw, net(), ["fc"])
    for lead in [(7,), (2, 3), (2, 3, 4), (1, 1), ()]:
        x = draw(*lead, 5)
        _right(stage, state, pairs, x, f"the output for x {tuple(x.shape)}")


def run_strided(kata, state, pairs, x):
    model = adapt(kata, net(), state, pairs)
    return model(x.transpose(0, 1)), model(x[:, ::2])


@part("shape")
def test_non_contiguous_input(stage, draw):
    """Inputs need not be contiguous."""
    state, pairs = states(draw, net()), updates(draw, net(), ["fc"])
    x = draw(4, 6, 5)
    turned, skipped = stage(run_strided, state, pairs, x)
    near(turned, oracle(net(), state, pairs, x.transpose(0, 1))[0])
    near(skipped, oracle(net(), state, pairs, x[:, ::2])[0])


# init


def same_model(kata):
    model = net()
    old = model.fc
    got, _ = inject(kata, model, ["fc"])
    return got is model, kind_of(model.fc, old)


@part("init")
def test_returns_the_same_model(stage):
    """The very model passed in is changed and returned, not a copy."""
    returned, kind = stage(same_model)
    changed = kind != "left"
    message = "the model returned is another object than the one passed in"
    require(returned, message, None if changed else "model-copied")
    require(changed, "`fc` is still the same layer in the model passed in")


def replaced(kata, which, state, name):
    model = filled({"net": net, "deep": deep}[which](), state)
    old = model.get_submodule(name)
    weight = old.weight
    inject(kata, model, [name], rank=3)
    layer = model.get_submodule(name)
    base = getattr(layer, "base", layer)
    return {
        "kind": kind_of(layer, old),
        "weight": getattr(base, "weight", None),
        "same": getattr(base, "weight", None) is weight,
        "factors": hasattr(layer, "lora_A") and hasattr(layer, "lora_B"),
    }


def _wrapped(stage, which, state, name, bug=None):
    """The layer of this name must be wrapped; `bug` if the call fails or leaves it."""
    with blame(bug):
        got = stage(replaced, which, state, name)
    require(got["kind"] != "left", f"`{name}` has not been replaced", bug)
    require(got["factors"], f"`{name}` is now a {got['kind']} without lora_A and lora_B")
    if isinstance(got["weight"], torch.Tensor):
        same(got["weight"], state[f"{name}.weight"], f"the weight of `{name}`", "weights-lost")
    copied = "base-copied" if got["kind"] == "copied" else None
    require(got["kind"] == "wrapped", f"`base` of `{name}` is not the layer that was there", copied)
    require(got["same"], f"the weight of `{name}` is another Parameter than before")


@part("init")
def test_wraps_the_named_layer(stage, draw):
    """A named layer becomes a LoRALinear whose `base` is that very layer, its values untouched."""
    _wrapped(stage, "net", states(draw, net()), "fc")


def heir(kata):
    class Heir(nn.Linear):
        pass

    model = nn.Module()
    model.heir = old = Heir(6, 4)
    inject(kata, model, ["heir"], rank=2)
    return kind_of(model.heir, old)


@part("init")
def test_wraps_a_subclass_of_linear(stage, draw):
    """A layer of a class derived from nn.Linear is wrapped like any other."""
    _wrapped(stage, "net", states(draw, net()), "fc")
    bug = "subclass-refused"
    with blame(bug):
        kind = stage(heir)
    left = bug if kind == "left" else None
    require(kind == "wrapped", f"a layer of a class derived from nn.Linear is {kind}", left)


@part("init")
def test_follows_dotted_paths(stage, draw):
    """Names are dotted paths such as "encoder.attn.q_proj", of any depth."""
    state = states(draw, deep())
    _wrapped(stage, "deep", state, "fc")
    for name in ("inner.fc", "inner.inner.fc", "inner.inner.inner.fc"):
        _wrapped(stage, "deep", state, name, "dotted-path-fails")


@part("init")
def test_follows_paths_through_containers(stage, draw):
    """Paths lead through nn.ModuleList, nn.Sequential and nn.ModuleDict, whatever its keys."""
    _wrapped(stage, "deep", states(draw, deep()), "inner.inner.inner.fc")
    state = states(draw, net())
    _wrapped(stage, "net", state, "neck.q_proj")
    for name in ("blocks.0.attn.q_proj", "blocks.1.mlp.2", "heads.out", "heads.0"):
        _wrapped(stage, "net", state, name, "container-path-fails")


def through_root(kata, weight, bias, x):
    inner, model = nn.Sequential(), nn.Sequential()  # their keys are no positions
    inner.add_module("1", nn.Linear(6, 6)), inner.add_module("0", nn.Tanh())
    parts = {"2": nn.Linear(6, 6), "1": nn.Tanh(), "0": inner, "3": nn.LayerNorm(6)}
    for name, module in parts.items():
        model.add_module(name, module)
    before = [*model, *inner]
    for layer in (model[0], inner[0]):
        set_(layer, weight=weight, bias=bias)
    inject(kata, model, ["0.1", "2"])
    # Where what stands there now stood before; a wrapped layer counts as the layer.
    places = [at for new in (*model, *inner) for at, old in enumerate(before) if stems(new, old)]
    wrapped = sum(hasattr(new, "lora_A") for new in (*model, *inner))
    return places, wrapped, model(x)


def stems(new, old):
    return kind_of(new, old) in ("left", "wrapped")


@part("init")
def test_children_keep_their_order(stage, draw):
    """A layer takes the place of the one it replaces: a Sequential runs in the order it had."""
    state = states(draw, net())
    for name in ("blocks.1.mlp.2", "blocks.0.attn.q_proj"):
        _wrapped(stage, "net", state, name)
    weight, bias, x = draw(6, 6, std=0.5), draw(6, std=0.5), draw(3, 6)
    places, wrapped, y = stage(through_root, weight, bias, x)
    require(sorted(places) == list(range(6)), "a Sequential has not kept its modules")
    kept = places == list(range(6))
    require(kept, "the modules of a Sequential stand in another order afterwards", "order-lost")
    require(wrapped == 2, f"in a Sequential {wrapped} layers were replaced, not 2")
    want = x.double()
    for _ in range(2):
        want = torch.tanh(want @ weight.double().T + bias.double())
    near(y, nn.functional.layer_norm(want, (6,)), what="the output of a Sequential at the start")


def neighbours(kata, names):
    model = alike()
    before = dict(model.named_modules())
    inject(kata, model, names)
    return {name: kind_of(model.get_submodule(name), old) for name, old in before.items()}


@part("init")
def test_replaces_no_other_layer(stage):
    """Only the layers with exactly these names are replaced; all other modules stay as they are."""
    lists = (["proj"], ["k"], ["q_proj", "layers.1"], ["layers.11"], ["inner.proj"])
    for names in (*lists, ["base"], ["inner.base"]):
        got = stage(neighbours, names)
        extra = [n for n, kind in got.items() if kind != "left" and n not in names]
        left = [n for n in names if got[n] == "left"]
        require(not left, f"for {names} not replaced: {', '.join(left)}")
        akin = all(any(_alike(name, other) for name in names) for other in extra)
        bug = "all-linears-replaced" if "other" in extra else "part-of-a-name-matches"
        bug = bug if akin or "other" in extra else None
        require(not extra, f"for {names} also replaced: {', '.join(extra)}", bug)


def _alike(name, other):
    """Whether one name holds the other, or they end alike, any character standing for a dot."""
    name, other = name.replace(".", "_"), other.replace(".", "_")
    return name in other or name.rpartition("_")[2] == other.rpartition("_")[2]


def listed(kata, names):
    before = list(inject(kata, net(), ["neck.o_proj"], rank=2)[1])
    model = net()
    _, params = inject(kata, model, names, rank=2)
    if not isinstance(params, list):
        return type(params).__name__, []
    earlier = {id(p) for p in before}
    found = zip(params, labels(model, params, names))
    return "list", [EARLIER if id(p) in earlier else name for p, name in found]


@part("init")
def test_list_of_the_factors(stage):
    """The list holds exactly the factors of the wrapped layers, themselves and no copies."""
    kind, got = stage(listed, ["fc", "neck.q_proj"])
    require(kind == "list", f"the parameters come as a {kind}, expected a list", "not-a-list")
    _listed(got, ["fc", "neck.q_proj"])


def _listed(got, names, *, order=None, doubled=None, otherwise=None):
    """`got` must be the factors of these layers. order: what another order than any known one
    is called; doubled: what a list that holds a factor twice is; otherwise: what one is that
    holds a strange tensor."""
    want = pairs_of(names)
    if got == want:
        return
    bug = otherwise if STRANGE in got else None
    extra = set(got) - set(want)
    if otherwise is None and STRANGE in got and len(got) == len(want):
        bug = "factors-copied"
    elif EARLIER in got:
        bug = "earlier-factors-returned"
    elif extra and extra <= OWN:
        bug = "own-names-taken"
    elif otherwise is None and any(".base." in name for name in got):
        bug = "base-parameters-listed"
    elif not extra and set(got) == set(want) and len(got) > len(want):
        bug = doubled
    elif sorted(got) == sorted(want):
        bug = _order(got, names) or order
    require(False, f"the list holds {_words(got)}; expected {_words(want)}", bug)


def _order(got, names):
    if len(names) < 2:
        return None  # too short to tell one order from another
    if got == [f"{name}.{factor}" for name in names for factor in ("lora_B", "lora_A")]:
        return "b-before-a"
    grouped = [f"{name}.{factor}" for factor in ("lora_A", "lora_B") for name in names]
    return "all-a-before-all-b" if got == grouped else None


def _words(names):
    runs = ((name, len(list(same))) for name, same in itertools.groupby(names))
    return ", ".join(name if n == 1 else f"{n} x {name}" for name, n in runs) or "nothing"


def second_call(kata, first, second):
    model = net()
    inject(kata, model, first, rank=2)
    _, params = inject(kata, model, second, rank=2)
    layers = [model.get_submodule(name) for name in (*first, *second)]
    return labels(model, params, (*first, *second)), [hasattr(v, "lora_A") for v in layers]


@part("init")
def test_second_call_returns_its_own(stage):
    """A second call returns the factors of the layers that it wraps itself."""
    for name in ("fc", "neck.q_proj"):
        _listed(stage(listed, [name])[1], [name])
    for first, second in ((["fc"], ["neck.q_proj"]), (["neck.q_proj"], ["fc"])):
        got, there = stage(second_call, first, second)
        earlier = [name for name in got if name in pairs_of(first)]
        require(
            not earlier,
            f"a second call returned the factors of an earlier one: {_words(earlier)}",
            "earlier-factors-returned",
        )
        _listed(got, second)
        require(all(there), "after a second call the first one's layers are not adapted any more")


@part("init")
def test_list_in_the_order_of_the_names(stage):
    """The list follows the order of linear_names, lora_A before lora_B."""
    model = [name for name, _ in net().named_modules() if name in PLACES]
    for names in (list(PLACES), list(PLACES[::-1])):
        _, got = stage(listed, names)
        order = None
        if got == pairs_of(model):
            order = "order-of-the-model"
        elif got == pairs_of(sorted(names)):
            order = "order-of-the-alphabet"
        elif got == pairs_of(name.removesuffix(".lora_A") for name in got[::2]):
            order = "order-not-kept"
        _listed(got, names, order=order)


def listed_from(kata, kind, names):
    made = {
        "generator": lambda: (name for name in names),
        "iterator": lambda: iter(names),
        "tuple": lambda: tuple(names),
        "keys": lambda: dict.fromkeys(names).keys(),
    }
    model = net()
    _, params = inject(kata, model, made[kind](), rank=2)
    there = [hasattr(model.get_submodule(name), "lora_A") for name in names]
    return there, labels(model, params, names) if all(there) else []


@part("init")
def test_any_iterable_of_names(stage):
    """linear_names may be any iterable, a one-shot iterator too."""
    names = ["neck.q_proj", "fc"]
    _listed(stage(listed, names)[1], names)
    for kind in ("tuple", "keys", "iterator", "generator"):
        once = kind in ("iterator", "generator")
        bug = "iterator-used-up" if once else None
        with blame("iterator-refused" if once else None):
            there, got = stage(listed_from, kind, names)
        require(all(there), f"given a {kind} of names not every layer was replaced", bug)
        _listed(got, names)


def with_repeats(kata, names):
    model = net()
    before = {name: model.get_submodule(name) for name in names}
    _, params = inject(kata, model, names, rank=2)
    kinds = {name: kind_of(model.get_submodule(name), old) for name, old in before.items()}
    return kinds, labels(model, params, names)


@part("init")
def test_name_given_twice_counts_once(stage):
    """A name given twice counts once."""
    _listed(stage(listed, ["fc", "neck.q_proj"])[1], ["fc", "neck.q_proj"])
    for names in (["fc", "fc", "neck.q_proj"], ["neck.q_proj", "fc", "fc", "fc"]):
        once = list(dict.fromkeys(names))
        with blame("name-twice-fails"):
            kinds, got = stage(with_repeats, names)
        for name, kind in kinds.items():
            twice = None if kind == "left" else "name-twice-fails"
            require(kind == "wrapped", f"with {names} `{name}` is not wrapped once", twice)
        _listed(got, once, doubled="factors-listed-twice", otherwise="name-twice-fails")


def tie(kata, state, names, pairs, x):
    model = filled(tied(), state)
    before = {name: model.get_submodule(name) for name in names}
    _, params = inject(kata, model, names, rank=RANK, alpha=ALPHA)
    layers = [model.get_submodule(name) for name in names]
    kinds = [kind_of(layer, old) for layer, old in zip(layers, before.values())]
    if "left" in kinds:
        return kinds, False, [], None
    one = all(layer is layers[0] for layer in layers)
    found = labels(model, params, names)
    put(model, {name: pair for name, pair in pairs.items() if name in names})
    return kinds, one, found, model(x)


@part("init")
def test_second_name_of_a_layer(stage, draw):
    """A layer that the model has under two names can be given by either."""
    state, x = states(draw, tied()), draw(3, 6)
    for first, second in (("enc", "dec"), ("stack.0.0", "stack.1.0"), ("side.1", "out")):
        require(stage(tie, state, [first], {}, x)[0] != ["left"], f"`{first}` was not replaced")
        with blame("second-name-unknown"):
            kinds, *_ = stage(tie, state, [second], {}, x)
        require(kinds != ["left"], f"`{second}` was not replaced", "second-name-unknown")


@part("init")
def test_tied_layer_is_wrapped_once(stage, draw):
    """A layer reached under two listed names is wrapped once and stays tied."""
    state, x = states(draw, tied()), draw(3, 6)
    ties = (("enc", "dec"), ("stack.0.0", "stack.1.0"), ("side.1", "out"))
    for first, second in (*ties, *(pair[::-1] for pair in ties)):
        pairs = updates(draw, tied(), [first])
        for alone in (first, second):
            kinds, _, got, _ = stage(tie, state, [alone], {alone: pairs[first]}, x)
            require(kinds == ["wrapped"], f"`{alone}` is not wrapped")
            _listed(got, [alone])
        with blame("tied-not-kept"):
            kinds, one, got, y = stage(tie, state, [first, second], pairs, x)
        both = f"`{first}` and `{second}`, one layer,"
        require(kinds == ["wrapped"] * 2, f"{both} are not both wrapped", "tied-not-kept")
        require(one, f"{both} are two afterwards", "tied-not-kept")
        _listed(got, [first], doubled="factors-listed-twice", otherwise="tied-not-kept")
        near(y, oracle(tied(), state, pairs, x)[0], what="the output when tied")


@part("init")
def test_layers_that_share_a_weight(stage, draw):
    """Two layers that share only their weight are two; the weight stays shared."""
    state, x = states(draw, tied()), draw(3, 6)
    pairs = updates(draw, tied(), ["left", "right"])
    kinds, one, got, y = stage(tie, state, ["left", "right"], pairs, x)
    require(kinds != ["left"] * 2, "two layers that share a weight were not replaced")
    text, merged = "two layers that share a weight", "layers-merged-by-weight"
    require("left" not in kinds, f"of {text} only one is wrapped", merged)
    require(not one, f"{text} became one", merged)
    require(kinds == ["wrapped"] * 2, f"{text} are not both wrapped")
    _listed(got, ["left", "right"])
    near(y, oracle(tied(), state, pairs, x)[0], what="the output with a shared weight")


def start(kata, state, names, x):
    model = filled(net(), state)
    inject(kata, model, names)
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
    want, _ = oracle(net(), state, {}, x)
    for names in (["fc"], list(PLACES)):
        y, kept, bare = stage(start, state, names, x)
        require(bare, "the base of `neck.o_proj` had no bias and has one now")
        near(y, want, what="the output right after the call")
        for name, value in kept.items():
            if value is not None:
                same(value, state[name], f"`{name}`")


def called(kata, state, pairs, x, args, options):
    model = filled(net(), state)
    kata.inject_lora(model, list(pairs), *args, **options)
    return put(model, pairs)(x)


def called_by_name(kata):
    model = net()
    kata.inject_lora(alpha=4.0, rank=2, linear_names=["fc"], model=model)
    return model.fc.lora_A.shape[0]


CALLS = (  # rank, arguments by place and by name, scale
    (8, (), {}, 2.0),
    (4, (), {"rank": 4}, 4.0),
    (8, (), {"alpha": 2.0}, 0.25),
    (1, (), {"rank": 1, "alpha": -3}, -3.0),
    (4, (4, 10.0), {}, 2.5),
)


@part("init")
def test_arguments(stage, draw):
    """rank (from 1 up) defaults to 8 and alpha to 16; arguments by place or by name."""
    state, x = states(draw, net()), draw(4, 5)
    for rank, args, options, scale in CALLS:
        pairs = updates(draw, net(), ["fc"], rank=rank)
        y = stage(called, state, pairs, x, args, options)
        given = ", ".join([*map(str, args), *(f"{k}={v}" for k, v in options.items())])
        what = f"the output with {given or 'the default rank and alpha'}"
        near(y, oracle(net(), state, pairs, x, scale)[0], what=what)
    rank = stage(called_by_name)
    require(rank == 2, f"with all arguments by name lora_A has {rank} rows at rank 2")


def fresh(kata):
    models = [nn.Sequential(nn.Linear(40, 30), nn.Linear(40, 30)) for _ in range(2)]
    with torch.random.fork_rng(devices=[]):
        for seed, model in enumerate(models):
            torch.manual_seed(seed)
            inject(kata, model, ["0", "1"])
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
    inject(kata, model, list(PLACES))
    return [name or "the model" for name, (m, mode) in before.items() if m.training != mode]


@part("init")
def test_modes_stay(stage):
    """Every module stays in the mode it was in, training or evaluation."""
    for training in (True, False):
        changed = stage(modes, training)
        require(
            not changed,
            f"the call switched between train() and eval(): {', '.join(changed)}",
            "mode-switched",
        )


# freeze


def after_backward(kata, names, x):
    model = net()
    inject(kata, model, names, rank=5)  # a rank that nothing before has used
    flags = training(model, names)
    if flags:
        model(x).square().sum().backward()
    layers = [model.get_submodule(name) for name in names]
    frozen = [not p.requires_grad for v in layers for p in (need(v, "lora_A"), need(v, "lora_B"))]
    touched = [p for p in model.parameters() if p.grad is not None]
    return flags, frozen, labels(model, touched, names)


def _only(flags, want, frozen=()):
    """The names of the parameters that train must be these. frozen: for each factor whether
    requires_grad is False."""
    missing, extra = set(want) - set(flags), sorted(set(flags) - set(want))
    bug = "factors-frozen" if all(frozen) and len(missing) == len(frozen) > 0 else None
    require(not missing, f"not among what trains: {', '.join(sorted(missing))}", bug)
    inside = [name for name in extra if ".base." in name]
    layers = {name.rpartition(".")[0] for name in want}
    outside = not any(name.rpartition(".")[0] in layers for name in extra)
    if extra and OWN.issuperset(extra):
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


@part("freeze")
def test_all_else_is_frozen(stage, draw):
    """lora_A and lora_B train; all else is frozen: biases, norms, a `lora_gate` of the model's."""
    for names in (["fc"], ["neck.q_proj"], list(PLACES)):
        flags, frozen, touched = stage(after_backward, names, draw(4, 5))
        _only(flags, pairs_of(names), frozen)
        others = sorted(set(touched) - set(flags))
        require(not others, f"a frozen parameter receives a gradient: {', '.join(others)}")
        lost = sorted(set(flags) - set(touched))
        require(not lost, f"no gradient reaches {', '.join(lost)}")


def empty(kata, how):
    model = net()
    before = dict(model.named_modules())
    got, params = inject(kata, model, {"list": [], "iterator": iter(())}[how])
    changed = [n for n, m in before.items() if dict(model.named_modules()).get(n) is not m]
    return training(model), len(list(params)), got is model, changed


@part("freeze")
def test_empty_list_freezes_all(stage):
    """With no names nothing is replaced, the list is empty, and all parameters are frozen."""
    for how in ("list", "iterator"):
        flags, length, kept, changed = stage(empty, how)
        require(kept, "the model returned is another object than the one passed in")
        require(not changed, f"an empty list of names replaced {', '.join(changed)}")
        require(length == 0, f"an empty list of names gave {length} parameters")
        everything = len(flags) == len(list(net().parameters()))
        bug = "empty-list-freezes-nothing" if everything else None
        require(not flags, f"not frozen: {', '.join(flags)}", bug)


def tied_flags(kata, names):
    model = tied()
    inject(kata, model, names, rank=2)
    return training(model), model.left.weight is model.embed.weight


@part("freeze")
def test_tied_parameters_are_frozen(stage):
    """Parameters that several modules share are frozen too, and stay shared."""
    flags, shared = stage(tied_flags, ["mid"])
    _only(flags, pairs_of(["mid"]))
    require(shared, "the weight shared with an embedding is not shared any more")


def partly(kata, names):
    model = net()
    model.eval()
    for number, p in enumerate(model.parameters()):
        p.requires_grad_(number % 2 == 0)
    inject(kata, model, names, rank=2)
    return training(model)


@part("freeze")
def test_parameters_frozen_before(stage):
    """What was frozen before stays so, and the factors on frozen layers train."""
    _only(stage(partly, list(PLACES)), pairs_of(PLACES))
    _only(stage(partly, []), [])


def ambient(kata):
    """Called under no_grad, with another default dtype: what it leaves, what trains."""
    model = net()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            inject(kata, model, ["fc"], rank=2)
            grad = torch.is_grad_enabled()
        dtype = torch.get_default_dtype()
    finally:
        torch.set_default_dtype(torch.float32)
    return grad, dtype, training(model, ["fc"]), model.fc.lora_A.dtype


@part("freeze")
def test_called_under_no_grad(stage):
    """The call leaves grad mode and default dtype as they were; under no_grad too all else is
    frozen and what is new trains."""
    grad, dtype, flags, kind = stage(ambient)
    require(not grad, "called under torch.no_grad(), it leaves grad mode on")
    require(dtype == torch.float64, f"the default dtype was float64 and is {_short(dtype)} now")
    _only(flags, pairs_of(["fc"]))
    require(kind == torch.float32, f"fc.lora_A is {_short(kind)}, the layer is float32")


# forward


@part("forward")
def test_output_with_updates(stage, draw):
    """Every wrapped layer computes base(x) + alpha / rank * (x @ lora_A.T @ lora_B.T)."""
    state, x = states(draw, net()), draw(3, 4, 5)
    for names in (["fc"], ["neck.o_proj"], list(PLACES)):
        pairs = updates(draw, net(), names)
        _right(stage, state, pairs, x, f"the output with updates in {', '.join(names)}")


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
    steps = [updates(draw, net(), PLACES) for _ in range(2)]
    wanted = [oracle(net(), state, pairs, x)[0] for pairs in steps for _ in range(2)]
    got = stage(moves, state, steps, x)
    for at, (y, want) in enumerate(zip(got, wanted * 3)):
        mode = "train" if at // 4 != 1 else "eval"
        what = f"the output in {mode} mode{' under no_grad' * (at % 2)}"
        near(y, want, what=f"{what}{' with new factors' * (at > 1)}")


def listed_step(kata, state, names, steps, x):
    model = filled(net(), state)
    _, params = inject(kata, model, names, rank=RANK, alpha=ALPHA)
    with torch.no_grad():
        for p, step in zip(params, steps):
            p.add_(step - p)
    return model(x)


@part("forward")
def test_training_the_list_trains_the_model(stage, draw):
    """What an optimizer does to the parameters of the list, the model computes with."""
    state, x = states(draw, net()), draw(4, 5)
    pairs = updates(draw, net(), PLACES)
    steps = [factor for pair in pairs.values() for factor in pair]
    y = stage(listed_step, state, list(PLACES), steps, x)
    near(y, oracle(net(), state, pairs, x)[0], what="the output after a step on the list")


def two_models(kata, state, other, pairs, x):
    first, second = filled(net(), state), filled(net(), other)
    inject(kata, first, list(pairs), rank=RANK, alpha=ALPHA)
    inject(kata, second, list(pairs), rank=RANK, alpha=ALPHA)
    put(first, pairs)
    return first(x), second(x)


@part("forward")
def test_models_do_not_share(stage, draw):
    """Two models adapted one after the other have nothing in common."""
    state, other, x = states(draw, net()), states(draw, net()), draw(4, 5)
    pairs = updates(draw, net(), PLACES)
    first, second = stage(two_models, state, other, pairs, x)
    near(first, oracle(net(), state, pairs, x)[0], what="the output of the first of two models")
    near(second, oracle(net(), other, {}, x)[0], what="the output of the second of two models")


def two_calls(kata, state, pairs, more, x):
    model = filled(net(), state)
    inject(kata, model, list(pairs), rank=RANK, alpha=ALPHA)
    put(model, pairs)
    inject(kata, model, list(more), rank=RANK, alpha=ALPHA)
    put(model, more)
    return model(x)


@part("forward")
def test_second_call_keeps_the_first(stage, draw):
    """A second call leaves the layers of the first as they are."""
    state, x = states(draw, net()), draw(4, 5)
    pairs = updates(draw, net(), ["fc", "blocks.1.mlp.2"])
    more = updates(draw, net(), ["neck.q_proj", "blocks.1.mlp.0"])
    y = stage(two_calls, state, pairs, more, x)
    near(y, oracle(net(), state, {**pairs, **more}, x)[0], what="the output after two calls")


def input_after(kata, state, pairs, x):
    model = adapt(kata, net(), state, pairs)
    model(x)
    model.eval()(x)
    return x


@part("forward")
def test_input_is_left_unchanged(stage, draw):
    """The adapted model does not change its input in place."""
    x = draw(4, 5)
    got = stage(input_after, states(draw, net()), updates(draw, net(), PLACES), x)
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
    for names in (["fc"], list(PLACES)):
        pairs = updates(draw, net(), names)
        _gradients(stage, "net", net(), state, pairs, x)


@part("gradient")
def test_gradients_of_tied_layers(stage, draw):
    """The factors of a layer that runs twice get the sum of both gradients."""
    state, x = states(draw, tied()), draw(4, 6)
    _gradients(stage, "tied", tied(), state, updates(draw, tied(), ["stack.0.0"]), x)


# state


def state_names(kata, names):
    model = net()
    inject(kata, model, names, rank=2)
    return list(model.state_dict())


@part("state")
def test_state_names(stage):
    """The factors are in the model's state dict under the layer's path."""
    names = stage(state_names, list(PLACES))
    for name in pairs_of(PLACES):
        require(name in names, f"`{name}` is not in the state dict")


def round_trip(kata, state, other, pairs, x):
    first = adapt(kata, net(), state, pairs)
    second = filled(net(), other)
    inject(kata, second, list(pairs), rank=RANK, alpha=ALPHA)
    second(x)
    with torch.no_grad():
        second.eval()(x)
    second.load_state_dict(first.state_dict())
    return second(x), second.train()(x)


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another adapted model's state reproduces its outputs."""
    state, other, x = states(draw, net()), states(draw, net()), draw(4, 5)
    pairs = updates(draw, net(), PLACES)
    want = oracle(net(), state, pairs, x)[0]
    for y in stage(round_trip, state, other, pairs, x):
        near(y, want, what="the output after load_state_dict")


# dtype and device


def mixed(kata):
    model = net()
    model.neck.double()
    model.heads.bfloat16()
    names = ["fc", "neck.q_proj", "heads.out", "heads.0"]
    dtypes = [model.get_submodule(name).weight.dtype for name in names]
    inject(kata, model, names, rank=2)
    found = []
    for name, dtype in zip(names, dtypes):
        layer = model.get_submodule(name)
        base = getattr(layer, "base", layer)
        found.append((name, dtype, layer.lora_A.dtype, layer.lora_B.dtype, base.weight.dtype))
    return found


@part("dtype")
def test_factors_have_the_dtype_of_their_layer(stage):
    """New factors have the dtype of the layer they adapt, in a model of several dtypes too."""
    for name, dtype, a_kind, b_kind, base in stage(mixed):
        text = f"{name} was {_short(dtype)}, its base is now {_short(base)}"
        require(base == dtype, text, "model-cast")
        for factor, kind in (("lora_A", a_kind), ("lora_B", b_kind)):
            text = f"{name}.{factor} is {_short(kind)}, the layer is {_short(dtype)}"
            require(kind == dtype, text)


def _short(dtype):
    return str(dtype).removeprefix("torch.")


@part("dtype")
def test_float64(stage, draw):
    """A float64 model stays exact to 1e-9."""
    state = states(draw, net(), torch.float64)
    pairs = updates(draw, net(), PLACES, torch.float64)
    x = draw(4, 5, dtype=torch.float64)
    y, listed = stage(in_dtype, "net", state, pairs, x)
    require(listed, "the list of a float64 model holds tensors that are not in the model")
    near(y, oracle(net(), state, pairs, x, 10 / 3)[0], dtype=torch.float64)


def in_dtype(kata, which, state, pairs, x):
    model = net() if which == "net" else nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 4))
    filled(model, state)
    _, params = inject(kata, model, list(pairs), rank=RANK, alpha=10.0)
    known = {id(p) for p in model.parameters()}
    return put(model, pairs)(x), all(id(p) in known for p in params)


@part("dtype")
def test_bfloat16(stage, draw):
    """A bfloat16 model works."""
    kind = torch.bfloat16
    model = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 4))
    state, pairs = states(draw, model, kind), updates(draw, model, ["1"], kind)
    x = draw(4, 5, dtype=kind)
    y, listed = stage(in_dtype, "small", state, pairs, x)
    require(listed, "the list of a bfloat16 model holds tensors that are not in the model")
    near(y, oracle(model, state, pairs, x, 10 / 3)[0], dtype=kind)


def on_meta(kata):
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).to("meta", torch.bfloat16)
    with CheapMeta():
        _, params = inject(kata, model, ["2", "0"], rank=2)
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
        inject(kata, model, ["1", "0"], rank=2)
    return [layer.lora_A.device.type for layer in model]


@part("device")
def test_meta_device(stage):
    """A model on the meta device gets its factors there."""
    devices, inside, dtype, y = stage(on_meta)
    places = {*devices, *inside}
    require(places == {"meta"}, f"factors are on {', '.join(sorted(places))}; the model is on meta")
    require(len(devices) == 4, f"the list holds {len(devices)} parameters, expected 4")
    require(dtype == torch.bfloat16, f"lora_A is {_short(dtype)}; the layer is bfloat16")
    require(tuple(y.shape) == (2, 3, 4), f"the output has shape {tuple(y.shape)}")
    require(y.device.type == "meta", f"the output is on {y.device.type}, expected meta")
    got = stage(beside)
    text = f"of a layer on cpu and one on meta lora_A is on {' and '.join(got)}"
    require(got == ["cpu", "meta"], text)


# errors


def model_of(kata, first):
    """The model for bad arguments: some parameters frozen, some layers adapted before."""
    model = net()

    class Linear(nn.Module):  # in name and attributes alone
        pass

    model.odd = Linear()
    model.odd.weight, model.odd.bias = nn.Parameter(torch.zeros(6, 6)), None
    model.odd.in_features = model.odd.out_features = 6
    model.conv, model.embed = nn.Conv1d(6, 6, 1), nn.Embedding(6, 6)
    if first:
        inject(kata, model, list(first), rank=2)
    else:
        for number, p in enumerate(model.parameters()):
            p.requires_grad_(number % 3 != 0)
    return model


def prepared(kata, first):
    known = dict(model_of(kata, first).named_parameters(remove_duplicate=False))
    for name in first:
        if f"{name}.lora_A" not in known:
            raise Missing(f"`{name}.lora_A` is no parameter of the adapted model")


def refused(kata, cases, options, first):
    """Of each list of names the exception's types and text and what the call has changed, or None
    if none was raised. The last is the first that was not refused or has changed something."""
    model = model_of(kata, first)
    modules = dict(model.named_modules(remove_duplicate=False))
    params = dict(model.named_parameters(remove_duplicate=False))
    flags = {name: p.requires_grad for name, p in params.items()}
    values = {name: p.detach().clone() for name, p in params.items()}
    seen = []
    for names in cases:
        try:
            kata.inject_lora(model, names, **options)
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
            seen.append((types, str(error), changed))
            if not any(changed.values()):
                continue
        else:
            seen.append(None)
        break
    return seen


def adopted(kata, name):
    """Which modules are replaced where this name does not raise."""
    model = net()
    before = dict(model.named_modules())
    try:
        kata.inject_lora(model, [name])
    except Exception:
        return []
    return [n for n, old in before.items() if model.get_submodule(n) is not old]


def refuse(kata, names, options, first):
    kata.inject_lora(model_of(kata, first), names, **options)


_CHANGES = {
    "modules": ("replaced-before-check", "modules were replaced"),
    "order": (None, "the order was changed of"),
    "params": (None, "parameters were replaced"),
    "flags": ("frozen-before-check", "requires_grad was changed"),
    "values": (None, "values were changed"),
}


def _refused(stage, error, bug, cases, first=(), other=None, **options):
    """Each case, (names, what the message names), must raise `error` and change nothing.
    other: (another error, the mistake of raising that one)."""
    if first:
        stage(prepared, list(first))
    lists = [names for names, _ in cases]
    found = stage(refused, lists, options, list(first))
    for (names, named), got in zip(cases, found):
        what = f"linear_names {names}" + "".join(f", {k}={v}" for k, v in options.items())
        if not (got and f"builtins.{error}" in got[0] and named in got[1]):
            _unlike(
                stage.attempt(refuse, names, options, list(first)), error, named, what, bug, other
            )
        for key, (early, text) in _CHANGES.items():
            changed = got[2][key]
            require(not changed, f"{what}: before the error {text}: {', '.join(changed)}", early)


def _unlike(outcome, error, named, what, bug, other):
    """Say what is wrong with an outcome that is not `error` with `named` in its message."""
    if isinstance(outcome, Raised) and not outcome.unwritten:
        if f"builtins.{error}" in outcome.types and named not in outcome.text:
            text = f"its message does not name `{named}`: {outcome.text or 'it is empty'}"
            nameless = "error-without-name" if outcome.deliberate else None
            require(False, f"{what} raises {error}, but {text}", nameless)
        kind = outcome.types[0].rpartition(".")[2]
        if f"builtins.{error}" not in outcome.types and not outcome.deliberate:
            require(False, f"{what} must raise {error}, not {kind}: {outcome.text}", bug)
        if other and f"builtins.{other[0]}" in outcome.types:
            require(False, f"{what} must raise {error}, not {kind}: {outcome.text}", other[1])
    rejects(outcome, error, named, what=what, bug=bug)
    require(False, f"{what} is refused in a new model, but not after other calls that failed")


@part("errors")
def test_unknown_names(stage):
    """A name that the model does not have raises KeyError with that name; nothing is changed."""
    unknown, other = "unknown-name-unchecked", ("TypeError", "unknown-is-type-error")
    cases = [(["nope"], "nope"), (["fc", "neck.q_proj", "nope"], "nope")]
    cases += [(["fc", "fc", "nope"], "nope")]
    for name in ("neck.nope", "fc.nope", "blocks.7.attn.q_proj", "heads.nope", "blocks.first.mlp"):
        cases += [(names, name) for names in ([name], ["fc", name], [name, "fc"])]
    _refused(stage, "KeyError", unknown, cases, other=other)
    for name in ("q_proj", "attn.q_proj", "mlp.2", "net.fc", "out"):
        new = stage(adopted, name)
        akin = new and all(_alike(name, other) for other in new)
        text = f"linear_names {[name]} must raise KeyError; {_words(new)} was replaced"
        require(not new, text, "part-of-a-name-matches" if akin else None)
        _refused(stage, "KeyError", unknown, [(["fc", name], name)], other=other)
    for name in (
        "blocks.-1.attn.q_proj",
        "blocks.01.attn.q_proj",
        "heads.1",
        "FC",
        " fc",
        "model.fc",
    ):
        _refused(stage, "KeyError", None, [([name], name)], other=other)


@part("errors")
def test_modules_that_are_no_linears(stage):
    """The name of a module that is no nn.Linear raises TypeError with that name."""
    others = ("odd", "conv", "embed", "blocks.0.norm", "blocks", "blocks.1.mlp", "heads")
    cases = [(names, name) for name in others for names in ([name], ["fc", "heads.0", name])]
    other = ("KeyError", "other-modules-unknown")
    _refused(stage, "TypeError", "type-unchecked", cases, other=other)


@part("errors")
def test_adapted_layers_are_refused(stage):
    """The name of a layer that is adapted already raises TypeError with that name."""
    _refused(stage, "TypeError", "type-unchecked", [(["neck.o_proj", "neck"], "neck")], ["fc"])
    for name in ("fc", "blocks.0.attn.q_proj"):
        cases = [([name], name), (["heads.0", name], name)]
        _refused(stage, "TypeError", "adapted-twice", cases, [name])


@part("errors")
def test_rank_below_one(stage):
    """rank < 1 raises ValueError naming rank if there are names, before anything is changed."""
    cases = [(names, "rank") for names in (["fc"], ["neck.q_proj", "fc"])]
    for rank in (0, -1):
        _refused(stage, "ValueError", "rank-unchecked", cases, rank=rank)


# gpu


def on_device(kata, state, pairs, x, device):
    model = filled(net(), state).to(device)
    inject(kata, model, list(pairs), rank=RANK, alpha=ALPHA)
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
    state, pairs, x = states(draw, net()), updates(draw, net(), PLACES), draw(4, 5)
    where, y, got = stage(on_device, state, pairs, x, stage.device)
    places = ", ".join(sorted(set(where)))
    require(set(where) == {stage.device}, f"parameters are on {places}; all was on {stage.device}")
    want, wanted = oracle(net(), state, pairs, x)
    near(y, want, rtol=1e-3, atol=1e-3)
    for name, value in wanted.items():
        near(got[name], value, what=f"the gradient of {name}", rtol=2e-3, atol=1e-3)
