"""What is checked of `switch_adapter`. Contract: LoRA (Hu et al. 2021), section 4.1."""

import torch

from grader.exam.checks import blame, near, part, rejects, require, same
from grader.exam.kit import linear, need

OUT, IN = 12, 18
SCALES = {"red": 2.5, "blue": 0.4, "green": -1.5}


def pieces(draw, dtype=torch.float32, width=IN):
    """weight, bias, and (A, B, scale) by name; every rank is another."""
    adapters = {
        name: (
            draw(rank, width, std=0.4, dtype=dtype),
            draw(OUT, rank, std=0.6, dtype=dtype),
            scale,
        )
        for rank, (name, scale) in enumerate(SCALES.items(), 2)
    }
    return draw(OUT, width, dtype=dtype), draw(OUT, dtype=dtype), adapters


def make(kata, weight, bias, adapters):
    layer = linear(weight, bias)
    switcher = kata.AdapterSwitcher(layer)
    for name, (A, B, scale) in adapters.items():
        switcher.register(name, A, B, scale)
    return layer, switcher


def update(adapters, name):
    A, B, scale = adapters[name]
    return scale * (B.double() @ A.double())


def switching(kata, weight, bias, adapters, names, x):
    """What is there after each switch."""
    layer, switcher = make(kata, weight, bias, adapters)
    kept, flag = layer.weight, layer.weight.requires_grad
    born = need(switcher, "active")
    seen = []
    for name in names:
        switcher.activate(name)
        seen.append(
            {
                "weight": layer.weight.detach().clone(),
                "bias": layer.bias.detach().clone(),
                "active": switcher.active,
                "same": layer.weight is kept,
                "leaf": layer.weight.is_leaf,
                "flag": layer.weight.requires_grad == flag,
                "y": layer(x).detach().clone(),
            }
        )
    return born, seen


def _switch(stage, draw, *names, dtype=torch.float32):
    W, b, adapters = pieces(draw, dtype)
    x = draw(4, IN, dtype=dtype)
    born, seen = stage(switching, W, b, adapters, list(names), x)
    return W, adapters, born, seen, (b, x)


# init


def untouched(kata, weight, bias, adapters):
    layer, switcher = make(kata, weight, bias, adapters)
    return layer.weight, layer.bias, need(switcher, "active"), layer.weight.requires_grad


@part("init")
def test_starts_without_an_adapter(stage, draw):
    """A new switcher has active None, and making it or registering changes no weight."""
    W, b, adapters = pieces(draw)
    weight, bias, active, flag = stage(untouched, W, b, adapters)
    known = "register-activates" if not torch.equal(weight, W) or active else None
    same(weight, W, "linear.weight after register()", known)
    same(bias, b, "linear.bias after register()")
    require(active is None, f"active is {active!r} before any activate()", known)
    require(flag, "linear.weight no longer requires a gradient", "requires-grad-changed")


# merge


@part("merge")
def test_activate_adds_the_update(stage, draw):
    """activate(name) makes linear.weight W0 + scale * lora_B @ lora_A of that adapter."""
    W, adapters, _, seen, (b, x) = _switch(stage, draw, "red")
    got, plain = seen[0], W.double()
    right = plain + update(adapters, "red")
    near(
        got["weight"],
        right,
        what="linear.weight after activate('red')",
        unless={
            "scale-missing": plain + update(adapters, "red") / 2.5,
            "scale-squared": plain + update(adapters, "red") * 2.5,
            "update-subtracted": plain - update(adapters, "red"),
            "base-dropped": update(adapters, "red"),
            "nothing-merged": plain,
            "last-registered": plain + update(adapters, "green"),
            "all-merged": plain + sum(update(adapters, name) for name in SCALES),
        },
    )
    near(got["y"], x.double() @ right.T + b.double(), what="the output with 'red' active")
    same(got["bias"], b, "linear.bias")


@part("merge")
def test_at_most_one_is_active(stage, draw):
    """Another activate() takes the first update out; the same one again changes nothing."""
    names = ("red", "blue", "blue", "green", "red")
    W, adapters, _, seen, _ = _switch(stage, draw, *names)
    plain, before = W.double(), None
    for name, got in zip(names, seen):
        right = plain + update(adapters, name)
        known = {}
        if before == name:
            known = {"again-merged-twice": right + update(adapters, name), "again-toggles": plain}
        elif before is not None:
            known = {"old-one-stays": right + update(adapters, before)}
        near(got["weight"], right, what=f"linear.weight at {name!r} after {before!r}", unless=known)
        before = name


@part("merge")
def test_active_tells_the_adapter(stage, draw):
    """active is the name of the adapter that is merged, or None."""
    names = ("red", "blue", None, None, "green", None)
    *_, seen, _ = _switch(stage, draw, *names)
    for name, got in zip(names, seen):
        text = f"active is {got['active']!r} after activate({name!r})"
        known = "active-stays" if got["active"] in (None, *SCALES) else None
        require(got["active"] == name, text, known)


