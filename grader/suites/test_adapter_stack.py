"""What is checked of `adapter_stack`. Contract: Houlsby et al. 2019, section 1."""

from dataclasses import replace

import torch
from torch import nn

from grader.exam.checks import Raised, blame, near, part, rejects, require, same
from grader.exam.kit import count, need
from grader.suites.shared import bottlenecks, properties
from grader.suites.shared.bottlenecks import (
    LOW,
    NAMES,
    D,
    changes_of,
    chosen_of,
    fill_stack,
    stack_of,
    write,
)
from grader.suites.shared.properties import ALL_MODES, LEADS

N = 7
CHOSEN = 2  # of 7: one mistaken for another shows, whether counted from 1, the end, or not at all


def layer_of(stage, draw, number=CHOSEN, of=N, **kind):
    return bottlenecks.one_of_several(stage, draw, number, of, **kind)


# shape


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """Inputs are (..., d_model): none, one or several leading dimensions."""
    leads = [*LEADS, (D,), (D, D), (N, N)]
    with blame("other-container", "`adapters` is a ModuleDict"):
        properties.leading_dimensions(stage, draw, layer_of(stage, draw), leads)


@part("shape")
def test_non_contiguous_input(stage, draw):
    """Inputs need not be contiguous."""
    properties.non_contiguous(stage, draw, layer_of(stage, draw))


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
    with blame("number-one-refused", "num_adapters"):
        layer, what = layer_of(stage, draw, 0, 1), "the output of a stack of one"
        properties.computes(stage, layer, draw(5, D), what=what, slips={})


@part("shape")
def test_any_size(stage, draw):
    """bottleneck_dim may be larger than d_model; d_model may be 1."""
    for d, low in ((1, 3), (4, 9)):
        layer = layer_of(stage, draw, 1, 2, d=d, low=low)
        what = f"the output at d_model {d} and bottleneck_dim {low}"
        properties.computes(stage, layer, draw(5, d), what=what, slips={})


# init


def bare(values):
    """These with up_proj's weights at zero: nothing but its bias is left."""
    return [0 * v if place % 4 == 2 else v for place, v in enumerate(values)]


