"""What is checked of `learnable_prefix`. Contract: Li and Liang 2021; Lester et al. 2021."""

from functools import partial

import torch

from grader.exam.checks import blame, near, part, rejects, require, same, tensor
from grader.exam.kit import CheapMeta, need, set_
from grader.suites.shared import properties

P, D = 4, 6


def make(kata, prefix):
    module = kata.LearnablePrefix(*prefix.shape).to(prefix.dtype)
    set_(module, prefix=prefix)
    return module


def run(kata, prefix, x):
    return make(kata, prefix)(x)


def oracle(prefix, x):
    """The prefix, in x's dtype, before every row of x."""
    return torch.cat([prefix.to(x.dtype).expand(len(x), -1, -1), x], 1)


def slips(prefix, x):
    """What known mistakes make of the output for more than one row."""
    rows = prefix.to(x.dtype).expand(len(x), -1, -1)
    mixed_up = prefix.to(x.dtype).repeat_interleave(len(x), 0).view(rows.shape)
    known = {
        "prefix-after-content": torch.cat([x, rows], 1),
        "prefix-in-first-row-only": torch.cat([torch.cat([rows[:1], 0 * rows[1:]]), x], 1),
    }
    return known | ({"prefix-rows-mixed": torch.cat([mixed_up, x], 1)} if len(prefix) > 1 else {})


def shaped(got, prefix, x, what="the output"):
    """`got` if its shape is right; names the mistakes that show in the shape."""
    shape = tuple(tensor(got, what).shape)
    want = (x.shape[0], len(prefix) + x.shape[1], x.shape[2])
    bug = None
    if shape == tuple(x.shape):
        bug = "length-kept"
    elif shape == (x.shape[0] + len(prefix), x.shape[1], x.shape[2]):
        bug = "joined-along-batch"
    require(shape == want, f"{what} for x {tuple(x.shape)} has shape {shape}, expected {want}", bug)
    return got


# shape


# Batch, length, prefix_len, d_model: one, or some of them the same.
SIZES = [(3, 5, 4, 6), (1, 5, 4, 6), (3, 1, 4, 6), (1, 1, 4, 6), (2, 4, 4, 6), (4, 2, 4, 6)]
SIZES += [(6, 6, 6, 6), (4, 6, 4, 6), (6, 4, 6, 6), (5, 5, 3, 3), (3, 4, 5, 1), (2, 2, 1, 1)]
SIZES += [(6, 2, 4, 5), (9, 20, 70, 5)]


def run_all(kata, prefixes, x):
    return [run(kata, *pair) for pair in zip(prefixes, x)]


@part("shape")
def test_output_shape(stage, draw):
    """(B, L, d_model) becomes (B, prefix_len + L, d_model), batches and sequences of one too."""
    first = (draw(P, D), draw(3, 5, D))
    near(shaped(stage(run, *first), *first), oracle(*first), unless=partial(slips, *first))
    cases = [(draw(p, d), draw(batch, length, d)) for batch, length, p, d in SIZES]
    for got, (prefix, x) in zip(stage(run_all, *map(list, zip(*cases))), cases):
        what = f"the output for x {tuple(x.shape)} and prefix {tuple(prefix.shape)}"
        known = partial(slips, prefix, x) if len(x) > 1 else {}
        near(shaped(got, prefix, x), oracle(prefix, x), what=what, unless=known)


def run_strided(kata, prefix, x):
    module = make(kata, prefix)
    return module(x.transpose(0, 1)), module(x[:, ::2])


@part("shape")
def test_non_contiguous_input(stage, draw):
    """x need not be contiguous."""
    prefix, x = draw(P, D), draw(3, 5, D)
    turned, skipped = stage(run_strided, prefix, x)
    for got, v in ((turned, x.transpose(0, 1)), (skipped, x[:, ::2])):
        near(shaped(got, prefix, v), oracle(prefix, v))


def prefix_shape(kata):
    return tuple(need(kata.LearnablePrefix(3, 8), "prefix").shape)


@part("shape")
def test_prefix_shape(stage):
    """prefix is (prefix_len, d_model)."""
    shape = tuple(stage(prefix_shape))
    bug = {(1, 3, 8): "prefix-has-batch-dimension", (8, 3): "prefix-transposed"}.get(shape)
    require(shape == (3, 8), f"prefix has shape {shape}, expected (3, 8)", bug)


