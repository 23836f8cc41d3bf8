"""What is checked of `adapter_stack`. Contract: Houlsby et al. 2019, section 1."""

import torch
from torch import nn

from grader.exam.checks import (
    Raised,
    blame,
    close,
    near,
    part,
    rejects,
    require,
    same,
    tensor,
)
from grader.exam.kit import CheapMeta, Missing, count, need, set_

D, LOW, N = 10, 4, 7
CHOSEN = 2  # of 7: one mistaken for another shows, whether counted from 1, the end, or not at all
NAMES = ("down_proj.weight", "down_proj.bias", "up_proj.weight", "up_proj.bias")


def make(kata, values):
    """A stack with these values: a list of (w1, b1, w2, b2), one for each adapter."""
    stack = kata.AdapterStack(D, LOW, len(values)).to(values[0][0].dtype)
    return fill(stack, values)


def fill(stack, values):
    adapters = need(stack, "adapters")
    if isinstance(adapters, (dict, nn.ModuleDict)):
        raise Missing(f"`adapters` is a {type(adapters).__name__}, it should be an nn.ModuleList")
    for adapter, (w1, b1, w2, b2) in zip(adapters, values):
        set_(need(adapter, "down_proj"), weight=w1, bias=b1)
        set_(need(adapter, "up_proj"), weight=w2, bias=b2)
    return stack


def pieces(draw, dtype=torch.float32, number=N):
    return [
        (
            draw(LOW, D, std=0.4, dtype=dtype),
            draw(LOW, std=0.8, dtype=dtype),
            draw(D, LOW, std=0.8, dtype=dtype),
            draw(D, std=1.0, dtype=dtype),
        )
        for _ in range(number)
    ]


# shape


def run(kata, values, x, chosen):
    """The output, and the change that each adapter makes of x by itself."""
    stack = make(kata, values)
    y = stack(x, chosen)
    return y, [a.forward_delta(x) for a in stack.adapters]


def right(stage, values, x, chosen, dtype=torch.float32, bug=None):
    with blame(bug), blame("other-container", "`adapters` is a ModuleDict"):
        y, deltas = stage(run, values, x, chosen)
    where = f"the output of adapter {chosen} for x {tuple(x.shape)}"
    changes = [tensor(d, "forward_delta(x)").double() for d in deltas]
    before, after = (x.double() + changes[(chosen + by) % len(changes)] for by in (-1, 1))
    from_one = isinstance(y, torch.Tensor) and close(y, before, 1e-4, 1e-5)
    known = {
        "residual-missing": changes[chosen],
        "residual-twice": 2 * x.double() + changes[chosen],
        "all-adapters-summed": x.double() + sum(changes),
        "all-adapters-averaged": x.double() + sum(changes) / len(changes),
        "id-off-by-one": before if from_one else after,
    }
    if chosen == CHOSEN:
        known["first-adapter-always"] = x.double() + changes[0]
        known["last-adapter-always"] = x.double() + changes[-1]
    lost = isinstance(y, torch.Tensor) and y.shape != x.shape and y.numel() == x.numel()
    near(
        y,
        x.double() + changes[chosen],
        what=where,
        dtype=dtype,
        unless=known,
        bug="leading-dims-lost" if lost else None,
    )


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """Inputs are (..., d_model): none, one or several leading dimensions."""
    values = pieces(draw)
    right(stage, values, draw(5, D), CHOSEN)
    for lead in [(2, 7), (2, 3, 4), (1, 1), (1,), (), (D,), (N, N), (2, 1, 3, 2)]:
        right(stage, values, draw(*lead, D), CHOSEN, bug="leading-dims-lost")


@part("shape")
def test_non_contiguous_input(stage, draw):
    """Inputs need not be contiguous."""
    values, x = pieces(draw), draw(4, 6, 2, D)
    got = stage(run_strided, values, x)
    for (y, change), v in zip(got, turned(x)):
        near(y, v.double() + change.double(), what="the output for a non-contiguous x")


def turned(x):
    """Three views of x (4, 6, 2, D) that are not contiguous."""
    return x[:, :, 0].transpose(0, 1), x[:, ::2, 0], x.transpose(0, 1)


def run_strided(kata, values, x):
    stack = make(kata, values)
    return [(stack(v, 2), stack.adapters[2].forward_delta(v.contiguous())) for v in turned(x)]


def common(stack):
    """The names of what two adapters or more have in common."""
    owners = [dict(zip(NAMES, four(adapter))) for adapter in stack.adapters]
    return [n for n in NAMES if len({own[n].data_ptr() for own in owners}) < len(owners)]


