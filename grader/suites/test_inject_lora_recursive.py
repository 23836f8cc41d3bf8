"""What is checked of `inject_lora_recursive`. Contract: LoRA (Hu et al. 2021), section 4.2."""

import torch
from torch import nn

from grader.exam.checks import near, part, require
from grader.exam.kit import CheapMeta, Missing, need, set_

RANK, ALPHA = 3, 10.5  # alpha / rank = 3.5


# Models, built on the stage and here alike


def net():
    """Linears at every depth: plain modules, ModuleList, Sequential, ModuleDict."""

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj = nn.Linear(6, 9)
            self.fc = nn.Linear(9, 6, bias=False)

        def forward(self, x):
            return self.fc(torch.tanh(self.q_proj(x)))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(6)
            self.attn = Attention()
            self.mlp = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 6))

        def forward(self, x):
            x = x + self.attn(self.norm(x))
            return x + self.mlp(x)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(5, 6)
            self.blocks = nn.ModuleList([Block(), Block()])
            self.heads = nn.ModuleDict({"out": nn.Linear(6, 4), "aux": nn.Sequential(Attention())})
            self.gain = nn.Parameter(torch.ones(4))

        def forward(self, x):
            x = self.fc(x)
            for block in self.blocks:
                x = block(x)
            return self.gain * self.heads["out"](x + self.heads["aux"](x))

    return Net()


def linears(model):
    return [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]


