"""What is checked of `lora_checkpoint`. Contract: LoRA (Hu et al. 2021), section 4.2."""

import contextlib
import re

import torch
from safetensors.torch import load, save

from grader.exam.checks import (
    CheckFailed,
    LearnerRaised,
    Raised,
    blame,
    fail,
    near,
    part,
    rejects,
    require,
    tensor,
)
from grader.exam.kit import linear, nn

RANK, IN, OUT = 3, 10, 6
FILE = "adapter.safetensors"


# A model is a list of (name, kind, value); `build` says what the kinds are.


def build(entries, first=True):
    """first: whether the root is in training mode."""
    root = nn.Module()
    for name, kind, value in entries:
        *path, last = name.split(".")
        at = root
        for step in path:
            if step not in at._modules:
                at.add_module(step, nn.ParameterDict() if kind == "listed" else nn.Module())
            at = at._modules[step]
        put(at, last, kind, value)
    for number, module in enumerate(root.modules()):
        module.training = (number % 2 == 0) == first
    for p in root.parameters():
        p.grad = torch.full_like(p, 0.5)
    return root


def put(module, name, kind, value):
    if kind in ("buffer", "hidden"):
        module.register_buffer(name, value.clone(), persistent=kind == "buffer")
    elif kind == "plain":
        setattr(module, name, value.clone())
    elif kind == "none":
        module.register_parameter(name, None)
    elif kind == "property":
        module.factor = nn.Parameter(value.clone())
        bases = {name: property(lambda self: self.factor)}
        module.__class__ = type("Computed", (nn.Module,), bases)
    elif kind == "extra":
        told = {
            "get_extra_state": lambda self: {"rank": 3},
            "set_extra_state": lambda self, _: None,
        }
        module.__class__ = type("Noted", (nn.Module,), told)
    elif kind == "listed":
        module[name] = nn.Parameter(value.clone())
    else:
        module.register_parameter(name, nn.Parameter(laid_out(kind, value), kind != "frozen"))


def laid_out(kind, value):
    """The value, in memory as its kind says."""
    if kind == "turned":
        return value.T.contiguous().T
    if kind == "strided":
        return torch.stack([value, value + 1], -1)[..., 0]
    if kind == "sliced":
        return torch.stack([value + 1, value, value - 1])[1]
    return value.clone()


def picture(model):
    """All that saving must leave alone, and loading too but for the factors."""
    return {
        "values": {
            name: value.clone()
            for name, value in model.state_dict().items()
            if isinstance(value, torch.Tensor)
        },
        "strides": {name: p.stride() for name, p in model.named_parameters()},
        "trains": {name: p.requires_grad for name, p in model.named_parameters()},
        "grads": {
            name: p.grad is not None and bool((p.grad == 0.5).all())
            for name, p in model.named_parameters()
        },
        "modes": [module.training for module in model.modules()],
    }


def located(folder, name, as_path):
    import os
    import pathlib

    path = os.path.join(folder, name)
    return pathlib.Path(path) if as_path else path


def saving(kata, models, name, as_path):
    """The file's bytes once each model has been saved to it, and the last model's pictures."""
    import os
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = located(folder, name, as_path)
        for entries in models:
            model = build(entries)
            before = picture(model)
            kata.save_adapter(model, path)
        data = None
        if os.path.isfile(path):
            with open(path, "rb") as file:
                data = file.read()
        return {
            "data": data,
            "there": sorted(os.listdir(folder)),
            "before": before,
            "after": picture(model),
        }


def loading(kata, entries, data, name, as_path):
    """Pictures of a model before and after loading a file of these bytes."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = located(folder, name, as_path)
        with open(path, "wb") as file:
            file.write(data)
        model = build(entries)
        before = picture(model)
        kata.load_adapter(model, path)
        return before, picture(model)


def saved(stage, *models, name=FILE, as_path=False):
    """What the file holds, by name."""
    got = stage(saving, list(models), name, as_path)
    if got["data"] is None:
        text = f"there is no file at the path {name!r}; the folder holds: {got['there']}"
        longer = any(n.startswith(name) and n != name for n in got["there"])
        bug = "folder-at-path" if name in got["there"] else "path-extended" if longer else None
        text = (
            f"at the path {name!r} there is a folder, not a file" if name in got["there"] else text
        )
        fail(text, bug)
    return decoded(got["data"])


def decoded(data):
    try:
        return load(data)
    except Exception:
        pickled = data[:2] in (b"PK", b"\x80\x02", b"\x80\x04")
        return fail("the file is not in safetensors format", "pickled" if pickled else None)


def as_file(values, about=True):
    """A safetensors file of these values, with what the field's tools write about it or without."""
    metadata = {"format": "pt"} if about else None
    return save({n: v.contiguous() for n, v in values.items()}, metadata=metadata)


