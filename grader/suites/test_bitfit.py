"""What is checked of `bitfit`. Contract: BitFit (Ben Zaken et al. 2022), section 3."""

import itertools
from types import SimpleNamespace

import torch

from grader.exam.checks import blame, fail, near, part, require, same
from grader.exam.kit import Missing, nn
from grader.suites.shared.injection import EARLIER, STRANGE, equal, labels, specimen, states, words

# Models


def varied(model):
    """The model with other values in each parameter."""
    for p in model.parameters():
        nn.init.uniform_(p)
    return model


def net():
    """Norms, a layer without a bias, and biases that modules with layers inside have themselves."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6, bias=False)
            self.norm, self.gate = nn.LayerNorm(6), nn.PReLU()
            self.bias, self.gain = (nn.Parameter(torch.ones(6)) for _ in range(2))

        def forward(self, x):
            hidden = self.gate(self.up(self.norm(x)))
            return x + self.gain * torch.tanh(self.down(hidden)) + self.bias

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Linear(5, 6)
            self.blocks = nn.ModuleList([Block(), Block()])
            self.mid, self.classifier = nn.Linear(6, 6), nn.Linear(6, 4)
            self.bias, self.rel_bias = (nn.Parameter(torch.ones(4)) for _ in range(2))

        def forward(self, x):
            x = self.stem(x)
            for block in self.blocks:
                x = block(x)
            return self.classifier(torch.tanh(self.mid(x))) * self.rel_bias + self.bias

    return varied(Net())


def zoo():
    """Every kind of module, and parameters that are called almost like a bias."""

    class Heir(nn.Linear):
        pass

    model = nn.Module()
    kinds = {"z_embed": nn.Embedding(5, 4), "fc": nn.Linear(4, 4), "norm": nn.LayerNorm(4)}
    kinds |= {"conv": nn.Conv1d(4, 4, 1), "group": nn.GroupNorm(2, 4), "up": nn.Linear(4, 6)}
    kinds |= {"attn": nn.MultiheadAttention(4, 2, add_bias_kv=True), "batch": nn.BatchNorm1d(4)}
    kinds |= {"act": nn.PReLU(4), "heir": Heir(4, 4), "pair": nn.Bilinear(4, 4, 4)}
    kinds |= {"plain": nn.Linear(4, 4, bias=False), "classifier": nn.Linear(4, 2)}
    kinds |= {"stack": nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))}
    for name, module in kinds.items():
        model.add_module(name, module)
    for name, shape in {"grid": (3, 2), "level": (), "row": (1, 4)}.items():
        holder = nn.Module()
        holder.bias = nn.Parameter(torch.ones(shape))
        model.add_module(name, holder)
    model.tones = nn.ParameterDict({n: nn.Parameter(torch.ones(4)) for n in ("gain", "bias")})
    for name in ("gain", "rel_bias", "bias", "Bias", "bias2", "unbias", "biases"):
        model.register_parameter(name, nn.Parameter(torch.ones(4)))
    model.stack.register_parameter("bias", nn.Parameter(torch.ones(4)))
    model.table, model.bias_gate = nn.ModuleDict({"bias": nn.Linear(4, 4)}), nn.Linear(4, 4)
    model.relative_attention_bias = nn.Embedding(5, 4)
    return varied(model)


def called_bias():
    """Modules and lists of parameters that are called `bias` or nearly so."""
    model = nn.Module()
    model.fc, model.bias, model.bias_net = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
    model.biases = nn.ModuleList([nn.Linear(4, 4)])
    model.inner, model.list = nn.Sequential(nn.Linear(4, 4)), nn.Module()
    model.inner.bias = nn.Embedding(4, 4)
    model.list.bias = nn.ParameterList([nn.Parameter(torch.ones(4))])
    return model


def recurrent():
    """Modules of which the attribute `bias` says only whether there are any."""
    kinds = {"rnn": nn.LSTM(3, 3), "cell": nn.GRUCell(3, 3), "fc": nn.Linear(3, 3)}
    return nn.ModuleDict(kinds)


def buffers():
    """Buffers called `bias`, in the state and not, and a plain tensor."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, bias=False), nn.Module(), nn.Module())
    model.register_buffer("bias", torch.ones(4))
    del model[1].bias
    model[1].register_buffer("bias", torch.ones(4), persistent=False)
    model[2].register_buffer("bias", torch.ones(4))
    model[3].bias = torch.ones(4)
    return model