def four(adapter):
    return [p for layer in (adapter.down_proj, adapter.up_proj) for p in (layer.weight, layer.bias)]


def layout(kata):
    stack = kata.AdapterStack(d_model=10, bottleneck_dim=4, num_adapters=3)
    adapters = need(stack, "adapters")
    return {
        "list": isinstance(adapters, nn.ModuleList),
        "kind": type(adapters).__name__,
        "number": len(adapters),
        "shapes": [
            (tuple(need(a, "down_proj").weight.shape), tuple(need(a, "up_proj").weight.shape))
            for a in (adapters.values() if hasattr(adapters, "values") else adapters)
        ],
        "registered": any(True for _ in stack.parameters()),
    }


@part("shape")
def test_adapters(stage):
    """adapters is an nn.ModuleList of num_adapters bottleneck adapters."""
    got = stage(layout)
    known = "other-container" if got["registered"] else "adapters-not-registered"
    text = f"adapters should be an nn.ModuleList; it is of type {got['kind']}"
    require(got["list"], text, known)
    number = got["number"]
    known = "number-off-by-one" if number in (2, 4) else None
    require(number == 3, f"AdapterStack(10, 4, 3) has {number} adapters", known)
    for down, up in got["shapes"]:
        require(tuple(down) == (4, 10), f"down_proj.weight has shape {tuple(down)}")
        require(tuple(up) == (10, 4), f"up_proj.weight has shape {tuple(up)}")


@part("shape")
def test_stack_of_one(stage, draw):
    """A stack of one adapter is legal."""
    values = pieces(draw, number=1)
    with blame("number-one-refused", "num_adapters"):
        y, deltas = stage(run, values, x := draw(5, D), 0)
    near(y, x.double() + deltas[0].double(), what="the output of a stack of one")


def sized(kata, values, x):
    wide, low = x.shape[-1], values[0][1].shape[0]
    stack = fill(kata.AdapterStack(wide, low, len(values)), values)
    return stack(x, 1), stack.adapters[1].forward_delta(x)


@part("shape")
def test_any_size(stage, draw):
    """bottleneck_dim may be larger than d_model; d_model may be 1."""
    for wide, low in ((1, 3), (4, 9)):
        values = [(draw(low, wide), draw(low), draw(wide, low), draw(wide)) for _ in range(2)]
        x = draw(5, wide)
        y, change = stage(sized, values, x)
        what = f"the output at d_model {wide} and bottleneck_dim {low}"
        near(y, x.double() + change.double(), what=what)


# init


def written(kata, values):
    """What adapters have in common at the start, and what each holds when all have been filled."""
    shared = common(kata.AdapterStack(D, LOW, len(values)))
    stack = make(kata, values)
    one = len({id(a) for a in stack.adapters}) == 1
    return shared, one, [four(adapter) for adapter in stack.adapters]


@part("init")
def test_adapters_are_separate(stage, draw):
    """The adapters are separate modules that share no parameter."""
    values = pieces(draw)
    shared, one, held = stage(written, values)
    text = "adapters[0], adapters[1] and so on are one and the same module"
    require(not one, text, "shared")
    text = f"the adapters have parameters in common: {', '.join(shared)}"
    require(not shared, text, "partly-shared")
    for number, (got, want) in enumerate(zip(held, values)):
        for name, value, put in zip(NAMES, got, want):
            what = f"{name} of adapter {number}, after the others were written to,"
            same(value, put, what)


def alone(kata, values, x):
    """Changes with up_proj's weight at zero: nothing but its bias is left."""
    stack = make(kata, [(w1, b1, 0 * w2, b2) for w1, b1, w2, b2 in values])
    return [a.forward_delta(x) for a in stack.adapters]


@part("init")
def test_forward_delta_is_the_change_alone(stage, draw):
    """Each adapter's forward_delta ends with up_proj and has no residual in it."""
    values, x = pieces(draw), draw(5, D)
    for change, (*_, bias) in zip(stage(alone, values, x), values):
        near(
            change,
            bias.double().expand(5, D),
            what="forward_delta(x) with up_proj.weight at zero",
            unless={"delta-with-residual": x.double() + bias.double()},
        )


# freeze