@part("shape")
def test_prefix_of_one(stage, draw):
    """A prefix_len of 1 is legal."""
    prefix, x = draw(1, D), draw(3, 5, D)
    with blame("length-one-refused", "prefix_len"):
        got = stage(run, prefix, x)
    near(shaped(got, prefix, x), oracle(prefix, x), what="the output at prefix_len 1")


# init


def fresh(kata, length, width):
    one, other = (kata.LearnablePrefix(prefix_len=length, d_model=width) for _ in range(2))
    shared = one.prefix.data_ptr() == other.prefix.data_ptr()
    return need(one, "prefix"), other.prefix, shared


@part("init")
def test_prefix_starts_random(stage):
    """prefix starts random, non-zero, with a standard deviation below 1.5."""
    has, there = stage(names)
    require(has, f"LearnablePrefix has no `prefix`; it has: {there}", "attribute-missing")
    for length, width in ((20, 30), (1, 120), (12, 12), (130, 1)):
        with blame("argument-renamed", "LearnablePrefix.__init__() got an unexpected keyword"):
            prefix, other, shared = stage(fresh, length, width)
        require(not shared, "two modules share the values of one prefix")
        _random(tensor(prefix, "prefix"), other, length == 20)


def names(kata):
    module = kata.LearnablePrefix(3, 8)
    places = (vars(module), module._parameters, module._buffers, module._modules)
    own = {n for place in places for n in place if not n.startswith("_") and n != "training"}
    return hasattr(module, "prefix"), ", ".join(sorted(own)) or "nothing"


def _random(prefix, other, first):
    require(not prefix.is_complex(), "prefix is complex")
    prefix = prefix.double()
    require(bool(torch.isfinite(prefix).all()), "prefix holds values that are not finite")
    known = "prefix-zero" if first else None  # later: not at every size
    require(bool((prefix != 0).any()), f"prefix {tuple(prefix.shape)} starts at zero", known)
    blank = prefix.ndim == 2 and bool((prefix == 0).all(1).any())
    require(not blank, "a vector of prefix starts at zero")
    alike = bool((prefix == prefix.reshape(-1)[0]).all())
    require(not alike, "prefix starts constant", "prefix-constant")
    rows = prefix.ndim == 2 and len(prefix) > 1 and bool((prefix == prefix[0]).all())
    require(not rows, "all vectors of prefix start alike", "prefix-rows-alike")
    std = float(prefix.std())
    require(std < 1.5, f"prefix starts with std {std:.3g}, expected below 1.5", "prefix-too-large")
    require(not torch.equal(prefix, other.double()), "two prefixes start alike: it is not random")


# freeze


def training(kata, prefix, x):
    module = make(kata, prefix)
    for mode in ("eval", "train"):
        getattr(module, mode)()
        y = module(x)
        if y.requires_grad:
            y.sum().backward()
    params = dict(module.named_parameters())
    return {
        "registered": any(p is module.prefix for p in params.values()),
        "trains": module.prefix.requires_grad,
        "extra": [n for n, p in params.items() if p.requires_grad and p is not module.prefix],
    }


@part("freeze")
def test_only_the_prefix_trains(stage, draw):
    """prefix is a parameter that trains, and there is no other."""
    with blame("prefix-cached", "backward through the graph a second time"):
        got = stage(training, draw(P, D), draw(3, 5, D))
    text = "prefix is not among parameters(): no optimizer will see it"
    require(got["registered"], text, "prefix-no-parameter")
    require(got["trains"], "prefix does not train (requires_grad is False)", "prefix-frozen")
    extra = ", ".join(got["extra"])
    require(not extra, f"another parameter trains: {extra}", "extra-trainable")


# forward


@part("forward")
def test_prefix_stands_before_the_content(stage, draw):
    """The output is the prefix, the same for every row, and then x, unchanged to the bit."""
    prefix, x = draw(P, D, std=1e4), draw(3, 5, D, std=1e4)
    got = shaped(stage(run, prefix, x), prefix, x)
    near(got, oracle(prefix, x), unless=partial(slips, prefix, x))
    same(got[:, P:].contiguous(), x, "the content behind the prefix")
    for row in got[:, :P]:
        same(row.contiguous(), prefix, "the prefix in the output")


def keeps_input(kata, prefix, x):
    module = make(kata, prefix)
    module(x)
    return x, module.prefix


@part("forward")
def test_input_unchanged(stage, draw):
    """Neither x nor prefix is changed by a forward."""
    prefix, x = draw(P, D), draw(3, 5, D)
    kept, own = stage(keeps_input, prefix, x)
    same(kept, x, "the input", "changes-input-in-place")
    same(own, prefix, "prefix after a forward")