def parametrised():
    """Parametrised biases, one computed and one given as it is; a weight with a bias of its own."""

    class Double(nn.Module):
        def forward(self, value):
            return 2 * value

    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.ones(4))

        def forward(self, value):
            return value + self.bias

    register = nn.utils.parametrize.register_parametrization
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))
    register(model[0], "bias", Double())
    register(model[1], "bias", nn.Identity())
    register(model[2], "weight", Shifted())
    return model


def root_linear():
    return nn.Linear(3, 2)


def only_own():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh())
    model.bias = nn.Parameter(torch.ones(3))
    return model


def deep():
    """A layer at each depth, containers of every kind around it."""
    model = nn.Linear(2, 2)
    for _ in range(3):
        outer = nn.Module()
        outer.inner, outer.fc = nn.ModuleList([nn.ModuleDict({"0": model})]), nn.Linear(2, 2)
        model = nn.Sequential(nn.Tanh(), outer)
    return varied(model)


def tied():
    """`enc` is `dec` too, `side.1` is `out`, and `proj` is `last.bias`; `left` and `right` are two
    with one bias, `embed` and `logits` two with one weight."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc = nn.Linear(3, 3)
            self.dec = self.enc
            self.side = nn.Sequential(nn.Tanh(), nn.Linear(3, 3))
            self.out = self.side[1]
            self.left, self.right, self.proj = (nn.Linear(3, 3) for _ in range(3))
            self.right.bias = self.left.bias
            self.last = nn.ModuleDict({"bias": self.proj, "norm": nn.LayerNorm(3)})
            self.embed, self.logits = nn.Embedding(3, 3), nn.Linear(3, 3)
            self.logits.weight = self.embed.weight

    return varied(Tied())


def tied_the_other_way():
    """`tied` with its modules in the opposite order."""
    model = tied()
    for name, module in reversed(list(model._modules.items())):
        del model._modules[name]
        model._modules[name] = module
    return model


def unlike():
    """Biases of different values, some of one shape."""
    layers = *(nn.Linear(2, 1) for _ in range(3)), nn.LayerNorm(3), nn.LayerNorm(3)
    return varied(nn.Sequential(*layers))


def alike():
    """Those of `unlike` with the same values."""
    model = unlike()
    for layer in model:
        nn.init.zeros_(layer.bias)
    return model


def one_memory():
    """Two biases in one memory."""
    model = unlike()
    model[2].bias = nn.Parameter(model[1].bias.detach())
    return model


def odd():
    """Biases of every dtype, on meta, of a subclass, with three dimensions or gaps in memory; a
    name with a hyphen; buffers of two dtypes; modules with a hook or a setting; a slot for none."""

    class Heir(nn.Parameter):
        pass

    wide = torch.ones(4, 4)
    values = {f"{t}".replace("torch.", "in_"): torch.ones(2, dtype=t) for t in DTYPES}
    values |= {"thick": wide.view(2, 2, 4), "column": wide[:, 1], "turned": wide[:2].T}
    values |= {f"meta{n}": torch.empty(3, device="meta") for n in "01"}
    model = nn.Module()
    for name, value in values.items():
        holder = nn.Module()
        holder.bias, holder.gain = nn.Parameter(value), nn.Parameter(value[:1])
        model.add_module(name, holder)
    model.bias, model.table = Heir(torch.ones(2)), nn.Embedding(3, 2)
    model.register_parameter("rel-bias", nn.Parameter(torch.ones(2)))
    model.register_module("gap", None)
    pairs = (nn.Dropout(0.5), nn.Dropout(0.5), nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    model.norms = nn.Sequential(*pairs, nn.BatchNorm1d(2).double())
    model.norms[2].register_forward_hook(lambda *_: None)
    model.norms[3].register_forward_pre_hook(lambda *_: None)
    model.register_buffer("brain", torch.ones(2, dtype=torch.bfloat16))
    return model


DTYPES = torch.float64, torch.bfloat16, torch.float16, torch.complex64


def unbiased():
    layers = nn.Linear(4, 4, bias=False), nn.Tanh(), nn.LayerNorm(4, bias=False)
    return nn.Sequential(*layers, nn.Embedding(4, 4))


def bare():
    return nn.Sequential(nn.Tanh())


# What is right, and what known mistakes take for a bias


def last(name):
    return name.rpartition(".")[2]


def chosen(make, rule=lambda name, p, owner: last(name) == "bias"):
    """Names of the parameters that a rule of name, parameter and module picks."""
    model = specimen(make)
    named = model.named_parameters()
    return [n for n, p in named if rule(n, p, model.get_submodule(n.rpartition(".")[0]))]


NORMS = nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d
RULES = {
    "name-contains-bias": lambda n, p, m: "bias" in n,
    "name-ends-with-bias": lambda n, p, m: n.endswith("bias"),
    "name-begins-with-bias": lambda n, p, m: last(n).startswith("bias"),
    "any-component-counts": lambda n, p, m: "bias" in n.split("."),
    "dot-required": lambda n, p, m: n.endswith(".bias"),
    "linears-only": lambda n, p, m: isinstance(m, nn.Linear) and last(n) == "bias",
    "norms-left-out": lambda n, p, m: not isinstance(m, NORMS) and last(n) == "bias",
    "vectors-are-biases": lambda n, p, m: p.ndim == 1,
    "vectors-only": lambda n, p, m: p.ndim == 1 and last(n) == "bias",
    "leaf-modules-only": lambda n, p, m: not list(m.children()) and last(n) == "bias",
    "children-only": lambda n, p, m: n.count(".") == 1 and last(n) == "bias",
    "only-weights-frozen": lambda n, p, m: not n.endswith("weight"),
    "head-trains-too": lambda n, p, m: last(n) == "bias" or n.startswith("classifier."),
    "others-not-frozen": lambda n, p, m: True,
    "biases-frozen": lambda n, p, m: False,
}


def rule_of(names, make, listed=False):
    """The one mistake that picks just these of `zoo`, which tells all of them apart, or None."""
    if make is not zoo:
        return None
    others = {bug: chosen(make, rule) for bug, rule in RULES.items()}
    if listed:
        others["all-listed"] = others.pop("others-not-frozen")
        del others["biases-frozen"]
    found = [bug for bug, picked in others.items() if set(picked) == set(names)]
    return found[0] if len(found) == 1 and set(names) != set(chosen(make)) else None


# On the stage


ARRIVALS = {"trainable": (1, 1), "frozen": (0, 1), "mixed": (2, 3)}  # every how many trains


def arrived(make, trains):
    model = make()
    below, of = trains
    for number, p in enumerate(model.parameters()):
        p.requires_grad_(number % of < below)
    return model


def bitfit(kata, model):
    params = kata.apply_bitfit(model)
    if isinstance(params, nn.Module) or not hasattr(params, "__iter__"):
        raise Missing(f"apply_bitfit returns {type(params).__name__}, not the list of biases")
    return params


def settings(module):
    """What a module holds beside its parameters, buffers, modules and mode: numbers and hooks."""
    held = {k: v for k, v in vars(module).items() if k not in OTHERS}
    held = {k: list(v.items()) if isinstance(v, dict) else v for k, v in held.items()}
    return {k: v for k, v in held.items() if isinstance(v, (list, float, int, str))}


OTHERS = "_parameters", "_buffers", "_modules", "training"


def after_call(kata, make, trains, grad, calls):
    """What is so after the last of some calls; another model is treated before it. Between two
    calls all flags are turned over, and the model gets a new classifier."""
    first = bitfit(kata, nn.Linear(2, 3))
    elsewhere = {id(p): p for p in first if isinstance(p, torch.Tensor)}
    were = list(map(id, first)) if isinstance(first, list) else None
    model, heads = arrived(make, trains), []
    for _ in range(calls - 1):
        bitfit(kata, model)
        for p in model.parameters():
            p.requires_grad_(not p.requires_grad)
        heads.append(model.classifier)  # kept, so that its ids are not used again
        model.classifier = nn.Linear(6, 4)
    model.eval()
    for module in list(model.modules())[::2]:
        module.training = True
    for p in model.parameters():
        p.grad = None if p.is_meta else torch.ones_like(p)
    modules = dict(model.named_modules(remove_duplicate=False))
    modes = [m.training for m in modules.values()]
    before = {name: settings(m) for name, m in modules.items()}
    held = {
        f"{name}.{key}".lstrip("."): (value, value if value.is_meta else value.detach().clone())
        for name, m in modules.items()
        for key, value in (*m._parameters.items(), *m._buffers.items())
        if value is not None
    }
    known = {id(p): name for name, p in reversed(list(model.named_parameters()))}
    with torch.set_grad_enabled(grad):
        params = bitfit(kata, model)
        if torch.is_grad_enabled() != grad:
            raise Missing("apply_bitfit leaves grad mode changed")
    now = {
        f"{name}.{key}".lstrip("."): value
        for name, m in model.named_modules(remove_duplicate=False)
        for key, value in (*m._parameters.items(), *m._buffers.items())
        if value is not None
    }
    known = {**{id(p): name for name, p in model.named_parameters()}, **known}
    buffers, listed = dict(model.named_buffers()), params if isinstance(params, list) else []
    found = labels(listed, known)
    after = {name: settings(m) for name, m in modules.items()}
    return {
        "type": "list" if isinstance(params, list) else type(params).__name__,
        "stays": were is None or list(map(id, first)) == were,
        "list": [EARLIER if id(p) in elsewhere else name for p, name in zip(listed, found)],
        "buffers": [n for n, b in buffers.items() if any(b is p for p in listed)],
        "trains": [known[id(p)] for p in model.parameters() if p.requires_grad and id(p) in known],
        "flagged": [n for n, b in buffers.items() if b.requires_grad],
        "moved": [n for n, value in held.items() if now.get(n) is not value[0]],
        "added": [n for n in now if n not in held],
        "zeroed": all(not value.any() for value, copy in held.values() if not equal(value, copy)),
        "altered": [n for n, (value, copy) in held.items() if not equal(value, copy)],
        "modules": list(model.named_modules(remove_duplicate=False)) == list(modules.items()),
        "set": [
            f"{name}.{key}".lstrip(".")
            for name, was in before.items()
            for key, value in was.items()
            if after[name].get(key) != value
        ],
        "dropped": [
            name
            for name, p in model.named_parameters()
            if last(name) == "bias" and not p.is_meta
            if p.grad is None or not equal(p.grad, torch.ones_like(p))
        ],
        "switched": [m.training for m in modules.values()] != modes,
    }


def treated(stage, make, arrival="trainable", grad=True, calls=1):
    came = stage(after_call, make=make, trains=ARRIVALS[arrival], grad=grad, calls=calls)
    return SimpleNamespace(**came)


# What came


def lists(came, make, **bugs):
    """The list holds the biases, each once, in order. bugs: those of lists that lack some, hold
    more, or hold one twice."""
    want, got = chosen(make), came.list
    text = f"the biases come as a {came.type}, expected a list"
    require(came.type == "list", text, "not-a-list")
    if got == want:
        return
    strange = [word for word in got if word not in specimen_names(make)]
    kinds = set(strange)
    bug = None
    if came.buffers or kinds & {"a bool", "a Linear", "a Embedding", "a ParameterList"}:
        bug = "attribute-taken"
    elif EARLIER in got:
        bug = "earlier-calls-listed"
    elif STRANGE in got and "strange" in bugs:
        bug = bugs["strange"]
    elif kinds == {"a str"} and len(strange) == len(got):
        bug = "names-returned"
    elif kinds == {STRANGE} and len(strange) == len(got) == len(want):
        bug = "copies-listed"
    elif not strange:
        extra, lost = set(got) - set(want), set(want) - set(got)
        twice = len(set(got)) < len(got)
        bug = rule_of(got, make, listed=True) or bugs.get("extra" if extra else "lost")
        if not extra and not lost:
            bug = bugs.get("twice") if twice else "order-not-kept"
    require(False, f"the list holds {words(got)}; expected {words(want)}", bug)


def specimen_names(make):
    return [name for name, _ in specimen(make).named_parameters()]


def trains(came, make, arrival="trainable", **bugs):
    """Exactly the biases train."""
    want, got = chosen(make), came.trains
    extra, lost = (sorted(set(a) - set(b)) for a, b in ((got, want), (want, got)))
    bug = rule_of(got, make) if arrival == "trainable" else None
    bug = bug or bugs.get("extra" if extra else "lost")
    told = f" of a model that arrives {arrival}" if arrival != "trainable" else ""
    require(not extra, f"not frozen{told}: {', '.join(extra)}", bug)
    require(not lost, f"biases that do not train{told}: {', '.join(lost)}", bug)


def right(stage, make, **bugs):
    """Both, of a model that arrives trainable."""
    came = treated(stage, make)
    lists(came, make, **bugs)
    trains(came, make, **bugs)
    text = f"buffers require a gradient: {', '.join(came.flagged)}"
    require(not came.flagged, text, "attribute-taken")


# init


@part("init")
def test_list_of_the_biases(stage):
    """The list holds exactly the biases, themselves and no copies."""
    treated(stage, root_linear)
    with blame("told-apart-by-value", "Boolean value", "must match the size"):
        for make in (zoo, net):
            lists(treated(stage, make), make)


@part("init")
def test_order_of_named_parameters(stage):
    """The list is in the order of named_parameters(), however deep the biases are."""
    for make in (root_linear, deep, tied_the_other_way):
        lists(treated(stage, make), make)


@part("init")
def test_each_once(stage):
    """A bias that the model has under several names (tied modules, tied biases) is listed once."""
    for make in (tied, tied_the_other_way):
        lists(treated(stage, make), make, twice="listed-twice")


@part("init")
def test_equal_biases_are_several(stage):
    """Biases are told apart by identity: equal ones, and two in one memory, are all listed."""
    lists(treated(stage, unlike), unlike)
    lists(treated(stage, alike), alike, lost="told-apart-by-value")
    lists(treated(stage, one_memory), one_memory)


@part("init")
def test_no_biases(stage):
    """A model without a bias gives [], and all of it is frozen."""
    came = treated(stage, net)
    lists(came, net), trains(came, net)
    for make in (unbiased, bare):
        with blame("no-biases-refused"):
            came = treated(stage, make)
        require(came.type == "list", f"without biases a {came.type} comes back, not []")
        require(not came.list, f"a model without a bias gives {words(came.list)}")
        everything = sorted(came.trains) == sorted(specimen_names(make))
        trains(came, make, extra="no-biases-unfrozen" if everything else None)


@part("init")
def test_every_call_has_its_own_list(stage):
    """A second call does all of it anew: it sees what was switched on or off since then, or put
    into the model, and lists nothing that only earlier calls have found."""
    lists(treated(stage, net), net)
    for calls in (2, 3):
        came = treated(stage, net, calls=calls)
        lists(came, net, twice="earlier-calls-listed")
        require(came.stays, "a later call changes the list that an earlier one has returned")
        trains(came, net)


@part("init")
def test_nothing_is_replaced(stage):
    """Modules, parameters and buffers are the same objects with the same values afterwards, also
    where they arrive frozen; modules keep mode, hooks and settings, biases their `.grad`."""
    makes = [*itertools.product((net, odd), ARRIVALS), (tied, "trainable"), (buffers, "trainable")]
    for make, arrival in makes:
        came = treated(stage, make, arrival)
        added = [name for name in came.added if last(name) == "bias"]
        bug = "biases-added" if added == came.added else None
        require(not came.added, f"new in the model: {', '.join(came.added)}", bug)
        moved, altered = ", ".join(came.moved), ", ".join(came.altered)
        bug = "parameters-replaced" if set(map(last, came.moved)) == {"bias"} else None
        require(not moved, f"not the same objects as before: {moved}", bug)
        alone = set(map(last, came.altered)) == {"bias"}
        bug = "biases-reset" if alone and came.zeroed else None
        require(not altered, f"the values of {altered} have changed", bug)
        require(came.modules, "modules of the model were replaced or renamed")
        text = "the call switches modules between train() and eval()"
        require(not came.switched, text, "mode-switched")
        require(not came.set, f"the call changes {', '.join(came.set)}")
        require(not came.dropped, f"the gradients of {', '.join(came.dropped)} are changed")


# freeze


@part("freeze")
def test_only_biases_train(stage):
    """Exactly the parameters whose last name component is `bias` train, of whatever module and
    shape; weights, embeddings, heads and all else are frozen."""
    for make in (zoo, net, deep):
        trains(treated(stage, make), make)


@part("freeze")
def test_biases_of_the_root(stage):
    """The root's own bias trains, also where the root is a single layer."""
    right(stage, root_linear, lost="dot-required")
    right(stage, only_own)