def factors(entries):
    """What the file must hold of a model, by name, in the model's order."""
    return {
        name: value
        for name, kind, value in entries
        if name.split(".")[-1] in ("lora_A", "lora_B")
        and kind not in ("hidden", "plain", "none", "property", "extra")
    }


def others(draw, entries):
    """The same model with other values."""
    return [
        (n, k, draw(*v.shape, dtype=v.dtype) if v.dtype.is_floating_point else 1 - v)
        for n, k, v in entries
    ]


def plain(draw, *layers):
    """Layers with a base and two factors each, their names out of the alphabet's order."""
    return [
        (f"{layer}.{name}", kind, value)
        for layer in layers or ("stack.10.q", "stack.2.q", "head", "encoder")
        for name, kind, value in [
            ("base.weight", "frozen", draw(OUT, IN)),
            ("base.bias", "frozen", draw(OUT)),
            ("lora_A", "parameter", draw(RANK, IN)),
            ("lora_B", "parameter", draw(OUT, RANK)),
        ]
    ]


def hold_names(got, want, bugs):
    """The file's names are right; `bugs` names the mistake by the set of names it gives."""
    if set(got) == set(want):
        return
    bug = next((bug for bug, names in bugs.items() if set(got) == set(names)), None)
    missing, extra = [n for n in want if n not in got], sorted(set(got) - set(want))
    text = [f"lacks {', '.join(missing)}"] if missing else []
    text += [f"should not hold {', '.join(extra)}"] if extra else []
    fail(f"the file {' and '.join(text)}", bug)


def hold_values(got, want, what, bug=None):
    for name, value in want.items():
        require(name in got, f"{what} has no {name}")
        own = tensor(got[name], f"{name} in {what}")
        require(
            own.dtype == value.dtype,
            f"{name} in {what} is {str(own.dtype)[6:]}, expected {str(value.dtype)[6:]}",
            bug,
        )
        near(own, value, what=f"{name} in {what}", dtype=value.dtype, rtol=0.0, atol=0.0, bug=bug)


def cast(got, want):
    """The mistake that gives all of the file one dtype, which is not the model's."""
    kinds = {value.dtype for value in got.values()}
    if kinds == {value.dtype for value in want.values()} or len(kinds) > 1:
        return None
    casts = {torch.float32: "saved-as-float32", torch.float16: "saved-in-half"}
    return {**casts, torch.bfloat16: "saved-in-half"}.get(*kinds)


# state


@part("state")
def test_saves_the_factors(stage, draw):
    """The file is in safetensors format and holds every lora_A and lora_B, values unchanged."""
    entries = plain(draw)
    want = factors(entries)
    try:
        got = saved(stage, entries)
    except LearnerRaised as error:
        with contextlib.suppress(CheckFailed):
            saved(stage, entries, as_path=True)
            error.bug = "path-objects-only"
        raise
    bugs = {
        "whole-model-saved": [name for name, _, _ in entries],
        "b-left-out": [n for n in want if n.endswith("lora_A")],
        "names-shortened": ["lora_A", "lora_B"],
        "direct-children-only": [n for n in want if n.count(".") == 1],
    }
    if not set(got) & set(want) and len(got) == len(want):
        bugs["names-changed"] = got
    hold_names(got, want, bugs)
    hold_values(got, want, "the file", cast(got, want))


@part("state")
def test_names_at_every_depth(stage, draw):
    """Names are kept as they stand in the state dict, at the root too."""
    entries = [("lora_B", "parameter", draw(OUT, RANK)), ("bias", "frozen", draw(OUT))]
    entries += [("lora_A", "parameter", draw(RANK, IN)), *plain(draw)]
    deep = ("a.b.c.d", "model.q", "module.q", "base_model.model.q", "base.q", "layers.128.q")
    entries += [(f"{path}.lora_A", "parameter", draw(RANK, IN)) for path in deep]
    want = factors(entries)
    got = saved(stage, entries)
    below = [n for n in want if "." in n]
    hold_names(got, want, {"root-missed": below})
    hold_values(got, want, "the file")


