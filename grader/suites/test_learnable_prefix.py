"""What is checked of `learnable_prefix`. Contract: Li and Liang 2021; Lester et al. 2021."""

import torch

from grader.exam.checks import blame, near, part, rejects, require, same, tensor
from grader.exam.kit import CheapMeta, need, set_

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
    """What known mistakes make of the output."""
    rows = prefix.to(x.dtype).expand(len(x), -1, -1)
    mixed_up = prefix.to(x.dtype).repeat_interleave(len(x), 0).view(len(x), P, D)
    return {
        "prefix-after-content": torch.cat([x, rows], 1),
        "prefix-in-first-row-only": torch.cat([torch.cat([rows[:1], 0 * rows[1:]]), x], 1),
        "prefix-rows-mixed": torch.cat([mixed_up, x], 1),
    }


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


@part("shape")
def test_output_shape(stage, draw):
    """(B, L, d_model) becomes (B, prefix_len + L, d_model), batches and sequences of one too."""
    for batch, length in ((3, 5), (1, 5), (3, 1), (1, 1), (2, 4), (4, 2)):
        prefix, x = draw(P, D), draw(batch, length, D)
        got = shaped(stage(run, prefix, x), prefix, x)
        near(got, oracle(prefix, x), unless=slips(prefix, x) if batch > 1 else {})


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


def fresh(kata):
    one, other = (kata.LearnablePrefix(prefix_len=20, d_model=30) for _ in range(2))
    return need(one, "prefix"), other.prefix


@part("init")
def test_prefix_starts_random(stage):
    """prefix starts random, non-zero, with a standard deviation below 1.5."""
    prefix, other = stage(fresh)
    prefix = tensor(prefix, "prefix").double()
    require(bool(torch.isfinite(prefix).all()), "prefix holds values that are not finite")
    require(bool((prefix != 0).any()), "prefix starts at zero", "prefix-zero")
    alike = bool((prefix == prefix.reshape(-1)[0]).all())
    require(not alike, "prefix starts constant", "prefix-constant")
    rows = prefix.ndim == 2 and bool((prefix == prefix[0]).all())
    require(not rows, "all vectors of prefix start alike", "prefix-rows-alike")
    std = float(prefix.std())
    require(std < 1.5, f"prefix starts with std {std:.3g}, expected below 1.5", "prefix-too-large")
    require(not torch.equal(prefix, other.double()), "two prefixes start alike: it is not random")


# freeze


def training(kata, prefix, x):
    module = make(kata, prefix)
    for mode in (False, True):
        module.train(mode)
    y = module(x)
    if y.requires_grad:
        y.square().sum().backward()
    params = dict(module.named_parameters())
    return {
        "named": "prefix" in params,
        "trains": module.prefix.requires_grad,
        "extra": [n for n, p in params.items() if p.requires_grad and p is not module.prefix],
    }


@part("freeze")
def test_only_the_prefix_trains(stage, draw):
    """prefix is a parameter that trains, and there is no other."""
    got = stage(training, draw(P, D), draw(3, 5, D))
    text = "prefix is not among named_parameters(): no optimizer will see it"
    require(got["named"], text, "prefix-no-parameter")
    require(got["trains"], "prefix does not train (requires_grad is False)", "prefix-frozen")
    extra = ", ".join(got["extra"])
    require(not extra, f"another parameter trains: {extra}", "extra-trainable")


# forward


@part("forward")
def test_prefix_stands_before_the_content(stage, draw):
    """The output is the prefix, the same for every row, and then x, unchanged to the bit."""
    prefix, x = draw(P, D), draw(3, 5, D)
    got = shaped(stage(run, prefix, x), prefix, x)
    near(got, oracle(prefix, x), unless=slips(prefix, x))
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


def live(kata, prefix, prefix2, x, x2, mode):
    module = getattr(make(kata, prefix), mode)()
    module(x)
    set_(module, prefix=prefix2)
    return module(x), module(x2), module(x)


@part("forward")
def test_follows_its_parameter(stage, draw):
    """Each forward uses the values and the batch of the moment, in either mode."""
    prefix, prefix2 = draw(P, D), draw(P, D)
    x, x2 = draw(3, 5, D), draw(2, 7, D)
    for mode in ("train", "eval"):
        got = stage(live, prefix, prefix2, x, x2, mode)
        for y, v in zip(got, (x, x2, x)):
            where = f"the output after prefix changed ({mode} mode)"
            if mode == "eval" and tuple(y.shape) == tuple(v.shape):
                require(False, "in eval mode x comes back without a prefix", "off-in-eval")
            shaped(y, prefix2, v, where)
            near(y, oracle(prefix2, v), what=where, unless={"prefix-cached": oracle(prefix, v)})


# gradient


def gradients(kata, prefix, x, g, mode):
    module = getattr(make(kata, prefix), mode)()
    x = x.clone().requires_grad_()
    y = module(x)
    if y.requires_grad:
        (y * g).sum().backward()
    return module.prefix.grad, x.grad