@part("freeze")
def test_biases_that_arrive_frozen(stage):
    """Biases train also when they arrive frozen; what arrives frozen else stays so."""
    trains(treated(stage, net), net)
    for make in (net, tied):
        for arrival in ("frozen", "mixed"):
            came = treated(stage, make, arrival)
            trains(came, make, arrival, lost="frozen-biases-stay")
            lists(came, make, lost="frozen-biases-stay")


@part("freeze")
def test_tied_parameters(stage):
    """Of tied modules and layers that share a bias or a weight the biases train, nothing else."""
    for make in (tied, tied_the_other_way, alike, one_memory):
        trains(treated(stage, make), make)


@part("freeze")
def test_modules_called_bias(stage):
    """The parameters of a module or ParameterList that is called `bias...` are no biases for it."""
    right(stage, called_bias)


@part("freeze")
def test_recurrent_modules(stage):
    """`bias_ih_l0` and its like are frozen; `bias` of these modules is but True or False."""
    right(stage, net)
    with blame("attribute-taken", "'bool' object"):
        right(stage, recurrent)


@part("freeze")
def test_buffers_called_bias(stage):
    """A buffer called `bias` is no bias: it is not listed and goes on without a gradient."""
    right(stage, buffers)


@part("freeze")
def test_parametrised_biases(stage):
    """A parametrised bias, `parametrizations.bias.original`, is frozen; a parametrisation's own
    `bias` trains."""
    right(stage, net)
    with blame("attribute-taken", "leaf", "can't be", "cannot"):
        came = treated(stage, parametrised)
    found = [f"{n}.parametrizations.bias.original" in {*came.list, *came.trains} for n in (0, 1)]
    computed = STRANGE in came.list or found == [False, True]
    bug = "attribute-taken" if computed else "parametrised-bias-taken" if all(found) else None
    lists(came, parametrised, extra=bug, strange=bug)
    trains(came, parametrised, extra=bug)


