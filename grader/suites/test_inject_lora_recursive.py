"""What is checked of `inject_lora_recursive`. Contract: LoRA (Hu et al. 2021), section 4.1, for all
linear layers, as in QLoRA (Dettmers et al. 2023), section 4."""

import torch
from torch import nn

from grader.exam.checks import blame, near, part, require
from grader.suites.shared import injection
from grader.suites.shared.injection import (
    ALPHA,
    RANK,
    TIES,
    WIDTH,
    adapt,
    akin,
    alike,
    called,
    deep,
    filled,
    holds,
    inject,
    labels,
    linears,
    net,
    net_frozen_in_part,
    others,
    plain,
    put,
    sharing,
    tied,
    words,
)


def inject_lora_recursive(kata, model, skip, rank=RANK, alpha=ALPHA):
    given = {} if skip is None else {"skip": skip}
    return kata.inject_lora_recursive(model, rank=rank, alpha=alpha, **given)


LORA = injection.Injection(
    call=inject_lora_recursive,
    layers=lambda make, skip: [name for name in linears(make) if name not in (skip or ())],
    usual=None,
    every=lambda make: None,
    ordered=False,
    **injection.LORA,
)


# Models


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


def with_gap():
    model = nn.Module()
    model.first = nn.Linear(4, 4)
    model.register_module("gap", None)
    model.inner = nn.Sequential(nn.Linear(4, 4))
    model.inner.register_module("gap", None)
    return model


def in_a_list():
    return nn.ModuleList([nn.Linear(4, 4)])


def in_a_dict():
    return nn.ModuleDict({"0": nn.Linear(4, 4)})


def frozen_before():
    return plain().requires_grad_(False)


def without_linears():
    return nn.Sequential(nn.LayerNorm(6), nn.Conv1d(6, 6, 1))


# shape


@part("shape")
def test_factor_shapes(stage, draw):
    """Every wrapped layer has lora_A (rank, in_features) and lora_B (out_features, rank)."""
    slips = {"rank-not-passed": {"rank": 8}}
    for make in (plain, nested):
        with blame("parameters-not-returned", "the model alone"):
            injection.adapters_have_shapes(stage, draw, LORA, make, None, slips, rank=3)


@part("shape")
def test_rank_one(stage, draw):
    """A rank of 1 is legal."""
    injection.adapters_have_shapes(stage, draw, LORA, plain, None, rank=1)


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """The adapted model takes the same inputs as before: (..., d), a single vector too."""
    injection.any_leading_dimensions(stage, draw, LORA.adapted(draw, plain, None))


@part("shape")
def test_non_contiguous_input(stage, draw):
    """Inputs need not be contiguous."""
    injection.non_contiguous(stage, draw, LORA.adapted(draw, plain, None))


# init


@part("init")
def test_returns_the_same_model(stage):
    """The very model passed in is changed and returned, not a copy."""
    injection.returns_the_same_model(stage, LORA, plain, None)


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
def test_wraps_every_layer(stage):
    """Every nn.Linear becomes a LoRALinear; its `base` is that very layer, its values untouched."""
    text = "the base of a layer that the call has wrapped itself is wrapped again"
    require(not stage(endless), text, "bases-wrapped-again")

    def head(missed, names):
        return "head-left-plain" if missed == names[-1:] and len(names) > 1 else None

    injection.wraps(stage, LORA, plain, None, head)


@part("init")
def test_passes_over_empty_places(stage):
    """A place that is registered as None stays empty; the layers around it are wrapped."""
    injection.wraps(stage, LORA, net, None)
    injection.wraps(stage, LORA, with_gap, None)


@part("init")
def test_wraps_at_any_depth(stage):
    """Linears are found at any depth."""
    injection.wraps(stage, LORA, plain, None)

    def deeper(missed, names):
        below = missed == names[-len(missed) :] and missed != names
        return "deep-layers-missed" if below else None

    injection.wraps(stage, LORA, deep, None, deeper)


@part("init")
def test_wraps_inside_containers(stage):
    """Also inside nn.ModuleList, nn.Sequential and nn.ModuleDict, and where there is no bias."""
    injection.wraps(stage, LORA, deep, None)

    def inside(missed, names):
        """All that one or two kinds of containers hold, and nothing else."""
        lists, dicts = ([n for n in names if n.startswith(p)] for p in ("blocks.", "exits."))
        steps = [n for n in names if ".mlp." in n]
        held = (lists, dicts, steps, [*lists, *dicts], [*steps, *dicts])
        return "container-layers-missed" if missed in held else None

    injection.wraps(stage, LORA, net, None, inside)
    for root in (in_a_list, in_a_dict):
        injection.wraps(stage, LORA, root, None)