@part("merge")
def test_back_at_none_to_the_bit(stage, draw):
    """Back at None the weight is bit-identical to the original, after any number of switches."""
    names = ("red", None, "blue", "red", "green", "blue", None, None) * 3
    for dtype in (torch.float32, torch.bfloat16):
        W, _, _, seen, _ = _switch(stage, draw, *names, dtype=dtype)
        for number, (name, got) in enumerate(zip(names, seen)):
            if name is not None:
                continue
            rounding = 1e-4 if dtype == torch.float32 else 0.3
            close = float((got["weight"].double() - W.double()).abs().max()) < rounding
            bug = "subtracts-the-update" if close else None
            if names[number - 1] and torch.equal(got["weight"], seen[number - 1]["weight"]):
                bug = "none-keeps-the-update"
            same(got["weight"], W, f"linear.weight at None after {number} switches ({dtype})", bug)


@part("merge")
def test_weight_stays_the_same_parameter(stage, draw):
    """linear.weight is the same Parameter throughout, a leaf, its requires_grad as it was."""
    *_, seen, _ = _switch(stage, draw, "red", "blue", None)
    for got in seen:
        require(got["same"], "linear.weight is another object after a switch", "new-parameter")
        require(got["leaf"], "linear.weight carries a gradient graph", "recorded-by-autograd")
        require(got["flag"], "requires_grad of linear.weight has changed", "requires-grad-changed")


def frozen(kata, weight, bias, adapters):
    layer = linear(weight, bias).requires_grad_(False)
    switcher = kata.AdapterSwitcher(layer)
    flags, given = [], []
    for name, (A, B, scale) in adapters.items():
        given += [(factor.requires_grad_(), factor.detach().clone()) for factor in (A, B)]
        switcher.register(name, A, B, scale)
        switcher.activate(name)
        flags.append((layer.weight.requires_grad, layer.weight.is_leaf))
    switcher.activate(None)
    flags.append((layer.weight.requires_grad, layer.weight.is_leaf))
    return flags, layer.weight, all(f.requires_grad and torch.equal(f, was) for f, was in given)


@part("merge")
def test_frozen_weight_stays_frozen(stage, draw):
    """A frozen weight stays frozen, also where the factors require gradients."""
    W, b, adapters = pieces(draw)
    with blame("recorded-by-autograd", "leaf"):
        flags, weight, intact = stage(frozen, W, b, adapters)
    for flag, leaf in flags:
        require(leaf, "linear.weight carries a gradient graph", "recorded-by-autograd")
        require(not flag, "a frozen linear.weight requires a gradient", "requires-grad-changed")
    same(weight, W, "linear.weight, back at None")
    require(intact, "the factors passed to register() were changed, or frozen")


def two_layers(kata, weight, bias, adapters):
    first, one = make(kata, weight, bias, adapters)
    other = {name: (A, B, scale + 1) for name, (A, B, scale) in adapters.items()}
    second, two = make(kata, 2 * weight, bias, other)
    one.activate("red")
    red = first.weight.detach().clone()
    two.activate("blue")
    one.activate(None)
    return red, first.weight, second.weight, one.active, two.active


@part("merge")
def test_switchers_are_independent(stage, draw):
    """Switchers of two layers share nothing."""
    W, b, adapters = pieces(draw)
    red, first, second, one, two = stage(two_layers, W, b, adapters)
    shared, plain = "shared-between-switchers", W.double()
    own = update(adapters, "red")
    other = own * (1 + 1 / SCALES["red"])
    mixed = (plain + other, 2 * plain + own, 2 * plain + other)
    known = shared if any(torch.allclose(red.double(), m, atol=1e-3) for m in mixed) else None
    near(red, plain + own, what="the first layer's weight at its 'red'", bug=known)
    known = shared if torch.equal(first, 2 * W) else None
    same(first, W, "the first layer's weight at None", known)
    want = 2 * plain + update(adapters, "blue") * (1 + 1 / SCALES["blue"])
    near(second, want, what="the second layer's weight")
    require(
        (one, two) == (None, "blue"), f"active is {one!r} and {two!r}; None and 'blue' is right"
    )


def later(kata, weight, adapters):
    layer, switcher = make(kata, weight, None, {"red": adapters["red"]})
    switcher.activate("red")
    switcher.register("blue", *adapters["blue"])
    active = switcher.active
    seen = [layer.weight.detach().clone()]
    switcher.activate("blue")
    seen.append(layer.weight.detach().clone())
    switcher.activate(None)
    return [*seen, layer.weight, active]


@part("merge")
def test_register_while_active(stage, draw):
    """Registering another adapter while one is active changes nothing yet (no bias, a square W)."""
    W, _, adapters = pieces(draw, width=OUT)
    during, after, back, active = stage(later, W, adapters)
    known = {"register-activates": W.double() + update(adapters, "blue")}
    red = W.double() + update(adapters, "red")
    near(during, red, what="linear.weight after register('blue') at 'red'", unless=known)
    require(active == "red", f"active is {active!r} after register('blue') at 'red'")
    blue = W.double() + update(adapters, "blue")
    known = {"original-taken-late": red + update(adapters, "blue")}
    near(after, blue, what="linear.weight at 'blue' then", unless=known)
    late = torch.allclose(back.double(), red, atol=1e-3)
    same(back, W, "linear.weight back at None", "original-taken-late" if late else None)