def training(kata):
    stack = kata.AdapterStack(10, 4, 3)
    returned, follows = [], []
    for mode in (False, True):
        returned.append(stack.train(mode) is stack)
        stack(torch.ones(2, 10), 1)
        follows.append(all(adapter.training == mode for adapter in stack.adapters))
    params = dict(stack.named_parameters(remove_duplicate=False))
    own = [
        f"adapters.{i}.{layer}.{name}"
        for i in range(3)
        for layer in ("down_proj", "up_proj")
        for name in ("weight", "bias")
    ]
    inside = {id(p) for adapter in stack.adapters for p in adapter.parameters()}
    return {
        "returned": all(returned),
        "follows": all(follows),
        "registered": bool(params),
        "missing": [n for n in own if n not in params],
        "still": [n for n in own if n in params and not params[n].requires_grad],
        "extra": [n for n, p in params.items() if p.requires_grad and id(p) not in inside],
    }


@part("freeze")
def test_all_adapters_train(stage):
    """The parameters of every adapter train, and no other one does."""
    got = stage(training)
    missing, still = ", ".join(got["missing"][:3]), ", ".join(got["still"][:3])
    text = f"{missing} is not among the named parameters"
    require(not missing, text, None if got["registered"] else "adapters-not-registered")
    require(not still, f"{still} does not train (requires_grad is False)", "adapters-frozen")
    extra = ", ".join(got["extra"])
    require(not extra, f"{extra} trains too", "extra-trainable")
    require(got["returned"], "train() and eval() should return the stack itself")
    text = "after train() or eval() and a forward not all adapters are in that mode"
    require(got["follows"] or not got["registered"], text)


# forward


@part("forward")
def test_adds_the_change_of_the_chosen_adapter(stage, draw):
    """forward(x, adapter_id) = x + adapters[adapter_id].forward_delta(x), for every id."""
    values, x = pieces(draw), draw(3, 4, D)
    for chosen in (CHOSEN, 0, 1, N - 1):
        right(stage, values, x, chosen)


def in_a_large_stack(kata, values, x):
    stack = kata.AdapterStack(D, LOW, 130)
    some = [stack.adapters[i] for i in range(0, 130, 43)]
    for adapter, (w1, b1, w2, b2) in zip(some, values):
        set_(adapter.down_proj, weight=w1, bias=b1)
        set_(adapter.up_proj, weight=w2, bias=b2)
    return [(stack(x, i), stack.adapters[i].forward_delta(x)) for i in (43, 86, 129)]


@part("forward")
def test_large_stack(stage, draw):
    """A stack may hold a hundred adapters and more; each id runs its own."""
    x = draw(5, D)
    for y, change in stage(in_a_large_stack, pieces(draw), x):
        near(y, x.double() + change.double(), what="the output of one of 130 adapters")


def by_name(kata, values, x):
    stack = make(kata, values)
    return stack(x=x, adapter_id=1), stack.adapters[1].forward_delta(x)


@part("forward")
def test_id_by_name(stage, draw):
    """adapter_id can be given by name."""
    values, x = pieces(draw), draw(5, D)
    y, change = stage(by_name, values, x)
    near(y, x.double() + change.double(), what="the output of stack(x=x, adapter_id=1)")


def cost(stack, x, chosen, mode):
    stack.train(mode == "train")
    with torch.set_grad_enabled(mode == "train"):
        return count(lambda: stack(x, chosen))


def work(kata, x):
    """What a forward costs: mode, id, the cost in a stack of one and in a stack of 9."""
    costs = []
    for mode in ("eval", "train"):
        one, nine = (kata.AdapterStack(D, LOW, number) for number in (1, 9))
        few = cost(one, x, 0, mode)
        costs += [(mode, i, few, cost(nine, x, i, mode)) for i in (0, 4, 8)]
    return costs


def poisoned(kata, values, x):
    """The output beside NaNs, the chosen change, and whether NaNs in the chosen one show."""
    stack, other = make(kata, values), make(kata, values)
    for adapter in (*stack.adapters[:1], *stack.adapters[2:], other.adapters[1]):
        for p in adapter.parameters():
            p.data.fill_(float("nan"))
    return stack(x, 1), stack.adapters[1].forward_delta(x), bool(other(x, 1).isnan().any())