def returned(kata):
    module = kata.LearnablePrefix(3, 8)
    answers = module.eval(), module.train(), module.train(False), module.train(mode=True)
    return [answer is module for answer in answers]


@part("forward")
def test_modes_return_the_module(stage):
    """train() and eval() return the module itself."""
    calls = ("eval()", "train()", "train(False)", "train(mode=True)")
    for call, right in zip(calls, stage(returned)):
        require(right, f"module.{call} returns something else than the module")


def walk(kata, prefix, later, xs, gs, steps, graph):
    module = make(kata, prefix)
    module.prefix.requires_grad_(graph)
    return [take(kata, module, *step, xs, gs, graph) for step in zip(steps, later)]


def take(kata, module, step, new, xs, gs, graph):
    """One step, and then all that may have been kept from before it."""
    if step == "new values":
        set_(module, prefix=new)
    elif step == "new data":  # which autograd does not count as a change
        module.prefix.data.copy_(new)
    elif step == "load_state_dict":
        module.load_state_dict(make(kata, new).state_dict())
    else:
        getattr(module, step)()
    quiet = torch.no_grad if graph else torch.inference_mode
    with quiet():
        silent = [module(x) for x in xs]
        left_on = torch.is_grad_enabled()
    graphs = [gradient(module, x, g) for x, g in zip(xs, gs) if graph]
    with quiet():  # whatever keeps the last call's now has that of the next step's first
        for x in reversed(xs):
            module(-x)
    return silent, graphs, module.prefix.detach().clone(), left_on


def gradient(module, x, g, to_input=True):
    module.prefix.grad = None
    x = x.clone().requires_grad_(to_input)
    y = module(x)
    if y.requires_grad and y.shape == g.shape:
        (y * g).sum().backward()
    return y.detach(), module.prefix.grad, x.grad


@part("forward")
def test_follows_its_parameter(stage, draw):
    """Each forward uses the values and the batch of the moment, in either mode, with and without
    gradients."""
    steps = ["train", "new values", "eval", "new values", "train", "load_state_dict"]
    steps += ["new data", "eval", "load_state_dict", "new values", "new data"]
    xs = [draw(3, 5, D), draw(2, 7, D), draw(3, 5, D, dtype=torch.float64)]
    gs = [draw(len(x), P + x.shape[1], D, dtype=x.dtype) for x in xs]
    for graph in (True, False):
        first, later = draw(P, D), [draw(P, D) for _ in steps]
        with blame("prefix-cached", "backward through the graph a second time"):
            seen = stage(walk, first, later, xs, gs, steps, graph)
        past, mode, words = [first], "train", []
        for step, new, (silent, graphs, own, left_on) in zip(steps, later, seen):
            mode = step if step in ("train", "eval") else mode
            past = [new, *past] if step not in ("train", "eval") else past
            words.append(f"after {step} ({mode} mode)")
            same(own, past[0], f"prefix {words[-1]}")
            require(not left_on, "a forward under no_grad() leaves grad mode on")
            for y, x in [*zip(silent, xs), *((y, x) for (y, *_), x in zip(graphs, xs))]:
                _follows(y, x, past, words[-1], mode)
        for after, (_, graphs, *_) in zip(words, seen):
            for (_, own, of_x), x, g in zip(graphs, xs, gs):
                require(own is not None, f"prefix gets no gradient {after}")
                what = f"the gradient of prefix {after}"
                near(own, g[:, :P].double().sum(0), what=what)
                require(of_x is not None, f"x gets no gradient {after}")
                near(of_x, g[:, P:], what=f"the gradient to the input {after}", dtype=x.dtype)


def _follows(y, x, past, words, mode):
    what = f"the output {words}"
    if mode == "eval" and tuple(tensor(y, what).shape) == tuple(x.shape):
        require(False, f"{what}: x comes back without a prefix", "off-in-eval")
    now, *before = past
    known = {"prefix-cached": _nearest(y, [oracle(old, x) for old in before])} if before else {}
    near(shaped(y, now, x, what), oracle(now, x), what=what, dtype=x.dtype, unless=known)


def _nearest(got, values):
    """Of the values that one mistake may give, that which `got` is nearest to."""
    if tensor(got).shape != values[0].shape or got.is_complex():
        return values[0]
    return min(values, key=lambda v: float((got.double() - v.double()).abs().sum()))


# gradient


