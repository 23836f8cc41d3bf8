"""What is checked of `switch_adapter`. Contract: LoRA (Hu et al. 2021), section 4.1."""

import torch

from grader.exam.checks import (
    LearnerRaised,
    Raised,
    blame,
    near,
    part,
    rejects,
    require,
    same,
)
from grader.exam.kit import linear, need, nn

OUT, IN = 12, 18
SCALES = {"red": 2.4837, "blue": 0.4172, "green": -16 / 3}


def factors(draw, rank, scale, out=OUT, width=IN, dtype=torch.float32):
    """(A, B, scale) of one adapter."""
    A, B = draw(rank, width, std=0.4, dtype=dtype), draw(out, rank, std=0.6, dtype=dtype)
    return A, B, scale


def pieces(draw, dtype=torch.float32, width=IN, scales=SCALES):
    """weight, bias, and (A, B, scale) by name; every rank is another."""
    adapters = {
        name: factors(draw, rank, scale, width=width, dtype=dtype)
        for rank, (name, scale) in enumerate(scales.items(), 2)
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
    need(switcher, "active")
    seen = []
    for name in names:
        switcher.activate(name)
        given = x.clone().requires_grad_()
        y = layer(given)
        y.sum().backward()  # the layer still trains
        layer.weight.grad = None
        seen.append(
            {
                "weight": layer.weight.detach().clone(),
                "bias": None if layer.bias is None else layer.bias.detach().clone(),
                "active": switcher.active,
                "same": layer.weight is kept,
                "leaf": layer.weight.is_leaf,
                "flag": layer.weight.requires_grad == flag,
                "y": y.detach(),
            }
        )
    return seen


def _switch(stage, draw, *names, dtype=torch.float32):
    W, b, adapters = pieces(draw, dtype)
    x = draw(4, IN, dtype=dtype)
    seen = stage(switching, W, b, adapters, list(names), x)
    return W, adapters, seen, (b, x)


# init


def untouched(kata, weight, bias, adapters):
    layer, switcher = make(kata, weight, bias, adapters)
    return layer.weight, layer.bias, need(switcher, "active"), layer.weight.requires_grad


@part("init")
def test_starts_without_an_adapter(stage, draw):
    """A new switcher has active None, and making it or registering changes no weight."""
    W, b, adapters = pieces(draw)
    weight, bias, active, flag = stage(untouched, W, b, adapters)
    green = torch.allclose(weight.double(), W.double() + update(adapters, "green"), atol=1e-3)
    known = "register-activates" if green or active == "green" else None
    same(weight, W, "linear.weight after register()", known)
    same(bias, b, "linear.bias after register()")
    require(active is None, f"active is {active!r} before any activate()", known)
    require(flag, "linear.weight no longer requires a gradient", "requires-grad-changed")


# merge


@part("merge")
def test_activate_adds_the_update(stage, draw):
    """activate(name) makes linear.weight W0 + scale * lora_B @ lora_A of that adapter."""
    with blame("recorded-by-autograd", "leaf Variable"):  # only W and b require gradients here
        W, adapters, seen, (b, x) = _switch(stage, draw, "red")
    got, plain = seen[0], W.double()
    right = plain + update(adapters, "red")
    near(
        got["weight"],
        right,
        what="linear.weight after activate('red')",
        unless={
            "scale-missing": plain + update(adapters, "red") / SCALES["red"],
            "scale-squared": plain + update(adapters, "red") * SCALES["red"],
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
    W, adapters, seen, _ = _switch(stage, draw, *names)
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
    _, _, seen, _ = _switch(stage, draw, *names)
    for name, got in zip(names, seen):
        text = f"active is {got['active']!r} after activate({name!r})"
        known = "active-stays" if got["active"] in (None, *SCALES) else None
        require(got["active"] == name, text, known)


def none_first(kata, weight, bias, adapter):
    layer = linear(weight, bias)
    switcher = kata.AdapterSwitcher(layer)
    switcher.activate(None)
    seen = [layer.weight.detach().clone()]
    switcher.register("red", *adapter)
    for name in (None, "red", None):
        switcher.activate(name)
        seen.append(layer.weight.detach().clone())
    return seen, switcher.active


@part("merge")
def test_none_where_none_is_active(stage, draw):
    """activate(None) where no adapter is active, or none is registered, changes nothing."""
    W, adapters, *_ = _switch(stage, draw, "red", None)
    with blame("none-at-none-fails"):
        seen, active = stage(none_first, W, draw(OUT), adapters["red"])
    for got in (seen[0], seen[1], seen[3]):
        same(got, W, "linear.weight at None")
    near(seen[2], W.double() + update(adapters, "red"), what="linear.weight at 'red'")
    require(active is None, f"active is {active!r} at None")


@part("merge")
def test_back_at_none_to_the_bit(stage, draw):
    """Back at None the weight is bit-identical to the original, after any number of switches."""
    names = ("red", None, "blue", "red", "green", "blue", None, None) * 3
    for dtype in (torch.float32, torch.bfloat16):
        W, adapters, seen, _ = _switch(stage, draw, *names, dtype=dtype)
        for number, (name, got) in enumerate(zip(names, seen)):
            if name is not None:
                what = f"linear.weight at {name!r} after {number} switches ({str(dtype)[6:]})"
                near(got["weight"], W.double() + update(adapters, name), what=what, dtype=dtype)
                continue
            off = float((got["weight"].double() - W.double()).abs().max())
            bug = "subtracts-the-update" if dtype == torch.float32 and off < 1e-4 else None
            if names[number - 1] and torch.equal(got["weight"], seen[number - 1]["weight"]):
                bug = "none-keeps-the-update"
            what = f"linear.weight at None after {number} switches ({str(dtype)[6:]})"
            same(got["weight"], W, what, bug)


@part("merge")
def test_scales_of_any_size(stage, draw):
    """An update of any size leaves nothing behind: not at another adapter, not at None."""
    scales = {"loud": 1e5, "quiet": 0.4, "down": -30000, "idle": 0.0, "faint": 3e-6, "huge": 3e6}
    names = ("quiet", "loud", "quiet", "down", "idle", "quiet", "faint", "loud", None, "huge")
    names += ("quiet", "idle", None)
    W, b, adapters = pieces(draw, scales=scales)
    A, B, scale = adapters["faint"]
    adapters["faint"] = 1e3 * A, 1e3 * B, scale
    seen = stage(switching, W, b, adapters, list(names), draw(4, IN))
    largest, before = 0.0, None
    for name, got in zip(names, seen):
        plain = W.double()
        right = plain if name is None else plain + update(adapters, name)
        off = float((got["weight"].double() - right).abs().max())
        # What adding and taking out the largest update so far costs in rounding, at most.
        bug = "subtracts-the-update" if off < 2**-20 * largest else None
        what = f"linear.weight at {name!r} after {before!r}"
        if name is None:
            same(got["weight"], W, what, bug)
        else:
            largest = max(largest, float(update(adapters, name).abs().max()))
            near(got["weight"], right, what=what, bug=bug)
        require(got["active"] == name, f"active is {got['active']!r} after activate({name!r})")
        before = name


NAMES = ("red", "", "None", "", None, "Red", " red", "a.b/c", "active", "linear", "weight")
NAMES += ("\u00e9", "e\u0301", "\u6f22")  # two forms of one letter: two names
NAMES += ("a_b/c", "7", "07", "x" * 70 + "1", "x" * 70 + "2", None, "red")


@part("merge")
def test_names_are_any_strings(stage, draw):
    """A name is any string: "", "None" and "a.b" too; no two of them are the same."""
    scales = {
        name: 1.0 + 0.1 * i for i, name in enumerate(dict.fromkeys(NAMES)) if name is not None
    }
    W, b, adapters = pieces(draw)
    x = draw(4, IN)
    stage(switching, W, b, adapters, ["red", None, "red"], x)
    adapters = {name: factors(draw, 2, scale) for name, scale in scales.items()}
    with blame("names-as-attributes", 'contain "."', "empty string", "already exists"):
        seen = stage(switching, W, b, adapters, list(NAMES), x)
    before = None
    for name, got in zip(NAMES, seen):
        what = f"linear.weight at {name!r} after {before!r}"
        if name is None:
            same(got["weight"], W, what)
        else:
            left_out = {"empty-name-is-none": W.double()} if name == "" else {}
            near(got["weight"], W.double() + update(adapters, name), what=what, unless=left_out)
        known = "empty-name-is-none" if name == "" and got["active"] is None else None
        require(got["active"] == name, f"active is {got['active']!r} at {name!r}", known)
        before = name


@part("merge")
def test_weight_stays_the_same_parameter(stage, draw):
    """linear.weight is the same Parameter throughout, a leaf, its requires_grad as it was."""
    _, _, seen, (b, _) = _switch(stage, draw, "red", "blue", None)
    for got in seen:
        require(got["same"], "linear.weight is another object after a switch", "new-parameter")
        require(got["leaf"], "linear.weight carries a gradient graph", "recorded-by-autograd")
        require(got["flag"], "requires_grad of linear.weight has changed", "requires-grad-changed")
        same(got["bias"], b, "linear.bias")


def kept(kata, weight, bias, adapters):
    given = {name: (A.clone(), B.clone(), scale) for name, (A, B, scale) in adapters.items()}
    with torch.no_grad():
        _, switcher = make(kata, weight, bias, given)
        for name in (*given, None):
            switcher.activate(name)
        left_on = torch.is_grad_enabled()
    return given, left_on


@part("merge")
def test_factors_are_left_alone(stage, draw):
    """The factors passed to register() are not changed."""
    W, b, adapters = pieces(draw)
    given, left_on = stage(kept, W, b, adapters)
    require(not left_on, "calls under no_grad() leave grad mode on")
    for name, (A, B, _) in adapters.items():
        same(given[name][0], A, f"lora_A of {name!r}", "factors-changed-in-place")
        same(given[name][1], B, f"lora_B of {name!r}", "factors-changed-in-place")


def frozen(kata, weight, bias, adapters):
    layer = linear(weight, bias)
    early = kata.AdapterSwitcher(layer)  # made before the layer is frozen
    layer.requires_grad_(False)
    late = kata.AdapterSwitcher(layer)
    flags, given = [], []
    for switcher in (late, early):
        for name, (A, B, scale) in adapters.items():
            given += [nn.Parameter(A.clone()), B.clone().requires_grad_()]
            switcher.register(name, *given[-2:], scale)
            switcher.activate(name)
            flags.append((layer.weight.requires_grad, layer.weight.is_leaf))
        switcher.activate(None)
        flags.append((layer.weight.requires_grad, layer.weight.is_leaf))
    return flags, layer.weight, all(factor.requires_grad for factor in given)


@part("merge")
def test_frozen_weight_stays_frozen(stage, draw):
    """A frozen weight stays frozen, also where the factors require gradients."""
    W, b, adapters = pieces(draw)
    flags, weight, train = stage(frozen, W, b, adapters)
    for flag, leaf in flags:
        require(leaf, "linear.weight carries a gradient graph", "recorded-by-autograd")
        require(not flag, "a frozen linear.weight requires a gradient", "requires-grad-changed")
    same(weight, W, "linear.weight, back at None")
    text = "a factor that required a gradient no longer does after register() and activate()"
    require(train, text, "factors-frozen")


@part("merge")
def test_layer_without_bias(stage, draw):
    """A layer without bias is switched like any other."""
    W, b, adapters = pieces(draw)
    x, names = draw(4, IN), ["red", "blue", None]
    stage(switching, W, b, adapters, names, x)
    with blame("needs-a-bias", "NoneType"):
        seen = stage(switching, W, None, adapters, names, x)
    right = W.double() + update(adapters, "blue")
    near(seen[1]["weight"], right, what="linear.weight at 'blue', no bias,")
    same(seen[2]["weight"], W, "linear.weight at None, no bias,")


def by_keyword(kata, weight, A, B, scale, turned):
    layer = linear(weight)
    if turned:  # in memory column by column
        A, B = (factor.T.contiguous().T for factor in (A, B))
        layer.weight = nn.Parameter(weight.T.contiguous().T)
    switcher = kata.AdapterSwitcher(linear=layer)
    switcher.register(name="red", lora_A=A, lora_B=B, scale=scale)
    switcher.activate(name="red")
    red = layer.weight.detach().clone()
    switcher.activate(name=None)
    return red, layer.weight


@part("merge")
def test_layers_and_ranks_of_every_size(stage, draw):
    """Square layers, layers of one feature, rank 1 and ranks above both sizes are as any other, and
    so are weights and factors that are not contiguous."""
    sizes = ((12, 12, 12), (12, 12, 3), (12, 12, 1), (1, 18, 1), (12, 1, 2), (5, 7, 9), (6, 8, 70))
    turned = ((5, 7, 3), (12, 12, 4))
    for out, width, rank in (*sizes, *turned):
        W = draw(out, width)
        A, B, scale = factors(draw, rank, 1.5, out, width)
        strided = (out, width, rank) in turned
        what = f"linear.weight {(out, width)}{' not contiguous,' * strided} at rank {rank}"
        try:
            red, back = stage(by_keyword, W, A, B, scale, strided)
        except LearnerRaised as error:
            outcome = stage.attempt(by_keyword, W, A, B, scale, strided)
            if isinstance(outcome, Raised) and outcome.deliberate:
                error.bug = "fitting-factors-refused" if "ValueError" in outcome.types[0] else None
            raise
        plain, product = W.double(), B.double() @ A.double()
        known = {}
        if out == width > 1:
            known["product-transposed"] = plain + scale * product.T
        if out == width == rank > 1:
            known["product-swapped"] = plain + scale * A.double() @ B.double()
        near(red, plain + scale * product, what=what, unless=known)
        same(back, W, f"{what}, back at None,")


def two_layers(kata, weight, bias, adapters):
    first, one = make(kata, weight, bias, adapters)
    other = {name: (A, B, scale + 1) for name, (A, B, scale) in adapters.items()}
    second, two = make(kata, 2 * weight, bias, other)
    one.activate("red")
    red = first.weight.detach().clone()
    two.activate("blue")
    one.activate(None)
    left = red, first.weight.detach().clone(), second.weight.detach().clone()
    with torch.no_grad():
        first.weight.mul_(3)
    later = kata.AdapterSwitcher(first)  # has the layer's new weight for its original
    later.register("red", *adapters["red"])
    later.activate("red")
    tripled = first.weight.detach().clone()
    later.activate(None)
    return *left, one.active, two.active, tripled, first.weight


@part("merge")
def test_switchers_are_independent(stage, draw):
    """Switchers share nothing: two layers' nor, one after another, those of one layer."""
    W, b, adapters = pieces(draw)
    red, first, second, one, two, tripled, back = stage(two_layers, W, b, adapters)
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
    what = "the weight of a layer with a second switcher, made after the weight was changed,"
    near(tripled, 3 * plain + own, what=f"{what} at 'red'", unless={shared: plain + own})
    same(back, 3 * W, f"{what} back at None", shared if torch.equal(back, W) else None)


def later(kata, weight, bias, adapters):
    layer, switcher = make(kata, weight, bias, {"red": adapters["red"]})
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
    """Registering another adapter while one is active changes nothing yet."""
    W, b, adapters = pieces(draw)
    during, after, back, active = stage(later, W, b, adapters)
    known = {"register-activates": W.double() + update(adapters, "blue")}
    red = W.double() + update(adapters, "red")
    near(during, red, what="linear.weight after register('blue') at 'red'", unless=known)
    reset = "register-resets-active" if active is None else None
    require(active == "red", f"active is {active!r} after register('blue') at 'red'", reset)
    blue = W.double() + update(adapters, "blue")
    known = {"original-taken-late": red + update(adapters, "blue")}
    near(after, blue, what="linear.weight at 'blue' then", unless=known)
    late = torch.allclose(back.double(), red, atol=1e-3)
    same(back, W, "linear.weight back at None", "original-taken-late" if late else None)


# dtype


@part("dtype")
def test_float64(stage, draw):
    """A float64 weight stays float64; updates are exact to 1e-9."""
    W, adapters, seen, _ = _switch(stage, draw, "red", None, dtype=torch.float64)
    want = W + update(adapters, "red")
    near(seen[0]["weight"], want, what="linear.weight at 'red'", dtype=torch.float64)
    same(seen[1]["weight"], W, "linear.weight back at None")


@part("dtype")
def test_16_bits(stage, draw):
    """A bfloat16 weight stays bfloat16, a float16 weight float16."""
    for dtype in (torch.bfloat16, torch.float16):
        W, adapters, seen, _ = _switch(stage, draw, "red", "blue", None, dtype=dtype)
        for got, name in zip(seen, ("red", "blue")):
            want = W.double() + update(adapters, name)
            near(got["weight"], want, what=f"linear.weight at {name!r}", dtype=dtype)
        same(seen[2]["weight"], W, "linear.weight back at None")


# errors


def unknown(kata, weight, bias, adapters, first, name, look):
    layer, switcher = make(kata, weight, bias, adapters)
    switcher.activate(first)
    before = layer.weight.detach().clone()
    if not look:
        switcher.activate(name)
    end_of(switcher.activate, name)
    return before, layer.weight, switcher.active


@part("errors")
def test_unknown_name(stage, draw):
    """An unknown name raises KeyError naming it; weight and active stay as they were."""
    W, b, adapters = pieces(draw)
    for first in (None, "red"):
        stage(switching, W, b, adapters, [first], draw(4, IN))  # what fails there too says nothing
        outcome = stage.attempt(unknown, W, b, adapters, first, "violet", False)
        rejects(outcome, "KeyError", "violet", what="activate('violet')", bug="unknown-ignored")
        before, weight, active = stage(unknown, W, b, adapters, first, "violet", True)
        taken_out = first is not None and torch.allclose(weight, W, atol=1e-4)
        known = "changed-before-the-error" if taken_out else None
        same(weight, before, "linear.weight after the KeyError", known)
        text = f"active is {active!r} after the KeyError, it was {first!r}"
        require(active == first, text, "active-before-the-check" if active == "violet" else None)
    outcome = stage.attempt(unknown, W, b, {}, None, "violet", False)
    rejects(outcome, "KeyError", "violet", what="activate('violet') where none is registered")
    near_names = ("re", "Red", "RED", "red ", "base", "none", "None", "default", "0")
    for name, end in zip(near_names, stage(strays, W, b, adapters, near_names)):
        require(end == "KeyError", f"activate({name!r}), not registered: {end}, expected KeyError")
    outcome = stage.attempt(unknown, W, b, adapters, "red", "", False)
    off = not isinstance(outcome, Raised) and torch.allclose(outcome[1], W, atol=1e-4)
    known = "empty-name-is-none" if off else None
    rejects(outcome, "KeyError", what="activate(''), a name not registered,", bug=known)
    before, weight, active = stage(unknown, W, b, adapters, "red", "", True)
    same(weight, before, "linear.weight after the KeyError of activate('')")
    require(active == "red", f"active is {active!r} after the KeyError, it was 'red'")


def strays(kata, weight, bias, adapters, names):
    _, switcher = make(kata, weight, bias, adapters)
    return [end_of(switcher.activate, name, among=KeyError) for name in names]


def misfit(kata, weight, bias, good, a_shape, b_shape, look):
    layer, switcher = make(kata, weight, bias, {"red": good})
    switcher.activate("red")
    red = layer.weight.detach().clone()
    A, B = torch.ones(a_shape), torch.ones(b_shape)
    if not look:
        switcher.register("odd", A, B, 1.0)
    end_of(switcher.register, "odd", A, B, 1.0)
    left = layer.weight.detach().clone(), switcher.active
    return red, left, [end_of(switcher.activate, name) for name in ("violet", "odd")]


def end_of(call, *args, among=()):
    """The name of the exception that it raises (one of `among`: of that), or "accepted"."""
    try:
        call(*args)
    except among:
        return among.__name__
    except Exception as error:
        return type(error).__name__
    return "accepted"


@part("errors")
def test_factors_that_do_not_fit(stage, draw):
    """Factors that do not fit the layer or each other raise ValueError; nothing is registered."""
    for width, a_shape, b_shape in (
        (IN, (3, IN + 1), (OUT, 3)),
        (IN, (3, IN), (OUT + 1, 3)),
        (IN, (3, IN), (OUT, 2)),
        (IN, (IN, 3), (3, OUT)),
        (IN, (IN, 3), (OUT, 3)),
        (IN, (3, IN), (3, OUT)),
        (IN, (3, OUT), (IN, 3)),
        (IN, (OUT, 3), (3, IN)),
        (IN, (3, 1), (OUT, 3)),
        (IN, (3, IN), (1, 3)),
        (IN, (1, IN), (OUT, 3)),
        (IN, (3, IN), (OUT, 1)),
        (OUT, (OUT, 3), (3, OUT)),
        (OUT, (OUT, OUT), (OUT, 3)),
    ):
        W, b, adapters = pieces(draw, width=width)
        given = W, b, adapters["red"], a_shape, b_shape
        outcome = stage.attempt(misfit, *given, False)
        text = f"lora_A {a_shape} and lora_B {b_shape} for a weight {(OUT, width)}"
        rejects(outcome, "ValueError", (), what=text, bug="shapes-unchecked")
        red, (weight, active), (never, then) = stage(misfit, *given, True)
        same(weight, red, "linear.weight after the ValueError")
        require(active == "red", f"active is {active!r} after the ValueError, it was 'red'")
        text = "an adapter that was refused is not as unknown as one never registered"
        require(never == then, text, "registered-before-the-error")


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