def tied():
    """One layer under two names, in two containers; another one beside it."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.ModuleDict({"proj": nn.Linear(6, 6)})
            self.second = nn.ModuleList([self.first["proj"], nn.Linear(6, 6)])

        def forward(self, x):
            return self.second[1](torch.tanh(self.second[0](torch.tanh(self.first["proj"](x)))))

    return Tied()


def sharing():
    """Two layers that share a weight and nothing else."""

    class Sharing(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.two(torch.tanh(self.one(x)))

    return Sharing()


def states(draw, model, dtype=torch.float32):
    """Values for every tensor of a model; tied ones get the same."""
    drawn, state = {}, {}
    for name, value in model.state_dict().items():
        key = value.data_ptr()
        if key not in drawn:
            drawn[key] = draw(*value.shape, std=0.4, dtype=dtype)
        state[name] = drawn[key]
    return state


def updates(draw, model, names, dtype=torch.float32):
    """Factors for the named layers: updates as large as the weights."""
    pairs = {}
    for name in names:
        out, wide = model.get_submodule(name).weight.shape
        pairs[name] = (
            draw(RANK, wide, std=0.3, dtype=dtype),
            draw(out, RANK, std=0.3, dtype=dtype),
        )
    return pairs


def oracle(model, state, pairs, x, scale=ALPHA / RANK):
    """float64: the output, and by name the gradients of its squared sum (`x` is the input)."""
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
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        kind = type(result).__name__
        raise Missing(f"inject_lora_recursive should return (model, lora_params), not {kind}")
    return result


def adapt(kata, model, state, pairs, **options):
    """The filled model with its layers adapted and the factors in place."""
    model.to(next(iter(state.values())).dtype).load_state_dict(state)
    inject(kata, model, **{"rank": 3, "alpha": 10.5, **options})
    for name, (A, B) in pairs.items():
        set_(model.get_submodule(name), lora_A=A, lora_B=B)
    return model


def kind_of(new, old):
    """What stands where `old` stood."""
    if new is old:
        return "left"
    base = getattr(new, "base", None)
    if base is old:
        return "wrapped"
    if isinstance(getattr(base, "base", None), nn.Linear):
        return "wrapped twice"
    return "copied" if isinstance(base, nn.Linear) else type(new).__name__


def around(kata, which, options):
    """What has become of every module, and of the list."""
    model = {"net": net, "tied": tied, "sharing": sharing}[which]()
    old = dict(model.named_modules(remove_duplicate=False))
    given, params = inject(kata, model, **options)
    factors = {}
    for name in old:
        layer = model.get_submodule(name)
        if getattr(layer, "lora_A", None) is not None:
            factors.setdefault(id(layer.lora_A), f"{name}.lora_A")
            factors.setdefault(id(layer.lora_B), f"{name}.lora_B")
    return {
        "same": given is model,
        "is_list": isinstance(params, list),
        "kinds": {name: kind_of(model.get_submodule(name), m) for name, m in old.items() if name},
        "list": [factors.get(id(p), "a stranger") for p in params],
        "trains": [factors.get(id(p), n) for n, p in model.named_parameters() if p.requires_grad],
        "modes": sorted({m.training for m in model.modules()}),
    }


def _wrapped(got, want, bug=None, strays=None):
    """All of `want` are wrapped, nothing else is touched."""
    kinds = got["kinds"]
    twice = [name for name, kind in kinds.items() if kind == "wrapped twice"]
    require(not twice, f"{', '.join(twice[:3])} is wrapped twice over", "own-base-wrapped")
    left = [name for name in want if kinds[name] == "left"]
    require(not left, f"{', '.join(left[:3])} should be wrapped and is left plain", bug)
    odd = [f"{name} ({kinds[name]})" for name in want if kinds[name] != "wrapped"]
    require(not odd, f"no LoRALinear stands around the layer that was at {', '.join(odd[:3])}")
    touched = [n for n, kind in kinds.items() if n not in want and kind != "left"]
    require(not touched, f"{', '.join(touched[:3])} should be left as it is", strays)


def _listed(got, names):
    """The list holds the factors of `names`, each once."""
    want = {f"{name}.{factor}" for name in names for factor in ("lora_A", "lora_B")}
    require(got["is_list"], "lora_params should be a list", "params-no-list")
    strangers = got["list"].count("a stranger")
    require(not strangers, f"{strangers} entries of lora_params are no factors", "base-listed")
    missing = sorted(want - set(got["list"]))
    plain = any(got["kinds"][name] != "wrapped" for name in names)  # and has no factors then
    text = f"{', '.join(missing[:3])} is missing in lora_params"
    require(not missing, text, None if plain else "factors-not-listed")
    extra = sorted(set(got["list"]) - want)
    require(not extra, f"{', '.join(extra[:3])} should not be in lora_params")
    require(len(got["list"]) == len(want), "lora_params holds a parameter twice", "listed-twice")


# shape


def factor_shapes(kata, names):
    model = net()
    inject(kata, model, rank=3, alpha=10.5)
    layers = [model.get_submodule(name) for name in names]
    return [(tuple(need(v, "lora_A").shape), tuple(need(v, "lora_B").shape)) for v in layers]


@part("shape")
def test_factor_shapes(stage):
    """Every wrapped layer has lora_A (rank, in_features) and lora_B (out_features, rank)."""
    sizes = {"fc": (6, 5), "heads.out": (4, 6)}
    for (name, (out, wide)), (a, b) in zip(sizes.items(), stage(factor_shapes, list(sizes))):
        bug = "rank-ignored" if tuple(a) == (8, wide) else None
        require(tuple(a) == (3, wide), f"{name}.lora_A has shape {tuple(a)} at rank 3", bug)
        require(tuple(b) == (out, 3), f"{name}.lora_B has shape {tuple(b)} at rank 3", bug)


# init


@part("init")
def test_returns_the_same_model(stage):
    """The model returned is the very one passed in."""
    got = stage(around, "net", {})
    require(got["same"], "the model returned is not the one passed in", "model-copied")


@part("init")
def test_wraps_every_linear(stage):
    """Every nn.Linear below the root is wrapped, at any depth and in any container."""
    got = stage(around, "net", {})
    deep = [name for name in linears(net()) if "." in name]
    shallow = all(got["kinds"][name] == "left" for name in deep)
    _wrapped(got, linears(net()), "only-at-the-top" if shallow else None)


@part("init")
def test_lists_the_new_factors(stage):
    """lora_params is a list of the new lora_A and lora_B, each once."""
    _listed(stage(around, "net", {}), linears(net()))


@part("init")
def test_skip(stage):
    """Layers whose dotted name is in skip are left plain, in any collection of names."""
    names = linears(net())
    skip = ["fc", "blocks.1.attn.q_proj", "heads.aux.0.fc"]
    whole = stage(around, "net", {})["kinds"]
    for kind in ("list", "tuple", "set", "frozenset"):
        got = stage(skipping, kind, skip)
        touched = [name for name in skip if got["kinds"][name] != "left"]
        require(not touched, f"{', '.join(touched)} is in skip and was wrapped", "skip-ignored")
        want = [name for name in names if name not in skip]
        left = {name for name in names if got["kinds"][name] == "left"}
        ends = {name for name in names if name.rpartition(".")[2] in ("fc", "q_proj")}
        known = "skip-by-last-name" if left == ends else None
        every = all(whole[name] == "wrapped" for name in names)
        if every and left == {name for name in names if any(part in name for part in skip)}:
            known = "skip-by-part-of-name"
        _wrapped(got, want, known)
        _listed(got, want)


def skipping(kata, kind, skip):
    collect = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind]
    return around(kata, "net", {"skip": collect(skip)})


@part("init")
def test_skip_of_other_names(stage):
    """Unknown names in skip, names of containers and parts of names have no effect."""
    skip = ["blocks", "blocks.0", "heads.aux", "attn", "q_proj", "nothing.there", "blocks.0.mlp.1"]
    whole = stage(around, "net", {})["kinds"]
    every = all(whole[name] == "wrapped" for name in linears(net()))
    known = "skip-by-part-of-name" if every else None
    _wrapped(stage(around, "net", {"skip": skip}), linears(net()), known)


def root_alone(kata, lora):
    root = nn.Linear(5, 4)
    root = kata.LoRALinear(root, 2, 6.0) if lora else root
    x = torch.ones(2, 5)
    before, inside = root(x).detach().clone(), getattr(root, "base", None)
    model, params = inject(kata, root, rank=3)
    return {
        "same": model is root and getattr(root, "base", None) is inside,
        "number": len(list(params)),
        "before": before,
        "after": model(x).detach().clone(),
    }


@part("init")
def test_root_is_left_alone(stage):
    """A root that is itself an nn.Linear or a LoRALinear is left alone, with []."""
    for lora in (False, True):
        got = stage(root_alone, lora)
        what = "LoRALinear" if lora else "nn.Linear"
        bug = "own-base-wrapped" if lora else "root-wrapped"
        require(got["same"], f"a root that is an {what} should be left alone", bug)
        text = f"a root that is an {what} gives {got['number']} parameters, not []"
        require(got["number"] == 0, text, "old-factors-listed" if lora else bug)
        near(got["after"], got["before"].double(), what=f"the output of such an {what}")


def twice(kata, state, x):
    model = net()
    model.load_state_dict(state)
    inject(kata, model, rank=3, alpha=10.5)
    for p in model.parameters():
        p.data.add_(0.1)
    before = model(x).detach().clone()
    modules = [id(m) for m in model.modules()]
    again, params = inject(kata, model, rank=2, alpha=1.0)
    return {
        "same": again is model,
        "number": len(list(params)),
        "modules": modules == [id(m) for m in model.modules()],
        "before": before,
        "after": model(x).detach().clone(),
    }


@part("init")
def test_second_call(stage, draw):
    """A second call returns [], wraps nothing and changes no output."""
    got = stage(twice, states(draw, net()), draw(4, 5))
    require(got["same"], "a second call returns another model")
    require(got["modules"], "a second call replaces modules", "own-base-wrapped")
    text = f"a second call returns {got['number']} parameters, not []"
    require(got["number"] == 0, text, "old-factors-listed")
    near(got["after"], got["before"].double(), what="the output after a second call")


def beside_others(kata):
    model = net()
    model.blocks[0].attn.q_proj = kata.LoRALinear(model.blocks[0].attn.q_proj, 2, 6.0)
    there = model.blocks[0].attn.q_proj
    inside = there.base
    _, params = inject(kata, model, rank=3)
    own = {id(there.lora_A), id(there.lora_B)}
    return {
        "same": model.blocks[0].attn.q_proj is there and there.base is inside,
        "listed": any(id(p) in own for p in params),
        "number": len(list(params)),
    }


@part("init")
def test_adapted_layers_are_left_alone(stage):
    """A LoRALinear already there stays, its base unwrapped and its factors not listed."""
    got = stage(beside_others)
    require(got["same"], "a LoRALinear already there is wrapped again", "own-base-wrapped")
    require(not got["listed"], "lora_params holds factors that were there", "old-factors-listed")
    want = 2 * (len(linears(net())) - 1)
    require(got["number"] == want, f"lora_params has {got['number']} entries, expected {want}")


def tie(kata, which, state, pairs, x):
    model = {"tied": tied, "sharing": sharing}[which]()
    adapt(kata, model, state, pairs)
    names = {"tied": ("first.proj", "second.0"), "sharing": ("one", "two")}[which]
    first, second = (model.get_submodule(name) for name in names)
    return first is second, model(x)


@part("init")
def test_tied_layer_stays_tied(stage, draw):
    """A layer registered under two names is wrapped once, and both names lead to it."""
    state, pairs = states(draw, tied()), updates(draw, tied(), ["first.proj", "second.1"])
    got = stage(around, "tied", {})
    kinds = got["kinds"]
    ends = kinds["first.proj"], kinds["second.0"]
    known = "tied-on-one-side" if sorted(ends) == ["left", "wrapped"] else None
    require(
        ends == ("wrapped", "wrapped"), f"a layer under two names is {' and '.join(ends)}", known
    )
    x = draw(4, 6)
    one, y = stage(tie, "tied", state, pairs, x)
    require(one, "a layer under two names has become two", "tied-wrapped-twice")
    require(len(got["list"]) == 4, f"lora_params has {len(got['list'])} entries, expected 4")
    near(y, oracle(tied(), state, pairs, x)[0], what="the output of a model with a tied layer")


@part("init")
def test_layers_that_share_a_weight(stage, draw):
    """Two layers that share only a weight are two, each wrapped by itself."""
    state, pairs = states(draw, sharing()), updates(draw, sharing(), ["one", "two"])
    x = draw(4, 6)
    got = stage(around, "sharing", {})
    known = "shared-weight-one-layer"
    text = "two layers that share a weight have become one"
    require(got["kinds"]["two"] != "copied", text, known)
    _wrapped(got, ["one", "two"], known)
    one, y = stage(tie, "sharing", state, pairs, x)
    require(not one, text, known)
    near(y, oracle(sharing(), state, pairs, x)[0], what="the output of layers that share a weight")


def start(kata, state, x):
    model = net()
    model.load_state_dict(state)
    inject(kata, model)
    return model(x), tuple(model.fc.lora_A.shape), model.fc.lora_A.std() > 0


@part("init")
def test_starts_as_it_was(stage, draw):
    """At the start the output is that of the model before; rank defaults to 8."""
    state, x = states(draw, net()), draw(4, 5)
    y, shape, random = stage(start, state, x)
    near(y, oracle(net(), state, {}, x)[0], what="the output at the start")
    require(tuple(shape) == (8, 5), f"lora_A has shape {tuple(shape)} at the default rank 8")
    require(bool(random), "lora_A starts at zero")


def by_place(kata, state, pairs, x):
    model = net()
    model.load_state_dict(state)
    kata.inject_lora_recursive(model, 3, 10.5, ("fc",))
    for name, (A, B) in pairs.items():
        set_(model.get_submodule(name), lora_A=A, lora_B=B)
    return model(x)


@part("init")
def test_arguments_by_place(stage, draw):
    """model, rank, alpha, skip: also by place."""
    names = [name for name in linears(net()) if name != "fc"]
    state, pairs, x = states(draw, net()), updates(draw, net(), names), draw(4, 5)
    y = stage(by_place, state, pairs, x)
    near(y, oracle(net(), state, pairs, x)[0], what="the output with arguments given by place")


# freeze


def after_backward(kata, skip, x):
    model = net()
    _, params = inject(kata, model, skip=skip)
    for mode in (False, True):
        model.train(mode)
    own = {id(p) for p in params}
    y = model(x)
    if y.requires_grad:
        y.square().sum().backward()
    named = list(model.named_parameters())
    return {
        "thawed": [n for n, p in named if p.requires_grad and "lora_" not in n],
        "frozen": [n for n, p in named if not p.requires_grad and "lora_" in n],
        "grads": [n for n, p in named if p.grad is not None and "lora_" not in n],
        "listed": sum(id(p) in own for _, p in named),
    }


@part("freeze")
def test_all_else_is_frozen(stage, draw):
    """The new factors train; every other parameter, skipped layers included, is frozen."""
    for skip in ([], ["fc", "heads.out"]):
        got = stage(after_backward, skip, draw(4, 5))
        frozen = ", ".join(got["frozen"][:3])
        require(not frozen, f"{frozen} should train and is frozen", "factors-frozen")
        thawed = got["thawed"]
        skipped = [n for n in thawed if n.startswith(("fc", "heads.out"))]
        known = "skipped-not-frozen" if thawed and thawed == skipped and skip else "rest-not-frozen"
        require(not thawed, f"{', '.join(thawed[:3])} should be frozen", known)
        require(not got["grads"], f"{', '.join(got['grads'][:3])} gets a gradient", known)


# forward


def run(kata, state, pairs, x):
    model = adapt(kata, net(), state, pairs)
    return model(x), model.eval()(x)


@part("forward")
def test_output_with_updates(stage, draw):
    """With the factors set, the model computes with every weight plus alpha / rank * B A."""
    state, pairs = states(draw, net()), updates(draw, net(), linears(net()))
    for lead in [(4,), (2, 3), ()]:
        x = draw(*lead, 5)
        y, z = stage(run, state, pairs, x)
        want, _ = oracle(net(), state, pairs, x)
        known = {
            "alpha-ignored": lambda x=x: oracle(net(), state, pairs, x, 16.0 / RANK)[0],
            "scale-missing": lambda x=x: oracle(net(), state, pairs, x, 1.0)[0],
        }
        near(y, want, what=f"the output for x {tuple(x.shape)}", unless=known)
        near(z, want, what=f"the output in eval mode for x {tuple(x.shape)}")


# gradient


def gradients(kata, state, pairs, x):
    model = adapt(kata, net(), state, pairs)
    x = x.clone().requires_grad_()
    model(x).square().sum().backward()
    grads = {"x": x.grad}
    for name in pairs:
        layer = model.get_submodule(name)
        grads[f"{name}.lora_A"], grads[f"{name}.lora_B"] = layer.lora_A.grad, layer.lora_B.grad
    return grads


@part("gradient")
def test_gradients(stage, draw):
    """Every factor and the input get the exact gradients."""
    state, pairs = states(draw, net()), updates(draw, net(), linears(net()))
    x = draw(4, 5)
    got = stage(gradients, state, pairs, x)
    _, want = oracle(net(), state, pairs, x)
    for name, exact in want.items():
        require(got[name] is not None, f"{name} gets no gradient", "factors-frozen")
        near(got[name], exact, what=f"the gradient of {name}")


# state


def round_trip(kata, state, pairs, other, x):
    first = adapt(kata, net(), state, pairs)
    second = net()
    second.load_state_dict(other)
    inject(kata, second, rank=3, alpha=10.5)
    second(x)
    second.load_state_dict(first.state_dict())
    return second(x), list(first.state_dict())


@part("state")
def test_state_round_trip(stage, draw):
    """Factors are in the state dict under their layer's name; loading reproduces the outputs."""
    state, pairs = states(draw, net()), updates(draw, net(), linears(net()))
    x = draw(4, 5)
    y, names = stage(round_trip, state, pairs, states(draw, net()), x)
    for name in ("fc.lora_A", "blocks.1.mlp.2.lora_B", "heads.aux.0.fc.base.weight"):
        require(name in names, f"`{name}` is not in the state dict")
    near(y, oracle(net(), state, pairs, x)[0], what="the output after load_state_dict")