@part("state")
def test_no_other_parameters(stage, draw):
    """No other entry is saved, trainable ones included; a factor is saved, frozen or zero too."""
    entries = [(n, k, v) for n, k, v in plain(draw) if not n.startswith("head")]
    entries += [
        ("head.weight", "parameter", draw(OUT, IN)),
        ("head.bias", "parameter", draw(OUT)),
        ("head.lora_A", "frozen", draw(RANK, IN)),
        ("head.lora_B", "parameter", torch.zeros(OUT, RANK)),
        ("head.mean", "buffer", draw(OUT)),
    ]
    want = factors(entries)
    trainable = {n for n, kind, _ in entries if kind == "parameter"}
    hold_names(
        saved(stage, entries),
        want,
        {
            "trainable-saved": trainable,
            "frozen-left-out": trainable & set(want),
        },
    )


@part("state")
def test_last_component_decides(stage, draw):
    """Only the last component of a name counts, and all of it."""
    value = draw(RANK, IN)
    odd = ("head.lora_A_old", "head.my_lora_A", "head.lora_B2", "head.lora_alpha", "head.Lora_A")
    odd += ("head.lora_C", "head.lora_E", "head.lora_magnitude_vector", "head.scale", "head.lora_a")
    odd += ("lora_A.weight", "tail.lora_B.default", "lora_A.base.bias", "head.old-lora_B")
    entries = [*plain(draw), *((n, "parameter", value) for n in odd)]
    entries += [("lora_B.lora_A", "parameter", value), ("lora_A.old.lora_B", "parameter", value)]
    want = factors(entries)
    names = [n for n, _, _ in entries]

    def by(rule):
        return [n for n in names if rule(n) or n in want]

    got = saved(stage, entries)
    both = "lora_A", "lora_B"
    known = {
        "name-contains": (
            lambda n: "lora_A" in n or "lora_B" in n,
            lambda n: "lora_" in n,
            lambda n: "lora_" in n.split(".")[-1],
        ),
        "suffix-compared": (lambda n: n.endswith(both),),
        "prefix-compared": (
            lambda n: n.split(".")[-1].startswith("lora_"),
            lambda n: n.split(".")[-1].startswith(both),
        ),
        "any-component": (lambda n: set(both) & set(n.split(".")),),
    }
    bugs = {bug: got for bug, rules in known.items() if any(set(by(r)) == set(got) for r in rules)}
    hold_names(got, want, bugs)


@part("state")
def test_state_dict_decides(stage, draw):
    """Buffers and ParameterDict entries count; what is not in the state dict does not."""
    entries = [
        ("head.lora_A", "buffer", draw(RANK, IN)),
        ("head.lora_B", "parameter", draw(OUT, RANK)),
        ("shelf.lora_B", "listed", draw(OUT, RANK)),
        ("shelf.lora_A", "listed", draw(RANK, IN)),
        ("stacked.lora_A", "parameter", draw(4, RANK, IN)),
        ("stacked.lora_B", "none", draw(1)),
        ("fixed.lora_A", "parameter", draw(IN)),
        ("thin.lora_A", "parameter", draw(1, IN)),
        ("thin.lora_B", "parameter", draw(OUT, 1)),
        ("gate.lora_B", "parameter", draw()),
    ]
    unsaved = [
        ("cache.lora_A", "hidden", draw(RANK, IN)),
        ("cache.lora_B", "plain", draw(OUT, RANK)),
        ("derived.lora_A", "property", draw(RANK, IN)),
        ("noted.state", "extra", draw(1)),
    ]
    want = factors(entries)
    got = saved(stage, entries)
    hold_names(got, want, {"buffers-left-out": [n for n in want if n != "head.lora_A"]})
    got = saved(stage, entries + unsaved)
    taken = [*want, *(name for name, *_ in unsaved[:-1])]
    bugs = {"unsaved-buffers-saved": [*want, "cache.lora_A"], "attributes-taken": taken}
    hold_names(got, want, bugs)
    hold_values(got, want, "the file")