@part("forward")
def test_only_the_chosen_adapter_runs(stage, draw):
    """Whatever the id and the mode, the work does not grow with the number of adapters, and the
    others' values do not matter."""
    x = draw(5, D)
    for mode, chosen, few, many in stage(work, x):
        idle = few["flops"] == 0 < many["flops"]
        require(not idle, f"adapter 0 does no matrix product at all ({mode} mode): it does not run")
        known = "all-adapters-run" if many["flops"] > few["flops"] else None
        text = (
            f"a forward takes {few['ops']} operators with 1 adapter and {many['ops']} with 9 and "
            f"id {chosen} ({mode} mode): something is done for the others too"
        )
        require(many["ops"] <= few["ops"], text, known)
    y, change, chosen = stage(poisoned, pieces(draw), x)
    finite = bool(torch.isfinite(y).all())
    own = chosen and bool(torch.isfinite(change).all())
    known = "all-adapters-run" if own else None  # else a wrong one ran alone, or they are one
    require(finite, "NaNs in the other adapters reach the output", known)
    near(y, x.double() + change.double(), what="the output beside adapters full of NaNs")


def keeps_input(kata, values, x):
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            make(kata, values)(x, 1)
    return x


@part("forward")
def test_input_unchanged(stage, draw):
    """The input is not changed in place."""
    for x in (draw(5, D), draw(D)):
        same(
            stage(keeps_input, pieces(draw, number=2), x), x, "the input", "changes-input-in-place"
        )


def switching(kata, values, values2, x, mode):
    grad = "no_grad" not in mode
    with torch.set_grad_enabled(grad):
        stack = make(kata, values)
        stack.train(mode == "train")
        for chosen in (2, 0):
            stack(x, chosen)
        fill(stack, values2)
        pairs = [(stack(x, i), stack.adapters[i].forward_delta(x)) for i in (1, 0, 2, 1)]
        return pairs, torch.is_grad_enabled() == grad


@part("forward")
def test_calls_are_independent(stage, draw):
    """Each call uses the id and the values of the moment, in either mode, also under no_grad."""
    values, values2, x = pieces(draw), pieces(draw), draw(5, D)
    bare = [(w1, b1, 0 * w2, b2) for w1, b1, w2, b2 in values2[:3]]  # up_proj's bias alone is left
    cases = [(mode, values2) for mode in ("train", "eval", "eval, no_grad")]
    for mode, later in (*cases, ("eval, no_grad", bare)):
        pairs, kept = stage(switching, values[: len(later)], later, x, mode)
        require(kept, "a call under no_grad leaves gradients switched on")
        for y, change in pairs:
            near(
                y,
                x.double() + change.double(),
                what=f"the output after other ids and values ({mode} mode)",
                unless={} if mode == "train" or later is bare else {"eval-skips-adapter": x},
            )


# gradient


def gradients(kata, values, x, g, chosen, direct, mode="train", before=False, frozen=False):
    stack = make(kata, values)
    stack.train(mode == "train")
    if frozen:
        stack.requires_grad_(False)
    x = x.clone().requires_grad_()
    if before:
        with torch.no_grad():
            stack(x, chosen)
    y = x + stack.adapters[chosen].forward_delta(x) if direct else stack(x, chosen)
    if y.requires_grad:
        (y * g).sum().backward()
    grads = [[p.grad for p in four(adapter)] for adapter in stack.adapters]
    return x.grad, grads, not common(stack)


@part("gradient")
def test_gradients_of_the_chosen_adapter(stage, draw):
    """The chosen adapter gets the exact gradients; the .grad of the others stays None."""
    values = pieces(draw)
    x, g = draw(2, 3, D), draw(2, 3, D)
    fresh = [(w1, b1, 0 * w2, 0 * b2) for w1, b1, w2, b2 in values[:3]]
    cases = [(0, "train", values), (CHOSEN, "eval", values), (N - 1, "train", values)]
    for chosen, mode, values in (*cases, (1, "train", fresh)):
        where = " while up_proj is zero, as at the start" if values is fresh else ""
        _, got, alone = stage(gradients, values, x, g, chosen, False, mode)
        _, want, _ = stage(gradients, values, x, g, chosen, True, mode)
        trained = [any(grad is not None for grad in grads) for grads in got]
        alone = alone and trained[chosen]
        none = None if any(trained) else "adapter-gets-no-gradient"
        for number, grads in enumerate(got):
            if number != chosen:
                some = [n for n, grad in zip(NAMES, grads) if grad is not None]
                text = f"adapter {number} gets gradients when {chosen} is chosen"
                require(not some, text, "others-get-gradients" if alone else None)
                continue
            for name, grad, exact in zip(NAMES, grads, want[number]):
                text = f"{name} of the chosen adapter gets no gradient{where}"
                require(grad is not None, text, none)
                near(
                    grad,
                    exact.double(),
                    what=f"the gradient of {name} of the chosen adapter{where}",
                )
        bias = got[chosen][3]
        near(bias, g.double().sum((0, 1)), what="the gradient of up_proj.bias")