# dtype and device


def kinds(kata, dtype):
    model = net().to({"float64": torch.float64, "bfloat16": torch.bfloat16}[dtype])
    _, params = inject(kata, model)
    return sorted({str(p.dtype) for p in params})


@part("dtype")
def test_dtypes(stage, draw):
    """Factors have their layer's dtype: float64 exact to 1e-9, bfloat16."""
    for name in ("float64", "bfloat16"):
        got = list(stage(kinds, name))
        text = f"the factors of a {name} model are {', '.join(got)}"
        require(got == [f"torch.{name}"], text, "float32-factors")
    state = states(draw, net(), torch.float64)
    pairs = updates(draw, net(), linears(net()), torch.float64)
    x = draw(4, 5, dtype=torch.float64)
    y, *_ = stage(run, state, pairs, x)
    near(y, oracle(net(), state, pairs, x)[0], dtype=torch.float64)


def on_meta(kata):
    model = nn.Sequential(nn.Linear(5, 6), nn.Sequential(nn.Linear(6, 4))).to("meta")
    _, params = inject(kata, model, rank=2)
    places = sorted({p.device.type for p in params})
    if places != ["meta"]:
        return places, None
    with CheapMeta():
        return places, tuple(model(torch.empty(3, 5, device="meta")).shape)


@part("device")
def test_meta_device(stage):
    """A model on the meta device gets its factors there."""
    places, shape = stage(on_meta)
    require(places, "no layer of a model on meta is wrapped")
    text = f"factors are on {', '.join(places)}; the model is on meta"
    require(list(places) == ["meta"], text, "cpu-factors")
    require(tuple(shape) == (3, 4), f"the output has shape {tuple(shape)}")


# gpu


def on_device(kata, state, pairs, x, device):
    model = net()
    model.load_state_dict(state)
    model.to(device)
    _, params = inject(kata, model, rank=3, alpha=10.5)
    for name, (A, B) in pairs.items():
        set_(model.get_submodule(name), lora_A=A, lora_B=B)
    return sorted({p.device.type for p in params}), model(x.to(device))


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs on the accelerator are those of the CPU, and no factor stays behind."""
    state, pairs = states(draw, net()), updates(draw, net(), linears(net()))
    x = draw(4, 5)
    places, y = stage(on_device, state, pairs, x, stage.device)
    require(list(places) == [stage.device], f"factors are on {', '.join(places)}", "cpu-factors")
    near(y, oracle(net(), state, pairs, x)[0], rtol=1e-3, atol=1e-3)