@part("gradient")
def test_gradient_of_the_prefix(stage, draw):
    """The prefix's gradient is the sum over the batch, in training and in eval mode."""
    prefix, x, g = draw(P, D), draw(3, 5, D), draw(3, P + 5, D)
    want = g[:, :P].double().sum(0)
    for mode in ("train", "eval"):
        got, _ = stage(gradients, prefix, x, g, mode)
        text = f"prefix gets no gradient ({mode} mode)"
        require(got is not None, text, "prefix-gets-no-gradient")
        near(
            got,
            want,
            what="the gradient of prefix",
            unless={"gradient-averaged": want / 3, "gradient-of-one-row": g[0, :P].double()},
        )


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient of the content flows to x."""
    prefix, x, g = draw(P, D), draw(3, 5, D), draw(3, P + 5, D)
    for mode in ("train", "eval"):
        _, got = stage(gradients, prefix, x, g, mode)
        require(got is not None, "no gradient reaches the input", "input-gradient-cut")
        near(got, g[:, P:].double(), what="the gradient to the input")


# state


def state_names(kata):
    return list(kata.LearnablePrefix(3, 8).state_dict())


@part("state")
def test_state_names(stage):
    """prefix is in the state dict under this name."""
    names = stage(state_names)
    require("prefix" in names, f"`prefix` is not in the state dict; it holds: {', '.join(names)}")


def round_trip(kata, prefix, x):
    first, second = make(kata, prefix), kata.LearnablePrefix(*prefix.shape)
    second(x)
    second.load_state_dict(first.state_dict())
    return second(x)


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs."""
    prefix, x = draw(P, D), draw(3, 5, D)
    near(stage(round_trip, prefix, x), oracle(prefix, x), what="the output after load_state_dict")


# dtype and device


@part("dtype")
def test_dtypes_alike(stage, draw):
    """After .to() prefix and outputs are float64 or bfloat16, like x."""
    for dtype in (torch.float64, torch.bfloat16):
        prefix, x = draw(P, D).to(dtype) / 3, draw(3, 5, D).to(dtype) / 3  # float32 holds no third
        near(stage(run, prefix, x), oracle(prefix, x), dtype=dtype, rtol=0.0, atol=1e-9)


def mixed(kata, prefix, x, g):
    module = make(kata, prefix)
    x = x.clone().requires_grad_()
    y = module(x)
    (y * g).sum().backward()
    return y, module.prefix, module.prefix.grad


@part("dtype")
def test_output_in_the_dtype_of_x(stage, draw):
    """The output has x's dtype, also where the prefix has a finer or a coarser one."""
    half, single, double = torch.bfloat16, torch.float32, torch.float64
    for own, given in ((single, half), (half, single), (single, double), (double, single)):
        prefix, x = draw(P, D, dtype=own), draw(3, 5, D, dtype=given)
        g = draw(3, P + 5, D, dtype=given)
        y, kept, gradient = stage(mixed, prefix, x, g)
        text = f"a {own} prefix before a {given} x gives a {y.dtype} output"
        require(y.dtype == given, text, "output-in-another-dtype")
        near(y, oracle(prefix, x), what=f"the output of a {own} prefix before a {given} x")
        same(kept, prefix, "prefix")
        require(gradient is not None, f"a {own} prefix gets no gradient before a {given} x")


def on_meta(kata):
    module = kata.LearnablePrefix(3, 8).to("meta")
    with CheapMeta():
        y = module(torch.empty(2, 5, 8, device="meta"))
    return y.device.type, tuple(y.shape)


@part("device")
def test_meta_device(stage):
    """After .to("meta") the outputs are there too."""
    device, shape = stage(on_meta)
    require(device == "meta", f"the output is on {device}, expected meta")
    require(tuple(shape) == (2, 8, 8), f"the output has shape {tuple(shape)}, expected (2, 8, 8)")


# errors


def bad_length(kata, length):
    kata.LearnablePrefix(length, 8)


@part("errors")
def test_prefix_len_below_one(stage):
    """prefix_len < 1 raises ValueError naming prefix_len."""
    for length in (0, -1):
        rejects(
            stage.attempt(bad_length, length),
            "ValueError",
            "prefix_len",
            what=f"prefix_len={length}",
            bug="length-unchecked",
        )


def bad_input(kata, x):
    return kata.LearnablePrefix(3, 8)(x)


@part("errors")
def test_wrong_last_dimension(stage, draw):
    """An x whose last dimension is not d_model raises ValueError."""
    for last in (7, 9, 1, 3):
        rejects(
            stage.attempt(bad_input, draw(2, 5, last)),
            "ValueError",
            what=f"x of shape (2, 5, {last}) with d_model=8",
            bug="last-dimension-unchecked",
        )


@part("errors")
def test_wrong_number_of_dimensions(stage, draw):
    """An x that has not three dimensions raises ValueError."""
    for shape in ((5, 8), (8,), (2, 2, 5, 8), (3, 8), (1, 1, 1, 8)):
        rejects(
            stage.attempt(bad_input, draw(*shape)),
            "ValueError",
            what=f"x of shape {shape}",
            bug="dimensions-unchecked",
        )


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