@part("init")
def test_names_do_not_matter(stage):
    """A linear is wrapped whatever it is called: `base`, for one."""
    injection.wraps(stage, LORA, deep, None)

    def base(missed, names):
        called = [name for name in names if name.endswith("base")]
        return "layers-called-base-missed" if missed == called else None

    injection.wraps(stage, LORA, called_base, None, base)


@part("init")
def test_leaves_other_modules(stage):
    """Modules that are no nn.Linear stay as they are, those that look like one too."""
    for make, bug in ((net, None), (others, "other-modules-wrapped")):
        with blame(bug):
            extra = injection.wraps(stage, LORA, make, None)
        require(not extra, f"also replaced: {', '.join(extra)}", "other-modules-wrapped")


@part("init")
def test_children_keep_their_order(stage, draw):
    """A layer takes the place of the one it replaces: a Sequential runs in the order it had."""
    injection.wraps(stage, LORA, net, None)
    injection.children_keep_their_order(stage, draw, LORA)


@part("init")
def test_list_of_the_factors(stage):
    """The list holds exactly the new factors, each once, themselves and no copies."""
    for make in (plain, net):
        injection.wraps(stage, LORA, make, None)
        injection.list_of_the_new(stage, LORA, make, None, "factors-not-listed")
    holds(LORA, injection.listed(stage, LORA, plain, ["first"]).list, ["second"])


def skips(stage, make, names, left, bug=None, form=None):
    """With skip `names` exactly the layers `left` must stay plain; `bug` if more do, and those
    are such as the mistake would leave."""
    kinds = LORA.after(stage, make, names, form=form).kinds
    got = [name for name in linears(make) if name not in kinds]
    what = f"with skip {names}" + (f" as a {form}" if form else "")
    missing = [name for name in left if name not in got]
    extra = [name for name in got if name not in left]
    ignored = "skip-ignored" if len(missing) == len(left) and not extra else None
    require(not missing, f"{what} replaced all the same: {words(missing)}", ignored)
    like = {"skip-matches-part": akin, "skip-covers-containers": holds_layer}.get(bug)
    known = bug if like and all(any(like(n, e) for n in names) for e in extra) else None
    if extra and cut_off(linears(make), left, got):
        known = "skip-stops-the-walk"
    require(not extra, f"{what} not replaced: {words(extra)}", known)


def cut_off(names, skipped, left):
    """Whether what is left is all that follows a skipped layer, in the model or in its parent."""
    after = [name for at, name in enumerate(names) if set(names[: at + 1]) & set(skipped)]
    parents = {name.rpartition(".")[0] for name in skipped}
    beside = [name for name in after if name.rpartition(".")[0] in parents]
    return any(len(gone) > 1 and set(left) == set(gone) for gone in (after, beside))


def holds_layer(container, name):
    return name.startswith(f"{container}.")


@part("init")
def test_skip(stage):
    """The layers whose dotted names are in `skip`, any collection of names, stay plain."""
    skips(stage, alike, [], [])
    for names in (["proj"], ["inner.k", "layers.3"], ["other", "proj2", "inner.proj"]):
        skips(stage, alike, names, names, "skip-matches-part")
    for form in ("tuple", "set", "dict"):
        skips(stage, alike, ["k", "inner.proj"], ["k", "inner.proj"], form=form)


@part("init")
def test_skip_compares_whole_names(stage):
    """A part of a name, its last one for instance, skips nothing."""
    skips(stage, alike, [], [])
    for names in (["layers.1"], ["q_proj"], ["k"], ["inner.proj"]):
        skips(stage, alike, names, names, "skip-matches-part")
    skips(stage, net, [], [])
    for names in (["o_proj", "q_proj"], ["attn.q_proj"], ["0"]):
        skips(stage, net, names, [], "skip-matches-part")


@part("init")
def test_skip_of_containers_and_unknown_names(stage):
    """Unknown names in `skip`, and names of containers, have no effect."""
    for names in ([], ["fc"], ["fc", "exits.0"]):
        skips(stage, net, names, names)
    for names in (["blocks.0", "neck"], ["exits"], ["blocks.1.mlp", "fc"]):
        left = [name for name in names if name == "fc"]
        skips(stage, net, names, left, "skip-covers-containers")
    unknown = ["FC", "Linear", "fc.weight", "exits.*", " exits.0"]
    for names in (["nope"], ["neck.nope", "fc"], ["blocks.9.attn.q_proj"], unknown):
        left = [name for name in names if name == "fc"]
        with blame("unknown-skip-refused"):
            skips(stage, net, names, left)