def gradients(kata, prefix, x, g, mode):
    """The output; gradients of prefix and x; of prefix where x needs none, once and added up; of x
    where prefix needs none."""
    module = make(kata, prefix)
    getattr(module, mode)()
    first = gradient(module, x, g)
    alone = gradient(module, x, g, to_input=False)[1]
    alone = None if alone is None else alone.clone()
    y = module(x)
    if y.requires_grad and y.shape == g.shape:
        (y * g).sum().backward()
    twice = module.prefix.grad
    module.prefix.requires_grad_(False)
    return *first, alone, twice, *gradient(module, x, g)[1:]


# Batch, length, mode, size of the gradient.
PASSES = [(3, 5, "train", 1.0), (3, 5, "eval", 1.0), (4, 6, "train", 1.0), (1, 1, "eval", 1.0)]
PASSES += [(9, 19, "train", 300.0), (1, 3, "train", 1.0)]


@part("gradient")
def test_gradient_of_the_prefix(stage, draw):
    """The prefix's gradient is the sum over the batch, in training and in eval mode, also where x
    needs none."""
    for batch, length, mode, size in PASSES:
        prefix, x, g = draw(P, D), draw(batch, length, D), draw(batch, P + length, D, std=size)
        want = g[:, :P].double().sum(0)
        y, got, _, alone, twice, *_ = stage(gradients, prefix, x, g, mode)
        shaped(y, prefix, x)
        known = {"gradient-averaged": want / batch, "gradient-of-one-row": g[0, :P].double()}
        known = {"prefix-gets-no-gradient": 0 * want, **(known if batch > 1 else {})}
        for value, words in ((got, ""), (alone, " where x needs none")):
            text = f"prefix gets no gradient{words} ({mode} mode)"
            require(value is not None, text, "prefix-gets-no-gradient")
            near(value, want, what=f"the gradient of prefix{words}", unless=known)
        near(twice, 2 * want, what="the gradient of prefix, added up over two passes,")


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient of the content flows to x, also where prefix needs none."""
    for batch, length, mode, size in PASSES:
        prefix, x, g = draw(P, D), draw(batch, length, D), draw(batch, P + length, D, std=size)
        y, _, got, *_, own, frozen = stage(gradients, prefix, x, g, mode)
        shaped(y, prefix, x)
        known = {"input-gradient-cut": torch.zeros_like(x)}
        for value, words in ((got, ""), (frozen, " where prefix is frozen")):
            text = f"no gradient reaches the input{words} ({mode} mode)"
            require(value is not None, text, "input-gradient-cut")
            near(value, g[:, P:].double(), what=f"the gradient to the input{words}", unless=known)
        require(own is None, "prefix gets a gradient though its requires_grad was switched off")


# state


def state_names(kata):
    return list(kata.LearnablePrefix(3, 8).state_dict())


@part("state")
def test_state_names(stage):
    """prefix is in the state dict under this name."""
    names = stage(state_names)
    require("prefix" in names, f"`prefix` is not in the state dict; it holds: {', '.join(names)}")


def round_trip(kata, prefix, x):
    outputs = []
    for mode in ("train", "eval"):
        first, second = make(kata, prefix), kata.LearnablePrefix(*prefix.shape)
        second(x)
        second.load_state_dict(getattr(first, mode)().state_dict())
        outputs += [getattr(second, late)()(x) for late in ("train", "eval")]
    return outputs


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs."""
    prefix, x = draw(P, D), draw(3, 5, D)
    for y in stage(round_trip, prefix, x):
        near(y, oracle(prefix, x), what="the output after load_state_dict")


# dtype and device


@part("dtype")
def test_dtypes_alike(stage, draw):
    """After .to() prefix and outputs are float64 or bfloat16, like x."""
    for dtype in (torch.float64, torch.bfloat16):
        prefix, x = draw(P, D).to(dtype) / 3, draw(3, 5, D).to(dtype) / 3  # float32 holds no third
        want, got = oracle(prefix, x), stage(run, prefix, x)
        single = tensor(got).dtype == dtype and torch.equal(got, want.float().to(dtype))
        bug = "float32-inside" if single and dtype == torch.float64 else None
        text = f"the output of a {_name(dtype)} prefix before a {_name(dtype)} x is "
        require(got.dtype == dtype, text + _name(got.dtype), "output-in-another-dtype")
        near(got, want, dtype=dtype, rtol=0.0, atol=1e-9, bug=bug)


def _name(dtype):
    return str(dtype)[6:]


def mixed(kata, prefix, x, g):
    module = make(kata, prefix)
    return *gradient(module, x, g), module.prefix