@part("state")
def test_loads_every_factor(stage, draw):
    """load_adapter sets every factor by its name, whoever wrote the file, in whatever order."""
    few = plain(draw)
    entries = [
        *few,
        ("lora_B", "parameter", draw(OUT, RANK)),
        ("head.scaled.lora_B", "buffer", draw(OUT, RANK)),
        ("head.scaled.lora_A", "frozen", draw(RANK, IN)),
        ("shelf.lora_A", "listed", draw(RANK, IN)),
        ("stacked.lora_A", "parameter", draw(4, RANK, IN)),
        ("cache.lora_A", "hidden", draw(RANK, IN)),
        ("empty.lora_B", "none", draw(1)),
        ("thin.lora_A", "parameter", draw(1, IN)),
        ("gate.lora_B", "parameter", draw()),
        ("noted.state", "extra", draw(1)),
    ]
    buffers = {name for name, kind, _ in entries if kind == "buffer"}
    frozen = {name for name, kind, _ in entries if kind == "frozen"} & set(factors(entries))
    for model in (few, entries):
        want = factors(model)
        target = others(draw, model)
        with (
            blame("written-without-no-grad", "a leaf Variable", "view of a leaf"),
            blame("path-objects-only", "'str' object has no attribute"),
        ):
            before, after = stage(loading, target, as_file(want), FILE, False)
        got = [after["values"].get(name) for name in want]
        old = {
            name
            for name, v in zip(want, got)
            if v is not None and torch.equal(v, before["values"][name])
        }
        missed = {"buffers-not-loaded": buffers, "frozen-not-loaded": frozen}
        bug = next((bug for bug, names in missed.items() if old and old == names), None)
        if old == set(want):
            bug = "nothing-loaded"
        elif all(any(v is not None and torch.equal(v, w) for v in got) for w in want.values()):
            bug = "loaded-by-position"  # all are there, in other places
        hold_values(after["values"], want, "the model after loading", bug)


@part("state")
def test_metadata_is_not_needed(stage, draw):
    """Whether the file holds metadata makes no difference."""
    entries = plain(draw, "head")
    want, target = factors(entries), others(draw, entries)
    stage(loading, target, as_file(want), FILE, False)
    with blame("metadata-required"):
        _, after = stage(loading, target, as_file(want, about=False), FILE, False)
    hold_values(after["values"], want, "the model")


def round_trip(kata, entries, target):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = located(folder, FILE, False)
        source, model = build(entries, first=False), build(target, first=False)
        with torch.no_grad():
            kata.save_adapter(model=source, path=path)
            after_save = torch.is_grad_enabled()
            torch.set_grad_enabled(False)
            kata.load_adapter(model=model, path=path)
            after_load = torch.is_grad_enabled()
        return picture(model), (after_save, after_load)


@part("state")
def test_what_was_saved_is_loaded(stage, draw):
    """A file of save_adapter gives another instance of the model the same factors."""
    entries = [*plain(draw), ("lora_A", "buffer", draw(RANK, IN))]
    after, grad = stage(round_trip, entries, others(draw, entries))
    for name, on in zip(("save_adapter", "load_adapter"), grad):
        require(not on, f"{name} leaves grad mode on that was off")
    hold_values(after["values"], factors(entries), "the model (in eval mode) after loading")


@part("state")
def test_any_path(stage, draw):
    """The file is at `path`, a str or a pathlib.Path, whatever it is called."""
    entries = plain(draw, "head")
    want, target = factors(entries), others(draw, entries)
    for name, as_path in ((FILE, False), (FILE, True), ("adapter", False), ("run 1.v2.bin", False)):
        # What has just worked for the str fails for the Path.
        with blame("str-paths-only" if as_path else None):
            got = saved(stage, entries, name=name, as_path=as_path)
            _, after = stage(loading, target, as_file(want), name, as_path)
        hold_values(got, want, "the file")
        hold_values(after["values"], want, "the model")


@part("state")
def test_saving_again_replaces_the_file(stage, draw):
    """Saving to the path of an older file replaces it."""
    old = [*plain(draw), ("old.lora_A", "parameter", draw(50, IN))]
    entries = others(draw, old[:-1])
    want = factors(entries)
    got = saved(stage, old, entries)
    new = all(name in got and torch.equal(got[name], value) for name, value in want.items())
    hold_names(got, want, {"old-file-kept": factors(old)} if new else {})
    hold_values(got, want, "the file")