def factors_fit(stage, draw):
    """Layers that are not tied take factors of the rank asked for, and their model runs."""
    for make in (plain, net):
        LORA.adapted(draw, make, None).ask(stage, injection.output_for, draw(4, WIDTH))


@part("init")
def test_tied_layer_is_wrapped_once(stage, draw):
    """A layer registered under two names is wrapped once and stays tied."""
    injection.wraps(stage, LORA, net, None)
    factors_fit(stage, draw)
    with blame("tied-not-kept"):
        came = LORA.after(stage, tied, None)
    require("mid" in came.kinds, "a layer with one name, `mid`, is not wrapped")
    for names in TIES:
        kinds = [came.kinds.get(name) for name in names]
        both = f"`{names[0]}` and `{names[1]}`, one layer,"
        left = "second-name-left" if kinds == ["wrapped", None] else "tied-not-kept"
        require(kinds == ["wrapped"] * 2, f"{both} are not both wrapped", left)
        require(set(names) & came.one.keys(), f"{both} are two afterwards", "tied-not-kept")
    holds(LORA, came.list, linears(tied), doubled="factors-listed-twice")
    with blame("tied-not-kept"):
        model = LORA.adapted(draw, tied, None)
        injection.computes(stage, model, draw(3, 6), "the output of a model with ties")


@part("init")
def test_tied_layer_skipped(stage):
    """A layer is left plain where all of its names are in `skip`."""
    names = ["enc", "dec"]
    came = LORA.after(stage, tied, names)
    left = came.kinds.keys().isdisjoint(names) and "dec" in came.one
    require(left, "`enc` and `dec`, both skipped, were replaced")
    kinds = LORA.after(stage, sharing, ["left"]).kinds
    text = "`left` is skipped and `right`, another layer with the same weight, is not: they are"
    kinds = [kinds.get(name, "left") for name in ("left", "right")]
    require(kinds == ["left", "wrapped"], f"{text} {', '.join(kinds)}")


@part("init")
def test_layers_that_share_a_weight(stage, draw):
    """Two layers that share only a weight are two; the weight stays shared."""
    injection.wraps(stage, LORA, net, None)
    injection.wraps(stage, LORA, frozen_before, None)
    factors_fit(stage, draw)
    injection.layers_that_share_a_weight(stage, draw, LORA, None)


def around_a_call(kata, state, where, values, skip, rank, x, **it):
    model = adapt(kata, state, where, values, it)
    before = dict(model.named_modules(remove_duplicate=False))
    tensors = dict(model.named_parameters(remove_duplicate=False))
    copies = {name: p.detach().clone() for name, p in tensors.items()}
    y = model(x)
    _, params = inject(kata, model, skip, it, rank=rank)
    now = dict(model.named_modules(remove_duplicate=False))
    changed = [n for n in {**before, **now} if before.get(n) is not now.get(n)]
    after = dict(model.named_parameters(remove_duplicate=False))
    other = [n for n, p in tensors.items() if after.get(n) is not p or not p.equal(copies[n])]
    return changed, other, labels(params, called(model, it)), y, model(x)


@part("init")
def test_adapted_layers_are_left_alone(stage, draw):
    """A LoRALinear that is there is left alone: a second call returns [] and changes no output."""
    injection.wraps(stage, LORA, net, None)
    for make, width, rank, skip in (
        (net, WIDTH, RANK, []),
        (net, WIDTH, 2, ["fc"]),
        (tied, 6, RANK, []),
    ):
        model, x = LORA.adapted(draw, make, None), draw(4, width)
        changed, other, got, before, after = model.ask(stage, around_a_call, skip, rank, x)
        highest = [name for name in changed if name.rpartition(".")[0] not in changed]
        bases = all(name.endswith(".base") for name in highest)
        text = f"a second call replaced {words(changed)}"
        require(not changed, text, "bases-wrapped-again" if bases else None)
        earlier = set(got) <= set(LORA.tensors(model.values))
        bug = "earlier-factors-returned" if earlier else None
        require(not got, f"a second call returned {words(got)}; expected nothing", bug)
        near(after, before.double(), what="the output after a second call")
        require(not other, f"a second call replaced or changed {words(other)}")