@part("gradient")
def test_gradients_after_no_grad(stage, draw):
    """Nothing of a call under no_grad is kept for the next one."""
    values = pieces(draw)
    x, g = draw(2, 3, D), draw(2, 3, D)
    for mode in ("train", "eval"):
        to_x, got, _ = stage(gradients, values, x, g, CHOSEN, False, mode, True)
        want_x, want, _ = stage(gradients, values, x, g, CHOSEN, True, mode)
        for name, grad, exact in zip(
            ("the input", *NAMES), (to_x, *got[CHOSEN]), (want_x, *want[CHOSEN])
        ):
            what = f"the gradient of {name}, after a call under no_grad ({mode} mode)"
            require(grad is not None, f"{what} is None")
            near(grad, exact.double(), what=what)


def two_at_once(kata, values, x, g, direct):
    """Gradients of adapters 0 and 2: both are called, then each goes backward, and all are
    called in between."""
    stack = make(kata, values)
    ids = (0, 2)
    outputs = [x + stack.adapters[i].forward_delta(x) if direct else stack(x, i) for i in ids]
    for y in outputs:
        if y.requires_grad:
            (y * g).sum().backward()
        for other in (1, *ids):
            stack(x, other)
    return [[p.grad for p in four(stack.adapters[i])] for i in ids]


@part("gradient")
def test_several_tasks_in_one_step(stage, draw):
    """Further calls, with any id, take nothing from an adapter's gradients."""
    values = pieces(draw)
    x, g = draw(2, 3, D), draw(2, 3, D)
    pairs = zip(stage(two_at_once, values, x, g, False), stage(two_at_once, values, x, g, True))
    for number, (got, want) in zip((0, 2), pairs):
        for name, grad, exact in zip(NAMES, got, want):
            what = f"the gradient of {name} of adapter {number}, after further calls"
            require(grad is not None, f"{what}, is None")
            near(grad, exact.double(), what=what)


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to the input, past the adapter and through it."""
    values = pieces(draw, number=3)
    for lead, mode in (((2, 3), "train"), ((2, 3), "eval"), ((), "train")):
        x, g = draw(*lead, D), draw(*lead, D)
        want, *_ = stage(gradients, values, x, g, 1, True)
        got, own, _ = stage(gradients, values, x, g, 1, False, mode)
        known = "input-gradient-cut" if any(grad is not None for grad in own[1]) else None
        require(got is not None, f"no gradient reaches the input ({mode} mode)", known)
        near(
            got,
            want.double(),
            what=f"the gradient to the input ({mode} mode)",
            unless={"input-gradient-cut": g.double()},
        )


@part("gradient")
def test_frozen_adapter(stage, draw):
    """An adapter that the caller froze stays frozen; the gradient flows through it to the input."""
    values = pieces(draw, number=2)
    x, g = draw(2, 3, D), draw(2, 3, D)
    want, *_ = stage(gradients, values, x, g, 1, True)
    got, own, _ = stage(gradients, values, x, g, 1, False, "train", True, True)
    some = any(grad is not None for grads in own for grad in grads)
    require(not some, "all adapters were frozen, and after a forward some get gradients")
    require(got is not None, "no gradient reaches the input through a frozen adapter")
    near(got, want.double(), what="the gradient to the input through a frozen adapter")


# state


def state_names(kata):
    return list(kata.AdapterStack(10, 4, 3).state_dict())


@part("state")
def test_state_names(stage):
    """Every adapter's tensors are in the state dict: adapters.<id>.down_proj.weight and so on."""
    names = stage(state_names)
    for name in (
        "adapters.0.down_proj.weight",
        "adapters.1.up_proj.bias",
        "adapters.2.up_proj.weight",
    ):
        require(name in names, f"`{name}` is not in the state dict; it holds: {', '.join(names)}")