def again(kata, entries, second):
    """The file, and a model that loaded it, when the saved model has changed in between."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = located(folder, FILE, False)
        source, model = build(entries), build(second)
        kata.save_adapter(source, path)
        kata.load_adapter(model, path)
        source.load_state_dict(build(second).state_dict())
        kata.save_adapter(source, path)
        kata.load_adapter(model, path)
        with open(path, "rb") as file:
            return file.read(), picture(model)


@part("state")
def test_values_of_the_moment(stage, draw):
    """What is saved are the values of that moment, and what is loaded those of the file then."""
    entries = plain(draw, "head")
    second = others(draw, entries)
    data, after = stage(again, entries, second)
    hold_values(decoded(data), factors(second), "the second file")
    hold_values(after["values"], factors(second), "the model that loaded both files")


# forward


def network(weights, lows):
    """Two layers, each base(x) + 2 lora_B lora_A x, with a ReLU between."""

    class Low(nn.Module):
        def __init__(self, weight, A, B):
            super().__init__()
            self.base = linear(weight).requires_grad_(False)
            self.lora_A, self.lora_B = nn.Parameter(A.clone()), nn.Parameter(B.clone())

        def forward(self, x):
            return self.base(x) + 2.0 * (x @ self.lora_A.T @ self.lora_B.T)

    first, second = (Low(w, *low) for w, low in zip(weights, lows))
    return nn.Sequential(first, nn.ReLU(), second)


def served(kata, weights, lows, fresh, x):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = located(folder, FILE, False)
        kata.save_adapter(network(weights, lows), path)
        model = network(weights, fresh)
        kata.load_adapter(model, path)
        return model(x)


@part("forward")
def test_outputs_are_reproduced(stage, draw):
    """A model with the same base computes after loading what the saved one did."""
    weights = [draw(IN, IN, std=0.4), draw(OUT, IN, std=0.4)]
    shapes = [((RANK, IN), (IN, RANK)), ((RANK, IN), (OUT, RANK))]
    lows, fresh = ([[draw(*s, std=0.6) for s in pair] for pair in shapes] for _ in range(2))
    x = draw(4, IN)
    y = stage(served, weights, lows, fresh, x)

    def output(pairs):
        h = x.double()
        for number, (W, (A, B)) in enumerate(zip(weights, pairs)):
            h = h.relu() if number else h
            h = h @ W.double().T + 2.0 * (h @ A.double().T @ B.double().T)
        return h

    near(y, output(lows), what="the output", unless={"nothing-loaded": output(fresh)})


# shape


@part("shape")
def test_factors_that_are_not_contiguous(stage, draw):
    """Transposed and strided factors, and views of larger tensors, are saved by value."""
    hold_values(saved(stage, plain(draw)), {}, "the file")  # contiguous ones do not fail
    for kind in ("turned", "strided", "sliced"):
        entries = [("head.lora_A", kind, draw(RANK, IN)), ("head.lora_B", kind, draw(OUT, RANK))]
        entries += [("head.weight", "turned", draw(OUT, IN))]
        with blame("contiguous-only", "contiguous"):
            got = saved(stage, entries)
        hold_values(got, factors(entries), f"the file ({kind})")


@part("shape")
def test_loads_into_factors_that_are_not_contiguous(stage, draw):
    """Factors that are transposed, strided or views of larger tensors are set by value."""
    for kind in ("turned", "strided", "sliced"):
        entries = [("head.lora_A", kind, draw(RANK, IN)), ("head.lora_B", kind, draw(OUT, RANK))]
        want = factors(entries)
        _, after = stage(loading, others(draw, entries), as_file(want), FILE, False)
        hold_values(after["values"], want, f"the model ({kind})")


# freeze


def unchanged(before, after, who, factor=frozenset()):
    """Nothing but the named factors has changed."""
    gone = set(before["values"]) ^ set(after["values"])
    require(not gone, f"{who} changes the names in the state dict: {', '.join(sorted(gone))}")
    for name, value in before["values"].items():
        now = tensor(after["values"][name], name)
        kept = now.dtype == value.dtype and torch.equal(now, value)
        require(kept or name in factor, f"{who} changes {name}")
    other = set(before["trains"]) ^ set(after["trains"])
    text = f"{who} makes a parameter of a buffer, or a buffer of a parameter: {', '.join(other)}"
    require(not other, text)
    for name, stride in before["strides"].items():
        kept = after["strides"][name] == stride or name in factor
        require(kept, f"{who} changes the strides of {name}")
    turned = {n for n, flag in before["trains"].items() if after["trains"].get(n) != flag}
    frozen = {n for n in factor if before["trains"].get(n) is False}
    bug = "factors-thawed" if turned == frozen else None
    for name in turned:
        to = "off" if before["trains"][name] else "on"
        fail(f"{who} turns requires_grad of {name} {to}", bug)
    for name, same in before["grads"].items():
        kept = after["grads"].get(name) == same or name in factor
        require(kept, f"{who} changes the gradient of {name}")
    left = any(before["modes"]) and not any(after["modes"])
    text = f"{who} puts modules into another mode, train() or eval()"
    require(before["modes"] == after["modes"], text, "eval-left-on" if left else None)


@part("freeze")
def test_saving_changes_nothing(stage, draw):
    """save_adapter leaves the model as it was: values, dtypes, requires_grad, train()."""
    entries = [*plain(draw), ("head.bias", "parameter", draw(OUT, dtype=torch.float64))]
    entries += [
        ("side.lora_A", "turned", draw(RANK, IN)),
        ("tail.lora_A", "frozen", draw(RANK, IN)),
    ]
    got = stage(saving, [entries], FILE, False)
    unchanged(got["before"], got["after"], "save_adapter")


@part("freeze")
def test_loading_changes_nothing_else(stage, draw):
    """load_adapter changes no other entry, no requires_grad, no train()."""
    entries = [*plain(draw), ("head.bias", "parameter", draw(OUT))]
    entries += [("head.lora_A_old", "parameter", draw(RANK, IN)), ("head.n", "buffer", draw(1))]
    entries += [("tail.lora_A", "frozen", draw(RANK, IN)), ("tail.lora_B", "frozen", draw(OUT, 1))]
    entries += [("side.lora_A", "buffer", draw(RANK, IN))]
    entries += [("norm.mean", "buffer", draw(OUT, dtype=torch.float64))]
    entries += [("norm.num_batches_tracked", "buffer", torch.tensor(7))]
    want = factors(entries)
    before, after = stage(loading, others(draw, entries), as_file(want), FILE, False)
    unchanged(before, after, "load_adapter", frozenset(want))


# dtype

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def typed(draw, *dtypes):
    """A model with a layer in each dtype; its values need all of the dtype's bits and range."""
    entries = []
    for number, dtype in enumerate(dtypes):
        third = 1 / 3 if dtype == torch.float64 else 1.0  # draws have the bits of a float32
        wide = 1e20 if dtype == torch.bfloat16 else 1.0
        for name, shape in (("lora_B", (OUT, RANK)), ("lora_A", (RANK, IN)), ("bias", (OUT,))):
            value = draw(*shape, dtype=dtype) * third * wide
            entries.append((f"layer{number}.{name}", "parameter", value))
    return entries