def adapted_in_part(kata, state, where, values, x, **it):
    """Some layers are adapted first: which stay plain, the list, which old parameters are in it,
    and the output."""
    model = filled(it["make"](), state)
    inject(kata, model.neck, None, it)
    inject(kata, model.blocks[1], ["mlp.0"], it)
    before = list(model.parameters())
    _, params = inject(kata, model, None, it)
    known = called(model, it)
    old = labels([p for p in before if any(p is q for q in params)], known)
    left = [name for name in values if not hasattr(model.get_submodule(name), "lora_A")]
    return left, labels(params, known), old, None if left else put(model, values, it)(x)


@part("init")
def test_partly_adapted_model(stage, draw):
    """In a model that is adapted in part, the layers that are still plain are wrapped."""
    injection.wraps(stage, LORA, net, None)
    model, x = LORA.adapted(draw, net, None), draw(4, WIDTH)
    left, got, old, y = model.ask(stage, adapted_in_part, x)
    rest = [n for n in model.values if not n.startswith(("neck.", "blocks.1.")) or "mlp.0" in n]
    stopped = "stops-when-adapted" if left == rest and not got else None
    require(not left, f"in a model with adapted layers not replaced: {words(left)}", stopped)
    factors = old and all(name.endswith(LORA.new) for name in old)
    bug = "earlier-factors-returned" if factors else None
    require(not old, f"parameters that were there before are in the list: {words(old)}", bug)
    holds(LORA, got, rest)
    near(y, model.output(x), what="the output of a model adapted in two calls")


def single(kata, state, **it):
    inject(kata, filled(it["make"](), state).first, None, it)


def roots(kata, state, x, **it):
    """What becomes of a root that is a linear, and of one that is an adapted layer."""
    found = []
    model = filled(it["make"](), state)
    inject(kata, model, None, it)
    for root in (filled(it["make"](), state).first, model.first):
        before, keys = dict(root.named_modules()), list(root.state_dict())
        got, params = inject(kata, root, None, it)
        now = dict(root.named_modules())
        changed = list(now) != list(before) or any(now[n] is not before[n] for n in before)
        changed = changed or list(root.state_dict()) != keys
        found.append((got is root, changed, len(list(params)), root(x)))
    return found


@part("init")
def test_root(stage, draw):
    """A root that is itself an nn.Linear or a LoRALinear is left alone; the list is empty."""
    state, x = injection.states(draw, plain), draw(4, WIDTH)
    want = x.double() @ state["first.weight"].double().T + state["first.bias"].double()
    injection.wraps(stage, LORA, plain, None)
    with blame("root-refused"):
        LORA.ask(stage, single, state, make=plain)
    found = LORA.ask(stage, roots, state, x, make=plain)
    bugs = {"an nn.Linear": "root-replaced", "a LoRALinear": "bases-wrapped-again"}
    for (what, bug), (kept, changed, count, y) in zip(bugs.items(), found):
        require(kept, f"for a root that is {what} another module is returned", bug)
        require(not changed, f"a root that is {what} was changed inside", bug)
        require(count == 0, f"a root that is {what} gives {count} parameters, expected none")
        near(y, want, what=f"the output of a root that is {what}")


@part("init")
def test_starts_as_it_was(stage, draw):
    """Right after the call the model computes what it did before, with the same values."""
    injection.starts_as_it_was(stage, draw, LORA, None)


def called_by_name(kata):
    model = plain()
    kata.inject_lora_recursive(skip=["second"], alpha=4.0, rank=2, model=model)
    return model.first.lora_A.shape[0], hasattr(model.second, "lora_A")


@part("init")
def test_arguments(stage, draw):
    """rank (from 1 up) defaults to 8, alpha to 16, skip to none; arguments by place or by name."""
    last = ((["nope"],),)
    injection.takes_rank_and_alpha(stage, draw, LORA, plain, None, last=last)
    rank, skipped = stage(called_by_name)
    require(rank == 2, f"with all arguments by name lora_A has {rank} rows at rank 2")
    require(not skipped, "with all arguments by name a skipped layer is replaced")


@part("init")
def test_factors_start(stage):
    """lora_A starts random and lora_B at zero, anew for every layer."""
    injection.factors_start(stage, LORA, None)


@part("init")
def test_modes_stay(stage):
    """Every module stays in the mode it was in, training or evaluation."""
    injection.modes_stay(stage, LORA)


# freeze


@part("freeze")
def test_all_else_is_frozen(stage, draw):
    """lora_A and lora_B train; all else is frozen: biases, norms, a `lora_gate` of the model's."""
    injection.all_else_is_frozen(stage, draw, LORA, [], rank=5)