# dtype


@part("dtype")
def test_float64(stage, draw):
    """A float64 weight stays float64; updates are exact to 1e-9."""
    W, adapters, _, seen, _ = _switch(stage, draw, "red", None, dtype=torch.float64)
    want = W + update(adapters, "red")
    near(seen[0]["weight"], want, what="linear.weight at 'red'", dtype=torch.float64)
    same(seen[1]["weight"], W, "linear.weight back at None")


@part("dtype")
def test_bfloat16(stage, draw):
    """A bfloat16 weight stays bfloat16."""
    W, adapters, _, seen, _ = _switch(stage, draw, "red", "blue", None, dtype=torch.bfloat16)
    for got, name in zip(seen, ("red", "blue")):
        want = W.double() + update(adapters, name)
        near(got["weight"], want, what=f"linear.weight at {name!r}", dtype=torch.bfloat16)


# errors


def unknown(kata, weight, bias, adapters, first, look):
    layer, switcher = make(kata, weight, bias, adapters)
    switcher.activate(first)
    before = layer.weight.detach().clone()
    if not look:
        switcher.activate("violet")
    try:
        switcher.activate("violet")
    except KeyError:
        return before, layer.weight, switcher.active
    return before, layer.weight, switcher.active


@part("errors")
def test_unknown_name(stage, draw):
    """An unknown name raises KeyError naming it; weight and active stay as they were."""
    W, b, adapters = pieces(draw)
    for first in (None, "red"):
        stage(switching, W, b, adapters, [first], draw(4, IN))  # what fails there too says nothing
        outcome = stage.attempt(unknown, W, b, adapters, first, False)
        rejects(outcome, "KeyError", "violet", what="activate('violet')", bug="unknown-ignored")
        before, weight, active = stage(unknown, W, b, adapters, first, True)
        same(weight, before, "linear.weight after the KeyError", "changed-before-the-error")
        text = f"active is {active!r} after the KeyError, it was {first!r}"
        known = "changed-before-the-error" if active in (None, "violet") else None
        require(active == first, text, known)


def misfit(kata, weight, bias, a_shape, b_shape, look):
    layer, switcher = make(kata, weight, bias, {})
    A, B = torch.ones(a_shape), torch.ones(b_shape)
    if not look:
        switcher.register("odd", A, B, 1.0)
    end_of(switcher.register, "odd", A, B, 1.0)
    kept = layer.weight.detach().clone()
    return kept, [end_of(switcher.activate, name) for name in ("violet", "odd")]


def end_of(call, *args):
    """The name of the exception that it raises, or that it raises none."""
    try:
        call(*args)
    except Exception as error:
        return type(error).__name__
    return "accepted"


@part("errors")
def test_factors_that_do_not_fit(stage, draw):
    """Factors that do not fit the layer or each other raise ValueError; nothing is registered."""
    W, b, _ = pieces(draw)
    for a_shape, b_shape in (
        ((3, IN + 1), (OUT, 3)),
        ((3, IN), (OUT + 1, 3)),
        ((3, IN), (OUT, 2)),
        ((IN, 3), (3, OUT)),
        ((3, OUT), (IN, 3)),
        ((3, 1), (OUT, 3)),
        ((3, IN), (1, 3)),
    ):
        outcome = stage.attempt(misfit, W, b, a_shape, b_shape, False)
        text = f"lora_A {a_shape} and lora_B {b_shape} for a weight {(OUT, IN)}"
        rejects(outcome, "ValueError", what=text, bug="shapes-unchecked")
        weight, (never, refused) = stage(misfit, W, b, a_shape, b_shape, True)
        same(weight, W, "linear.weight after the ValueError")
        text = "an adapter that was refused is not as unknown as one never registered"
        require(never == refused, text, "registered-before-the-error")


# gpu


def on_device(kata, weight, bias, adapters, device):
    layer = linear(weight, bias).to(device)
    switcher = kata.AdapterSwitcher(layer)
    for name, (A, B, scale) in adapters.items():
        switcher.register(name, A.to(device), B.to(device), scale)
    switcher.activate("red")
    red = layer.weight.detach().clone()
    switcher.activate(None)
    return red, layer.weight, layer.weight.device.type


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """The weights on the accelerator are those of the CPU, bit-identical back at None."""
    W, b, adapters = pieces(draw)
    red, back, place = stage(on_device, W, b, adapters, stage.device)
    require(place == stage.device, f"linear.weight is on {place}")
    want = W.double() + update(adapters, "red")
    near(red, want, what="linear.weight at 'red'", rtol=1e-3, atol=1e-3)
    same(back, W, "linear.weight back at None")