@part("freeze")
def test_called_under_no_grad(stage):
    """Under torch.no_grad() the call does the same, and leaves grad mode as it was."""
    for arrival in ("trainable", "frozen"):
        came = treated(stage, net, arrival, grad=False)
        trains(came, net, arrival)
        lists(came, net)


@part("dtype")
def test_biases_of_every_kind(stage):
    """Biases train whatever their dtype, device, dimensions, memory and subclass."""
    right(stage, net)
    right(stage, odd)


# forward, gradient, state


def run(kata, make, state, x):
    """Output and gradients of its squared sum after a step on the list."""
    model = make()
    model.load_state_dict(state)
    biases = list(bitfit(kata, model))
    y = model(x)
    y.square().sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    with torch.no_grad():
        for p in biases:
            p.sub_(0.1 * p.grad)
    return y, grads, model(x), list(model.state_dict())


def expected(make, state, x):
    model = make().double()
    model.load_state_dict({name: value.double() for name, value in state.items()})
    y = model(x.double())
    y.square().sum().backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        for name, p in model.named_parameters():
            if last(name) == "bias":
                p.sub_(0.1 * p.grad)
        return y.detach(), grads, model(x.double())


def ran(stage, draw):
    state, x = states(draw, net), draw(2, 3, 5)
    return stage(run, state=state, x=x, make=net), expected(net, state, x), state