@part("freeze")
def test_skipped_layers_are_frozen(stage, draw):
    """Skipped layers are frozen like all else."""
    skip = ["fc", "blocks.0.mlp.2", "neck.o_proj"]
    injection.all_else_is_frozen(stage, draw, LORA, skip, skip, rank=5)


@part("freeze")
def test_other_models_are_frozen(stage):
    """Shared parameters, embeddings and convolutions are frozen; what was frozen stays so."""
    for make in (others, tied, sharing, net_frozen_in_part):
        injection.freezes_all_else(stage, LORA, make, None)


@part("freeze")
def test_model_without_linears(stage):
    """A model without linears is frozen and gives an empty list."""
    came = LORA.after(stage, without_linears, None)
    require(came.returned, "the model returned is another object than the one passed in")
    text = f"a model without linears gives {words(came.list)}, expected nothing"
    require(not came.list, text)
    bug = "no-linears-freezes-nothing" if len(came.trains) == 4 else None
    require(not came.trains, f"not frozen: {', '.join(came.trains)}", bug)


@part("freeze")
def test_frozen_after_a_second_call(stage):
    """After a second call all but factors is still frozen."""
    trains = LORA.after(stage, net, None, None).trains
    others = [name for name in trains if not name.endswith((".lora_A", ".lora_B"))]
    require(not others, f"not frozen after a second call: {', '.join(others)}")


@part("freeze")
def test_called_under_no_grad(stage, draw):
    """The call leaves grad mode and default dtype as they were; under no_grad too all else is
    frozen and what is new trains."""
    injection.called_under_no_grad(stage, draw, LORA, ["neck.q_proj"])


# forward


@part("forward")
def test_output_with_updates(stage, draw):
    """Every wrapped layer computes base(x) + alpha / rank * (x @ lora_A.T @ lora_B.T)."""
    x, what = draw(3, 4, WIDTH), "the output of a nested model with updates"
    injection.computes(stage, LORA.adapted(draw, nested, None), x, what)
    for skip in ([], ["exits.out", "blocks.0.attn.q_proj", "fc"]):
        what = "the output with updates" + (f" and skip {skip}" if skip else "")
        injection.computes(stage, LORA.adapted(draw, net, skip), x, what)


@part("forward")
def test_follows_the_factors(stage, draw):
    """Outputs follow the factors of the moment, and are the same in train and eval mode."""
    injection.follows_its_values(stage, draw, LORA)


@part("forward")
def test_training_the_list_trains_the_model(stage, draw):
    """What an optimizer does to the parameters of the list, the model computes with."""
    injection.wraps(stage, LORA, net, None)
    injection.training_the_list_trains_the_model(stage, draw, LORA)


@part("forward")
def test_models_do_not_share(stage, draw):
    """Two models adapted one after the other have nothing in common."""
    injection.models_do_not_share(stage, draw, LORA)


@part("forward")
def test_input_is_left_unchanged(stage, draw):
    """The adapted model does not change its input in place."""
    injection.input_is_left_unchanged(stage, draw, LORA)


# gradient


@part("gradient")
def test_gradients(stage, draw):
    """All factors and the input get their gradients, through the frozen layers too."""
    injection.gradients(stage, LORA.net(draw), draw(3, 4, WIDTH))


@part("gradient")
def test_gradients_of_tied_layers(stage, draw):
    """The factors of a layer that runs twice get the sum of both gradients."""
    injection.gradients(stage, LORA.adapted(draw, tied, None), draw(4, 6))


# state


@part("state")
def test_state_names(stage):
    """The factors are in the model's state dict under the layer's path."""
    injection.state_names(stage, LORA)


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another adapted model's state reproduces its outputs."""
    injection.state_round_trip(stage, draw, LORA)


# dtype and device


@part("dtype")
def test_factors_have_the_dtype_of_their_layer(stage):
    """New factors have the dtype of the layer they adapt, in a model of several dtypes too."""
    injection.dtype_of_the_layer(stage, LORA, None, "float32-factors")


@part("dtype")
def test_float64(stage, draw):
    """A float64 model stays exact to 1e-9."""
    injection.works_in_dtype(stage, draw, LORA.net(draw, torch.float64))


@part("dtype")
def test_bfloat16(stage, draw):
    """A bfloat16 model works."""
    injection.works_in_dtype(stage, draw, LORA.adapted(draw, plain, None, torch.bfloat16))


@part("device")
def test_meta_device(stage):
    """A model on the meta device gets its factors there."""
    injection.meta_device(stage, LORA, None, "cpu-factors")


# gpu


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU, and nothing stays behind."""
    injection.same_on_the_accelerator(stage, draw, LORA)