@part("dtype")
def test_output_in_the_dtype_of_x(stage, draw):
    """The output has x's dtype, also where the prefix has a finer or a coarser one; the prefix
    trains there too."""
    half, single, double = torch.bfloat16, torch.float32, torch.float64
    pairs = ((single, half), (half, single), (single, double), (double, single))
    for own, given in (*pairs, (half, torch.float16)):
        prefix, x = draw(P, D, dtype=own), draw(3, 5, D, dtype=given)
        g = draw(3, P + 5, D, dtype=given)
        y, to_prefix, to_x, kept = stage(mixed, prefix, x, g)
        words = f"a {_name(own)} prefix before a {_name(given)} x"
        text = f"{words} gives a {_name(tensor(y).dtype)} output"
        require(y.dtype == given, text, "output-in-another-dtype")
        rounded = torch.cat([oracle(prefix, x)[:, :P], x.to(own).to(given)], 1)
        lossy = not torch.equal(rounded, oracle(prefix, x))
        bug = "content-rounded" if lossy and torch.equal(y, rounded) else None
        want = oracle(prefix, x)
        near(y, want, what=f"the output of {words}", dtype=given, rtol=0.0, atol=1e-9, bug=bug)
        same(kept, prefix, "prefix")
        text = f"prefix gets no gradient: {words}"
        require(to_prefix is not None, text, "prefix-gets-no-gradient")
        what = f"the gradient of {words}"
        nothing = "prefix-gets-no-gradient" if not to_prefix.any() else None
        off = 4e-2 if half in (own, given) else 1e-5  # the sum may be taken in either dtype
        near(
            to_prefix,
            g[:, :P].double().sum(0),
            what=what,
            dtype=own,
            bug=nothing,
            rtol=off,
            atol=off,
        )
        require(to_x is not None, f"no gradient reaches the input of {words}")
        near(to_x, g[:, P:].double(), what=f"the gradient to the input of {words}", dtype=given)


def on_meta(kata):
    module = kata.LearnablePrefix(3, 8).to("meta")
    with CheapMeta():
        y = module(torch.empty(2, 5, 8, device="meta"))
    return y.device.type, tuple(y.shape), str(y.dtype)[6:]


@part("device")
def test_meta_device(stage):
    """After .to("meta") the outputs are there too."""
    device, shape, dtype = stage(on_meta)
    require(dtype == "float32", f"the output is {dtype}, expected float32")
    require(device == "meta", f"the output is on {device}, expected meta")
    require(tuple(shape) == (2, 8, 8), f"the output has shape {tuple(shape)}, expected (2, 8, 8)")


# errors


def of_length(kata, length):
    kata.LearnablePrefix(length, 8)


@part("errors")
def test_prefix_len_below_one(stage):
    """prefix_len < 1 raises ValueError naming prefix_len."""
    properties.at_least_one(stage, of_length, "prefix_len", "length-unchecked")


def bad_input(kata, x, mode):
    module = kata.LearnablePrefix(3, 8)
    getattr(module, mode)()
    return module(x)


@part("errors")
def test_wrong_last_dimension(stage, draw):
    """An x whose last dimension is not d_model raises ValueError."""
    for last, mode in ((7, "train"), (9, "eval"), (1, "train"), (3, "train"), (16, "train")):
        what = f"x of shape (2, 5, {last}) with d_model=8"
        outcome = stage.attempt(bad_input, draw(2, 5, last), mode)
        rejects(outcome, "ValueError", (), what=what, bug="last-dimension-unchecked")


@part("errors")
def test_wrong_number_of_dimensions(stage, draw):
    """An x that has not three dimensions raises ValueError."""
    shapes = ((5, 8), (8,), (2, 2, 5, 8), (3, 8), (1, 1, 1, 8), (8, 8), (1, 2, 2, 5, 8))
    for shape, mode in zip(shapes, ("train", "eval") * 4):
        outcome = stage.attempt(bad_input, draw(*shape), mode)
        rejects(outcome, "ValueError", (), what=f"x of shape {shape}", bug="dimensions-unchecked")


# gpu


def on_device(kata, prefix, x, g, device):
    module = make(kata, prefix).to(device)
    x = x.to(device).requires_grad_()
    y = module(x)
    (y * g.to(device)).sum().backward()
    return y, module.prefix.grad, x.grad


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU."""
    prefix, x, g = draw(P, D), draw(3, 5, D), draw(3, P + 5, D)
    y, gp, gx = stage(on_device, prefix, x, g, stage.device)
    near(y, oracle(prefix, x))
    near(gp, g[:, :P].double().sum(0), what="the gradient of prefix")
    near(gx, g[:, P:].double(), what="the gradient to the input")