@part("dtype")
def test_dtypes_are_kept(stage, draw):
    """float32, float64, float16 and bfloat16 are saved and loaded as such, mixed ones too."""
    for dtypes in (DTYPES[:3], DTYPES):
        entries = typed(draw, *dtypes)
        want = factors(entries)
        numpy = "through-numpy" if torch.bfloat16 in dtypes else None
        with blame(numpy, "BFloat16", "bfloat16"):
            got = saved(stage, entries)
        hold_values(got, want, "the file", cast(got, want))
        with blame(numpy, "BFloat16", "bfloat16"):
            _, after = stage(loading, others(draw, entries), as_file(want), FILE, False)
        hold_values(after["values"], want, "the model after loading")


@part("dtype")
def test_integer_buffers(stage, draw):
    """A factor stored as integers is saved and loaded like any other."""
    codes = draw.integers(0, 100, RANK, IN).to(torch.int8)
    wide = draw.integers(2**30, 2**31 - 1, OUT, RANK).to(torch.int32)
    entries = [("q.lora_A", "buffer", codes), ("q.lora_B", "parameter", draw(OUT, RANK))]
    entries += [("v.lora_B", "buffer", wide)]
    want = factors(entries)
    hold_values(saved(stage, entries), want, "the file")
    _, after = stage(loading, others(draw, entries), as_file(want), FILE, False)
    hold_values(after["values"], want, "the model after loading")


# errors


def refusals(kata, entries, files):
    """For each file: what loading it raised, and pictures of the model before and after."""
    import tempfile

    seen = []
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(files):
            path = located(folder, f"{number}.safetensors", False)
            with open(path, "wb") as file:
                file.write(data)
            model = build(entries)
            before, raised = picture(model), None
            try:
                kata.load_adapter(model, path)
            except Exception as error:
                types = [f"{c.__module__}.{c.__qualname__}" for c in type(error).__mro__]
                raised = types, str(error)
            seen.append((raised, before, picture(model)))
    return seen