def written(kata, *values):
    """What adapters have in common at the start, and what each holds when all have been filled."""
    shared = common(kata.AdapterStack(D, LOW, len(values) // 4))
    stack = stack_of(kata, 0, *values)
    one = len({id(a) for a in stack.adapters}) == 1
    return shared, one, [four(adapter) for adapter in stack.adapters]


@part("init")
def test_adapters_are_separate(stage, draw):
    """The adapters are separate modules that share no parameter."""
    values = layer_of(stage, draw).values
    shared, one, held = stage(written, *values)
    text = "adapters[0], adapters[1] and so on are one and the same module"
    require(not one, text, "shared")
    text = f"the adapters have parameters in common: {', '.join(shared)}"
    require(not shared, text, "partly-shared")
    for number, (got, want) in enumerate(zip(held, zip(*[iter(values)] * 4))):
        for name, value, put in zip(NAMES, got, want):
            what = f"{name} of adapter {number}, after the others were written to,"
            same(value, put, what)


@part("init")
def test_forward_delta_is_the_change_alone(stage, draw):
    """Each adapter's forward_delta ends with up_proj and has no residual in it."""
    values, x = bare(layer_of(stage, draw).values), draw(5, D)
    changes, *_ = stage(changes_of, (0, *values), [x])
    for change, bias in zip(changes, values[3::4]):
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
    own = [f"adapters.{i}.{name}" for i in range(3) for name in NAMES]
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
    for number, of in ((CHOSEN, N), (0, 3), (1, 3), (2, 3)):
        layer, what = layer_of(stage, draw, number, of), f"the output of adapter {number} of {of}"
        properties.computes(stage, layer, draw(3, 4, D), what=what)


def in_a_large_stack(kata, values, x):
    stack = kata.AdapterStack(D, LOW, 130)
    for number, at in zip((0, 43, 86, 129), range(0, 16, 4)):
        write(stack.adapters[number], *values[at : at + 4])
    return [(stack(x, i), stack.adapters[i].forward_delta(x)) for i in (43, 86, 129)]


@part("forward")
def test_large_stack(stage, draw):
    """A stack may hold a hundred adapters and more; each id runs its own."""
    x = draw(5, D)
    for y, change in stage(in_a_large_stack, layer_of(stage, draw, of=4).values, x):
        near(y, x.double() + change.double(), what="the output of one of 130 adapters")


def call_by_name(stack, x):
    return stack(x=x, adapter_id=2)


@part("forward")
def test_id_by_name(stage, draw):
    """adapter_id can be given by name."""
    layer = replace(layer_of(stage, draw), call=call_by_name)
    what = "the output of stack(x=x, adapter_id=2)"
    properties.computes(stage, layer, draw(5, D), what=what, slips={})


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


def poisoned(kata, x, *values):
    """The output beside NaNs, the chosen change, and whether NaNs in the chosen one show."""
    stack, other = (stack_of(kata, 1, *values) for _ in range(2))
    for adapter in (*stack.adapters[:1], *stack.adapters[2:], other.adapters[1]):
        for p in adapter.parameters():
            p.data.fill_(float("nan"))
    return stack(x, 1), stack.adapters[1].forward_delta(x), bool(other(x, 1).isnan().any())


@part("forward")
def test_only_the_chosen_adapter_runs(stage, draw):
    """Whatever the id and the mode, the work does not grow with the number of adapters, and the
    others' values do not matter."""
    x = draw(5, D)
    for mode, number, few, many in stage(work, x):
        idle = few["flops"] == 0 < many["flops"]
        require(not idle, f"adapter 0 does no matrix product at all ({mode} mode): it does not run")
        known = "all-adapters-run" if many["flops"] > few["flops"] else None
        text = (
            f"a forward takes {few['ops']} operators with 1 adapter and {many['ops']} with 9 and "
            f"id {number} ({mode} mode): something is done for the others too"
        )
        require(many["ops"] <= few["ops"], text, known)
    values = layer_of(stage, draw).values
    y, change, own = stage(poisoned, x, *values)
    finite = bool(torch.isfinite(y).all())
    own = own and bool(torch.isfinite(change).all())
    known = "all-adapters-run" if own else None  # else a wrong one ran alone, or they are one
    require(finite, "NaNs in the other adapters reach the output", known)
    near(y, x.double() + change.double(), what="the output beside adapters full of NaNs")


@part("forward")
def test_input_unchanged(stage, draw):
    """The input is not changed in place."""
    properties.input_unchanged(stage, draw, layer_of(stage, draw, 1, 2))


def switching(kata, values, values2, x, mode):
    grad = "no_grad" not in mode
    with torch.set_grad_enabled(grad):
        stack = stack_of(kata, 0, *values)
        stack.train(mode == "train")
        for number in (2, 0):
            stack(x, number)
        fill_stack(stack, *values2)
        pairs = [(stack(x, i), stack.adapters[i].forward_delta(x)) for i in (1, 0, 2, 1)]
        return pairs, torch.is_grad_enabled() == grad


@part("forward")
def test_calls_are_independent(stage, draw):
    """Each call uses the id and the values of the moment, in either mode, also under no_grad."""
    values, values2 = (list(layer_of(stage, draw).values) for _ in range(2))
    x, three = draw(5, D), values[:12]
    cases = [(mode, values, values2) for mode in ALL_MODES]
    for mode, first, later in (*cases, (ALL_MODES[-1], three, bare(values2[:12]))):
        pairs, kept = stage(switching, first, later, x, mode)
        require(kept, "a call under no_grad leaves gradients switched on")
        for y, change in pairs:
            near(
                y,
                x.double() + change.double(),
                what=f"the output after other ids and values ({mode} mode)",
                unless={} if mode == "train" or first is three else {"eval-skips-adapter": x},
            )


# gradient


def gradients(kata, x, g, mode, frozen, *arguments):
    stack = stack_of(kata, *arguments)
    stack.train(mode == "train")
    if frozen:
        stack.requires_grad_(False)
    x = x.clone().requires_grad_()
    if frozen:
        with torch.no_grad():
            chosen_of(stack, x)
    y = chosen_of(stack, x)
    if y.requires_grad:
        (y * g).sum().backward()
    grads = [[p.grad for p in four(adapter)] for adapter in stack.adapters]
    return x.grad, grads, not common(stack)


@part("gradient")
def test_gradients_of_the_chosen_adapter(stage, draw):
    """The chosen adapter gets the exact gradients; the .grad of the others stays None."""
    values = layer_of(stage, draw).values
    fresh = [0 * v if place % 4 > 1 else v for place, v in enumerate(values[:12])]
    cases = [(0, "train", values), (CHOSEN, "eval", values), (N - 1, "train", values)]
    for number, mode, values in (*cases, (1, "train", fresh)):
        where = " while up_proj is zero, as at the start" if values is fresh else ""
        layer = layer_of(stage, draw, number, values=values)
        x, g = layer.pair(draw, 2, 3)
        _, got, alone = stage(gradients, x, g, mode, False, *layer.arguments)
        _, *want = layer.gradients(x, g)
        trained = [any(grad is not None for grad in grads) for grads in got]
        alone = alone and trained[number]
        none = None if any(trained) else "adapter-gets-no-gradient"
        for other, grads in enumerate(got):
            some = other != number and any(grad is not None for grad in grads)
            text = f"adapter {other} gets gradients when {number} is chosen"
            require(not some, text, "others-get-gradients" if alone else None)
        for name, grad, exact in zip(NAMES, got[number], want[4 * number :]):
            what = f"the gradient of {name} of the chosen adapter{where}"
            require(grad is not None, f"{what} is None", none)
            near(grad, exact, what=what)
        near(got[number][3], g.double().sum((0, 1)), what="the gradient of up_proj.bias")


@part("gradient")
def test_gradients_after_no_grad(stage, draw):
    """Nothing of a call under no_grad is kept for the next one."""
    layer, words = layer_of(stage, draw), {"to_input": True, "after_no_grad": True}
    properties.gradients_of(stage, draw, layer, layer.places, **words)


def two_at_once(kata, values, x, g):
    """Gradients of adapters 0 and 2: both are called, then each goes backward, and all are
    called in between."""
    stack, ids = stack_of(kata, 0, *values), (0, 2)
    for y in [stack(x, i) for i in ids]:
        if y.requires_grad:
            (y * g).sum().backward()
        for other in (1, *ids):
            stack(x, other)
    return [[p.grad for p in four(stack.adapters[i])] for i in ids]


@part("gradient")
def test_several_tasks_in_one_step(stage, draw):
    """Further calls, with any id, take nothing from an adapter's gradients."""
    first = layer_of(stage, draw, 0)
    x, g = first.pair(draw, 2, 3)
    for number, got in zip((0, 2), stage(two_at_once, first.values, x, g)):
        _, *want = layer_of(stage, draw, number, values=first.values).gradients(x, g)
        for name, grad, exact in zip(NAMES, got, want[4 * number :]):
            what = f"the gradient of {name} of adapter {number}, after further calls"
            require(grad is not None, f"{what}, is None")
            near(grad, exact, what=what)


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to the input, past the adapter and through it."""
    layer, cut = layer_of(stage, draw, 1, 3), {"input-gradient-cut": lambda x, *_: 1 * x}
    for lead in ((2, 3), ()):
        words = {"none": "input-gradient-cut", "needs": tuple(layer.places), "lead": lead}
        properties.gradient_to_the_input(stage, draw, layer, cut, **words)


@part("gradient")
def test_frozen_adapter(stage, draw):
    """An adapter that the caller froze stays frozen; the gradient flows through it to the input."""
    layer = layer_of(stage, draw, 1, 2)
    x, g = layer.pair(draw, 2, 3)
    got, own, _ = stage(gradients, x, g, "train", True, *layer.arguments)
    some = any(grad is not None for grads in own for grad in grads)
    require(not some, "all adapters were frozen, and after a forward some get gradients")
    require(got is not None, "no gradient reaches the input through a frozen adapter")
    near(got, layer.gradients(x, g)[0], what="the gradient to the input through a frozen adapter")


# state


@part("state")
def test_state_names(stage, draw):
    """Every adapter's tensors are in the state dict: adapters.<id>.down_proj.weight and so on."""
    names = [f"adapters.{number}.{name}" for number in range(3) for name in NAMES]
    properties.state_names(stage, layer_of(stage, draw, of=3), names)


def round_trip(kata, values, values2, x):
    first, second = stack_of(kata, 1, *values), stack_of(kata, 0, *values2)
    chosen_of(first, x), chosen_of(second, x)
    second.load_state_dict(first.state_dict())
    return [(second(x, i), first(x, i)) for i in range(3)]


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs."""
    pair = (layer_of(stage, draw, of=3).values for _ in range(2))
    for got, want in stage(round_trip, *pair, draw(5, D)):
        near(got, want.double(), what="the output after load_state_dict")


# dtype and device


@part("dtype")
def test_float64(stage, draw):
    """After .to(torch.float64) the outputs are float64, exact to 1e-9."""
    properties.in_dtype(stage, draw, layer_of(stage, draw, dtype=torch.float64))


@part("dtype")
def test_bfloat16(stage, draw):
    """After .to(torch.bfloat16) the outputs are bfloat16."""
    properties.in_dtype(stage, draw, layer_of(stage, draw, dtype=torch.bfloat16))


@part("device")
def test_meta_device(stage, draw):
    """After .to("meta") the outputs are there too."""
    properties.meta_device(stage, layer_of(stage, draw, of=3), moved=True)


# errors


def bad_id(kata, values, x, number, mode="train"):
    """What such an id gives, and what it would give if it counted from the end."""
    stack = stack_of(kata, 0, *values)
    stack.train(mode == "train")
    with torch.set_grad_enabled("no_grad" not in mode):
        y = stack(x, number)
    return y, x + stack.adapters[number].forward_delta(x) if -N <= number < 0 else None


@part("errors")
def test_id_too_large(stage, draw):
    """An adapter_id of num_adapters or more raises IndexError naming adapter_id."""
    values, x = layer_of(stage, draw).values, draw(5, D)
    stage(bad_id, values, x, CHOSEN)  # what fails on a legal id as well says nothing of others
    outcomes = {number: stage.attempt(bad_id, values, x, number) for number in (N, N + 1, 100)}
    own = [isinstance(o, Raised) and o.deliberate for o in outcomes.values()]
    slipped = f"adapter_id={N} of {N} adapters is not refused by the check that refuses {N + 1}"
    require(own != [False, True, True], slipped, "id-check-off-by-one")
    for number, outcome in outcomes.items():
        text = f"adapter_id={number} of {N} adapters"
        rejects(outcome, "IndexError", "adapter_id", what=text, bug="id-unchecked")


@part("errors")
def test_negative_id(stage, draw):
    """A negative adapter_id raises IndexError naming adapter_id; it does not count from the end."""
    values, x = layer_of(stage, draw).values, draw(5, D)
    for number in (-1, -3, -N, -N - 1):
        outcome = stage.attempt(bad_id, values, x, number)
        wraps = not isinstance(outcome, Raised) and outcome[1] is not None
        known = "negative-id-wraps" if wraps and torch.equal(*outcome) else None
        rejects(outcome, "IndexError", "adapter_id", what=f"adapter_id={number}", bug=known)


@part("errors")
def test_ids_are_always_checked(stage, draw):
    """Ids are checked in a stack of one too, for a single vector, in eval mode, under no_grad."""
    values, x = layer_of(stage, draw, of=3).values, draw(5, D)
    for of, v, mode in ((1, x, "train"), (3, x[0], "eval"), (3, x, "eval, no_grad")):
        for number in (of, -1):
            outcome = stage.attempt(bad_id, values[: 4 * of], v, number, mode)
            where = f"a stack of {of} (x {tuple(v.shape)}, {mode} mode)"
            rejects(outcome, "IndexError", "adapter_id", what=f"adapter_id={number} in {where}")


def of_number(kata, number):
    kata.AdapterStack(10, 4, number)


@part("errors")
def test_num_adapters_below_one(stage):
    """num_adapters < 1 raises ValueError naming num_adapters."""
    bugs = "number-unchecked", "number-zero-accepted"
    properties.at_least_one(stage, of_number, "num_adapters", *bugs, also=(-N,))


# gpu


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs on the accelerator are those of the CPU."""
    layer = layer_of(stage, draw)
    properties.accelerator(stage, draw, layer, layer.places)