def round_trip(kata, values, values2, x):
    first, second = make(kata, values), make(kata, values2)
    second(x, 0), first(x, 1)
    second.load_state_dict(first.state_dict())
    return [(second(x, i), first(x, i)) for i in range(3)]


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs."""
    for got, want in stage(round_trip, pieces(draw), pieces(draw), draw(5, D)):
        near(got, want.double(), what="the output after load_state_dict")


# dtype and device


@part("dtype")
def test_float64(stage, draw):
    """After .to(torch.float64) the outputs are float64, exact to 1e-9."""
    dtype = torch.float64
    right(stage, pieces(draw, dtype), draw(5, D, dtype=dtype), CHOSEN, dtype)


@part("dtype")
def test_bfloat16(stage, draw):
    """After .to(torch.bfloat16) the outputs are bfloat16."""
    dtype = torch.bfloat16
    right(stage, pieces(draw, dtype), draw(5, D, dtype=dtype), CHOSEN, dtype)


def on_meta(kata):
    stack = kata.AdapterStack(10, 4, 3).to("meta")
    with CheapMeta():
        y = stack(torch.empty(2, 5, 10, device="meta"), 2)
    return y.device.type, tuple(y.shape)


@part("device")
def test_meta_device(stage):
    """After .to("meta") the outputs are there too."""
    device, shape = stage(on_meta)
    require(device == "meta", f"the output is on {device}, expected meta")
    require(tuple(shape) == (2, 5, 10), f"the output has shape {tuple(shape)}")


# errors


def bad_id(kata, values, x, chosen, mode="train"):
    """What such an id gives, and what it would give if it counted from the end."""
    stack = make(kata, values)
    stack.train(mode == "train")
    with torch.set_grad_enabled("no_grad" not in mode):
        y = stack(x, chosen)
    return y, x + stack.adapters[chosen].forward_delta(x) if -N <= chosen < 0 else None


@part("errors")
def test_id_too_large(stage, draw):
    """An adapter_id of num_adapters or more raises IndexError naming adapter_id."""
    values, x = pieces(draw), draw(5, D)
    stage(run, values, x, CHOSEN)  # what fails on a legal id as well says nothing of others
    outcomes = {chosen: stage.attempt(bad_id, values, x, chosen) for chosen in (N, N + 1, 100)}
    own = [isinstance(o, Raised) and o.deliberate for o in outcomes.values()]
    slipped = f"adapter_id={N} of {N} adapters is not refused by the check that refuses {N + 1}"
    require(own != [False, True, True], slipped, "id-check-off-by-one")
    for chosen, outcome in outcomes.items():
        text = f"adapter_id={chosen} of {N} adapters"
        rejects(outcome, "IndexError", "adapter_id", what=text, bug="id-unchecked")


@part("errors")
def test_negative_id(stage, draw):
    """A negative adapter_id raises IndexError naming adapter_id; it does not count from the end."""
    values, x = pieces(draw), draw(5, D)
    for chosen in (-1, -3, -N, -N - 1):
        outcome = stage.attempt(bad_id, values, x, chosen)
        wraps = not isinstance(outcome, Raised) and outcome[1] is not None
        known = "negative-id-wraps" if wraps and torch.equal(*outcome) else None
        rejects(outcome, "IndexError", "adapter_id", what=f"adapter_id={chosen}", bug=known)


@part("errors")
def test_ids_are_always_checked(stage, draw):
    """Ids are checked in a stack of one too, for a single vector, in eval mode, under no_grad."""
    values, x = pieces(draw, number=3), draw(5, D)
    for number, v, mode in ((1, x, "train"), (3, x[0], "eval"), (3, x, "eval, no_grad")):
        for chosen in (number, -1):
            outcome = stage.attempt(bad_id, values[:number], v, chosen, mode)
            where = f"a stack of {number} (x {tuple(v.shape)}, {mode} mode)"
            rejects(outcome, "IndexError", "adapter_id", what=f"adapter_id={chosen} in {where}")


def bad_number(kata, number):
    kata.AdapterStack(10, 4, number)


@part("errors")
def test_num_adapters_below_one(stage):
    """num_adapters < 1 raises ValueError naming num_adapters."""
    zero, below = (stage.attempt(bad_number, number) for number in (0, -1))
    checked = isinstance(below, Raised) and below.deliberate
    known = "number-zero-accepted" if checked else "number-unchecked"
    rejects(zero, "ValueError", "num_adapters", what="num_adapters=0", bug=known)
    rejects(below, "ValueError", "num_adapters", what="num_adapters=-1", bug="number-unchecked")
    lower = stage.attempt(bad_number, -N)
    rejects(lower, "ValueError", "num_adapters", what=f"num_adapters={-N}", bug="number-unchecked")


# gpu


def on_device(kata, values, x, device):
    stack = make(kata, values)
    want = stack(x, 1)
    return stack.to(device)(x.to(device), 1), want


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs on the accelerator are those of the CPU."""
    y, want = stage(on_device, pieces(draw), draw(4, 5, D), stage.device)
    near(y, want.double(), rtol=1e-3, atol=1e-3)