def refused(stage, entries, cases, find_bug):
    """Each file of `cases`, (what it is, names, values), raises ValueError naming one of the names
    and leaves the model as it was. find_bug(outcomes, models) names the mistake if one does not.
    """
    seen = stage(refusals, entries, [as_file(values) for _, _, values in cases])
    outcomes = [raised and Raised(*raised) for raised, _, _ in seen]
    bug = find_bug(outcomes, [after["values"] for *_, after in seen])
    for (what, names, values), outcome, (_, before, after) in zip(cases, outcomes, seen):
        text, kinds = (outcome.text, outcome.types) if outcome else ("", ())
        if "builtins.RuntimeError" in kinds and "Error(s) in loading state_dict" in text:
            fail(f"{what} must raise ValueError, not RuntimeError: {text}", "left-to-torch")
        if "builtins.KeyError" in kinds and any(name in text for name in names):
            fail(f"{what} must raise ValueError, not KeyError: {text}", "key-error")
        if "builtins.AssertionError" in kinds:
            fail(f"{what} must raise ValueError, not AssertionError: {text}", "other-exception")
        if kinds and "builtins.ValueError" not in kinds and any(name in text for name in names):
            other = kinds[0].rpartition(".")[2]
            fail(f"{what} must raise ValueError, not {other}: {text}", "other-exception")
        if "builtins.ValueError" in kinds and not any(name in text for name in names):
            story = f"{what} raises ValueError, but the message does not name {names[0]}: {text}"
            # One that names another tensor has found something else amiss.
            others = {*values, *before["values"]} & set(re.findall(r"[\w.]*\w", text))
            fail(story, None if others else "error-without-name")
        rejects(outcome, "ValueError", names, what=what, bug=bug)
        early = [
            name
            for name, value in after["values"].items()
            if name in values and not torch.equal(value, before["values"][name])
        ]
        loaded = early and all(torch.equal(after["values"][n], values[n]) for n in early)
        story = f"{what} raises ValueError, but the model has the file's {', '.join(early)}"
        require(not loaded, story, "changed-before-the-error")
        unchanged(before, after, f"load_adapter refuses {what} but")


def erring(draw):
    """A model, and the values of a file that fits it."""
    entries = [
        ("lora_B", "parameter", draw(OUT, RANK)),
        *plain(draw, "head", "encoder"),
        ("side.lora_B", "buffer", draw(OUT, RANK)),
        ("head.lora_A_old", "parameter", draw(RANK, IN)),
        ("stacked.lora_A", "frozen", draw(4, RANK, IN)),
        ("body.4.q.lora_A", "parameter", draw(RANK, IN)),
        ("thin.lora_B", "parameter", draw(OUT)),
        ("cache.lora_A", "hidden", draw(RANK, IN)),
    ]
    return entries, factors(others(draw, entries))


@part("errors")
def test_missing_tensor(stage, draw):
    """A factor that the file lacks: ValueError naming it, and the model is left as it was."""
    entries, values = erring(draw)
    cases = [
        (f"a file without {name}", (name,), {n: v for n, v in values.items() if n != name})
        for name in values
    ]
    cases.append(("a file without any tensor", tuple(values), {}))

    def find_bug(outcomes, models):
        return None if any(outcomes) else "missing-ignored"

    refused(stage, entries, cases, find_bug)


@part("errors")
def test_extra_tensor(stage, draw):
    """A tensor too many in the file: ValueError naming it, and the model is left as it was."""
    entries, values = erring(draw)
    extra = ("zzz.lora_A", "aaa.lora_B", "head.base.lora_A", "other.weight", "head.lora_B_old")
    extra += ("bonus", "head.scale", "cache.lora_A")
    cases = [
        (f"a file with {name} too", (name,), {**values, name: draw(RANK, IN)}) for name in extra
    ]

    def find_bug(outcomes, models):
        if not any(outcomes):
            return "extra-ignored"
        found = {name for name, outcome in zip(extra, outcomes) if outcome}
        rules = {n for n in extra if n[-6:-1] == "lora_"}, {n for n in extra if "lora" in n}
        return "extra-filtered" if found in rules else None

    refused(stage, entries, cases, find_bug)
    bare = [entry for entry in entries if entry[0] not in values]
    case = ("a file with factors, for a model that has none,", tuple(values), values)
    refused(stage, bare, [case], lambda outcomes, models: None)


@part("errors")
def test_tensor_that_is_no_factor(stage, draw):
    """An entry of the model that is no factor is one too many in the file."""
    entries, values = erring(draw)
    shapes = {name: value.shape for name, _, value in entries}
    names = ("head.base.weight", "encoder.base.bias", "head.lora_A_old")
    cases = [
        (f"a file with {name} too", (name,), {**values, name: draw(*shapes[name])})
        for name in names
    ]

    def find_bug(outcomes, models):
        pairs = zip(names, cases, models)
        written = all(torch.equal(model[n], case[2][n]) for n, case, model in pairs)
        return "base-overwritten" if written and not any(outcomes) else None

    refused(stage, entries, cases, find_bug)