@part("forward")
def test_output_stays(stage, draw):
    """The model computes what it did before."""
    (y, *_), (want, *_), _ = ran(stage, draw)
    near(y, want)


@part("forward")
def test_training_the_list_trains_the_model(stage, draw):
    """What an optimizer does to the parameters of the list, the model computes with."""
    (*_, y, _), (*_, want), _ = ran(stage, draw)
    near(y, want, what="the output after a step on the list", rtol=5e-4)


@part("gradient")
def test_gradients(stage, draw):
    """Every bias gets its gradient, through frozen layers too; no other parameter gets any."""
    (_, grads, *_), (_, want, _), _ = ran(stage, draw)
    for name, value in grads.items():
        if last(name) != "bias":
            require(value is None, f"the frozen {name} gets a gradient")
        elif value is None:
            fail(f"the bias {name} gets no gradient")
        else:
            near(value, want[name], what=f"the gradient of {name}", rtol=5e-4)


def state_after(kata, make, state):
    model = make()
    model.load_state_dict(state)
    bitfit(kata, model)
    return model.state_dict()


@part("state")
def test_state_stays(stage, draw):
    """The state dict has the same names and values as before."""
    state = states(draw, net)
    got = stage(state_after, state=state, make=net)
    require(list(got) == list(state), f"the state dict holds {', '.join(got)}")
    for name, value in state.items():
        same(got[name], value, f"`{name}` of the state dict")