@part("errors")
def test_renamed_tensor(stage, draw):
    """A factor under another name: ValueError naming either, and the model is left as it was."""
    entries, values = erring(draw)
    cases = []
    for name, other in (("head.lora_A", "tail.lora_A"), ("encoder.lora_B", "coder.lora_B")):
        renamed = {other if n == name else n: v for n, v in values.items()}
        cases.append((f"a file with {other} for {name}", (name, other), renamed))

    def find_bug(outcomes, models):
        fewer = dict(list(values.items())[1:])
        counted = not any(outcomes) and stage(refusals, entries, [as_file(fewer)])[0][0]
        return "counts-compared" if counted else None

    refused(stage, entries, cases, find_bug)


@part("errors")
def test_misshaped_tensor(stage, draw):
    """A tensor of another shape: ValueError naming it, and the model is left as it was."""
    entries, values = erring(draw)
    cases = []
    for name, value in values.items():
        rows, columns = value.shape[0], value.shape[-1]
        shapes = [(1, *value.shape[1:]), (rows + 1, *value.shape[1:])]
        if name.startswith("head"):
            shapes += [(rows, columns + 1), (rows, 1), (rows * columns,), (columns, rows)]
            shapes += [(1, rows, columns), (rows, columns, 1)]
        for shape in shapes:
            text = f"a file with {name} of shape {shape}, not {tuple(value.shape)},"
            cases.append((text, (name,), {**values, name: draw(*shape)}))
    old = {name: value for name, _, value in entries}

    def find_bug(outcomes, models):
        # No check was made: a copy into the factor failed, or the factor was written.
        words = ("The size of tensor", "broadcast shape")
        unseen = [
            any(word in outcome.text for word in words)
            if outcome
            else not torch.equal(model[names[0]], old[names[0]])
            for outcome, model, (_, names, _) in zip(outcomes, models, cases)
        ]
        spread = [
            file[n[0]].ndim == model[n[0]].ndim
            and 1 in file[n[0]].shape
            and torch.equal(model[n[0]], file[n[0]].expand_as(model[n[0]]))
            for model, (_, n, file) in zip(models, cases)
        ]
        sizes = [file[n[0]].numel() == values[n[0]].numel() for _, n, file in cases]
        if all(unseen):
            return "shapes-unchecked"
        if any(spread) and unseen == spread:
            return "broadcast-accepted"
        return "sizes-compared" if unseen == sizes else None

    refused(stage, entries, cases, find_bug)


# cost


@part("cost")
def test_file_is_small(stage, draw):
    """The file's size is that of the adapter, not of the model."""
    wide = 128
    entries = [
        ("embedding.weight", "frozen", draw(4 * wide, wide)),
        ("head.lora_A", "parameter", draw(RANK, wide)),
        ("head.lora_B", "sliced", draw(OUT, RANK)),
    ]
    got = stage(saving, [entries], FILE, False)
    require(got["data"] is not None, f"there is no file at the path; there are: {got['there']}")
    size = len(got["data"])
    adapter = sum(v.numel() * v.element_size() for v in factors(entries).values())
    text = f"the file takes {size} bytes for factors of {adapter} bytes"
    require(size < adapter + 16_384, text)


# gpu


def on_device(kata, entries, target, device):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = located(folder, FILE, False)
        source = build(entries).to(device)
        kata.save_adapter(source, path)
        with open(path, "rb") as file:
            data = file.read()
        model = build(target).to(device)
        before = picture(model)
        kata.load_adapter(model, path)
        both = [*source.state_dict().values(), *model.state_dict().values()]
        return data, before, picture(model), sorted({value.device.type for value in both})


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """A model on the accelerator is saved and loaded like any other, and stays there."""
    entries = [*typed(draw, *DTYPES), ("side.lora_A", "turned", draw(RANK, IN))]
    want = factors(entries)
    data, before, after, places = stage(on_device, entries, others(draw, entries), stage.device)
    hold_values(decoded(data), want, "the file")
    hold_values(after["values"], want, "the model after loading")
    unchanged(before, after, "load_adapter", frozenset(want))
    require(places == [stage.device], f"after saving and loading tensors are on {places}")
