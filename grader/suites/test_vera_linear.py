"""What is checked of `vera_linear`. Contract: VeRA (Kopiczko et al. 2024), section 3.1."""

import itertools
from dataclasses import replace
from functools import partial

import torch
from torch.nn import functional as F

from grader.exam.checks import blame, close, near, part, rejects, require, same, tensor
from grader.exam.kit import linear, need, nn
from grader.suites.shared import wrapped
from grader.suites.shared.wrapped import ABSENT, MODES, Kind, made

OUT, IN, RANK = 12, 18, 7
SHARED = ("shared_A", "shared_B")


def pieces(draw, dtype=torch.float32, out=OUT, into=IN, rank=RANK):
    """weight, bias, vera_d, vera_b: the update is as large as the base."""
    W, b = draw(out, into, std=0.5, dtype=dtype), draw(out, std=2.0, dtype=dtype)
    d, v = draw(rank, dtype=dtype), draw(out, dtype=dtype)
    return W, b, d + 0.3 * d.sign(), v + 0.3 * v.sign()


def pair(draw, dtype, out=OUT, into=IN, rank=RANK):
    """The shared tensors."""
    A, B = draw(rank, into, std=0.4, dtype=dtype), draw(out, rank, std=0.5, dtype=dtype)
    return {"shared_A": A, "shared_B": B}


def mixed(mix):
    """As a formula: `mix` of the base's output, its bias, A x as rows, d, B turned, b."""

    def formula(x, W, b, d, v, shared_A, shared_B):
        low, up = x @ shared_A.to(x).T, shared_B.to(x).T
        return mix(F.linear(x, W, b), ABSENT if b is None else b, low, d, up, v)

    return formula


VERA = Kind(
    name="VeRALinear",
    learned=("vera_d", "vera_b"),
    values=pieces,
    given=pair,
    words=lambda *values, **options: options,
    right=mixed(lambda own, bias, low, d, up, v: own + (low * d) @ up * v),
    slips={
        "branch-missing": mixed(lambda own, bias, low, d, up, v: own + 0 * (low @ up)),
        "d-ignored": mixed(lambda own, bias, low, d, up, v: own + low @ up * v),
        "b-ignored": mixed(lambda own, bias, low, d, up, v: own + (low * d) @ up),
        "b-scales-base": mixed(lambda own, bias, low, d, up, v: (own + (low * d) @ up) * v),
        "divided-by-rank": mixed(
            lambda own, bias, low, d, up, v: own + (low * d) @ up * v / len(d)
        ),
        "base-dropped": mixed(lambda own, bias, low, d, up, v: (low * d) @ up * v),
        "bias-dropped": mixed(lambda own, bias, low, d, up, v: own - bias + (low * d) @ up * v),
    },
    off=("branch-missing", "branch-missing"),
    cuts={
        "input-gradient-cut": mixed(
            lambda own, _, low, d, up, v: own.detach() + (low * d) @ up * v
        ),
        "branch-input-detached": mixed(
            lambda own, bias, low, d, up, v: own + (low.detach() * d) @ up * v
        ),
    },
)
SWAPPED = {"d-and-b-swapped": mixed(lambda own, bias, low, d, up, v: own + (low * v) @ up * d)}


def at_start(case, d_initial=0.1):
    """It as it starts."""
    W, b, d, v = case.values
    return replace(case, values=(W, b, torch.full_like(d, d_initial), 0 * v))


def alike(draw, *lead, number=3, **sizes):
    """Layers around one pair of shared tensors."""
    first, *more = (VERA.case(draw, *lead, **sizes) for _ in range(number))
    return first, *(replace(case, options=first.options) for case in more)


# shape


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """Inputs are (..., in_features), contiguous or not: a single vector (in_features,), batches
    of one, and up to four dimensions."""
    leads = (2, 7), (2, 3, 4), (1, 1), (1,), (7, 7), (12, 12), (18, 18)
    wrapped.leading_dimensions(stage, draw, VERA, ((), *leads), None)
    wrapped.non_contiguous(stage, draw, VERA, None)


@part("shape")
def test_parameter_shapes(stage, draw):
    """vera_d is (r,), vera_b is (out_features,)."""
    case = VERA.case(draw, 1)
    got = stage(wrapped.attributes, case.fresh, VERA.learned)
    shapes = [tuple(tensor(value, n).shape) for value, n in zip(got, VERA.learned, strict=True)]
    bug = "d-and-b-swapped" if shapes == [(OUT,), (RANK,)] else None
    for name, shape, size in zip(VERA.learned, shapes, (RANK, OUT), strict=True):
        require(shape == (size,), f"{name} has shape {shape}, expected ({size},)", bug)


@part("shape")
def test_any_layer_size(stage, draw):
    """Layers are wide, tall or square, with a single input or output too, at any rank."""
    sizes = (IN, OUT, RANK), (OUT, IN, 2), (OUT, IN, IN + 2), (1, IN, RANK), (OUT, 1, RANK)
    cases = [VERA.case(draw, o, out=o, into=i, rank=r) for o, i, r in sizes]
    cases += [VERA.case(draw, *lead, rank=1) for lead in ((OUT,), (2, 1))]
    wrapped.all_right(stage, [*cases, *(case.at(draw) for case in cases)], wide)
    equal = [VERA.case(draw, 6, out=6, into=into, rank=6) for into in (6, 9)]
    wrapped.all_right(stage, [*equal, VERA.case(draw, out=1, into=1, rank=1)], wide, SWAPPED)


def wide(case):
    """Whether each mistake shows on it."""
    return min(*case.values[0].shape, len(case.values[2])) > 1


# init


@part("init")
def test_base_is_the_layer_passed_in(stage, draw):
    """`base` is the very layer passed in, its values untouched."""
    wrapped.keeps_base(stage, VERA.case(draw, 1))


def vectors(kata, name, weight, bias, learned, words, calls):
    """vera_d and vera_b of layers around one base and one pair; and how many storages they have."""
    base, held = linear(weight, bias), []
    for args, more in calls:
        layer = getattr(kata, name)(base, *args, **({} if args else words), **more)
        held += [need(layer, "vera_d"), need(layer, "vera_b")]
    return held, len({p.untyped_storage().data_ptr() for p in held})


@part("init")
def test_vectors_start_at_d_initial_and_zero(stage, draw):
    """vera_d starts at d_initial (0.1 unless given) in each entry, vera_b at exactly zero, so that
    at the start the layer computes what the base does."""
    for case in (VERA.case(draw, 5), VERA.case(draw, 5, rank=OUT)):
        rank = len(case.values[2])
        A, B = case.options.values()
        calls = [((), {"d_initial": 0.25}), ((), {}), ((A, B, -2), {}), ((), {"d_initial": 0.0})]
        held, storages = stage(vectors, *case.fresh, calls)
        require(storages == 2 * len(calls), "two layers share a vector, or one's two storage")
        for d, b, want in zip(held[::2], held[1::2], (0.25, 0.1, -2.0, 0.0), strict=True):
            right, known, bug = torch.full((rank,), want), {}, None
            if want == 0.25:  # the first, which shows whether it is looked at
                known = {"d-initial-ignored": torch.full((rank,), 0.1)}
            if want == 0.1 and not close(tensor(d, "vera_d"), right, 0.1, 0):
                bug = "default-differs"
            what = f"vera_d at the start, d_initial {'left out' if want == 0.1 else want}"
            near(d, right, what=what, rtol=1e-6, atol=0, unless=known, bug=bug)
            bug = "b-not-zero" if tuple(tensor(b, "vera_b").shape) == (OUT,) else None
            near(b, torch.zeros(OUT), what="vera_b at the start", rtol=0, atol=0, bug=bug)
        wrapped.starts_as(stage, at_start(case))


@part("init")
def test_arguments(stage, draw):
    """base, shared_A, shared_B and d_initial, by place or by name."""
    case = VERA.case(draw, 5)
    A, B = case.options.values()
    told = (((A, B), {}, "both by place"), ((A,), {"shared_B": B}, "shared_A by place"))
    told += (((), dict(reversed(case.options.items())), "all by name, in another order"),)
    wrapped.by_arguments(stage, [(case, *one, None) for one in told])


def sharing(kata, layer, other, news, x, way, mode):
    """The outputs of two layers around one pair of passed tensors, after each in-place change of
    one of them; that of a third, which is not called before the last; and the tensors as they
    then are. Before the changes in `.data` the layers load their own state."""

    def passed(value):
        if way == "a slice":
            return torch.stack([value, value], dim=2)[:, :, 0]
        if way == "transposed":
            return value.T.contiguous().T
        trains = way == "a Parameter"
        return nn.Parameter(value.clone(), trains) if "Parameter" in way else value.clone()

    unheld = made(kata, *layer[:-1], {n: passed(v) for n, v in layer[-1].items()})
    held = {n: passed(v) for n, v in layer[-1].items()}
    with torch.set_grad_enabled(way != "a layer made under no_grad"):
        layers = [made(kata, *one[:-1], held) for one in (layer, other, layer)]
    *layers, last = layers
    seen = [(y := unheld(x).detach(), y)]
    for number, (name, new) in enumerate(news):
        for one in layers:
            getattr(one, mode)()
            if number == 3:
                one.load_state_dict(one.state_dict())
        if name:
            with torch.no_grad():
                (held[name] if number < 3 else held[name].data).copy_(new)
        for one in layers:
            with torch.no_grad():
                silent = one(x)
            seen.append((silent, one(x).detach().clone()))
    return seen, last(x).detach(), {n: v.detach().clone() for n, v in held.items()}


WAYS = (  # what is passed, the base's dtype, and whether it has a bias
    ("a plain tensor", torch.float32, True),
    ("a Parameter", torch.float32, True),
    ("a frozen Parameter", torch.float64, True),
    ("a slice", torch.float32, False),
    ("transposed", torch.float32, True),
    ("a layer made under no_grad", torch.float32, True),
)


@part("init")
def test_shared_tensors_are_those_passed_in(stage, draw):
    """The shared tensors are never copied and never changed: an in-place change of one shows in
    every layer built on it, in either mode; a Parameter or a view may be passed."""
    for (way, dtype, bias), mode in itertools.product(WAYS, MODES):
        first, second = alike(draw, 5, number=2, dtype=dtype, bias=bias)
        second = replace(second, x=first.x)
        pairs = [first.options, *(pair(draw, dtype) for _ in range(2))]
        news = [(None, None), *((name, two[name]) for two in pairs[1:] for name in SHARED)]
        told = first.layer, second.layer, news, first.x, way, mode
        seen, last, kept = stage(sharing, *told)
        now = first.options
        right = partial(near, dtype=dtype)
        right(seen.pop(0)[1], first.output(), what=f"the output, {way}")
        stale = [
            {"shared_A": a["shared_A"], "shared_B": b["shared_B"]} for a in pairs for b in pairs
        ]
        stale = [replace(first, options=one).output() for one in stale[:-1]]
        for number, (silent, y) in enumerate(seen):
            change, case = number // 2, (first, second)[number % 2]
            name, new = news[change]
            now = {**now, name: new} if name else now
            if name and number == 2:
                known = {"shared-copied": wrapped.nearest(last, stale)}
                what = f"the output after the shared tensors ({way}) changed ({mode} mode)"
                right(last, replace(first, options=pairs[-1]).output(), what=what, unless=known)
            what = f"the output after {name} ({way}) changed" if name else f"the output, {way}"
            for got in (silent, y):
                want = replace(case, options=now).output()
                right(got, want, what=f"{what} ({mode} mode)")
        for name, value in kept.items():
            same(value, now[name], f"{name} ({way})", "shared-changed")


# freeze


def after_training(kata, layer, x, g, trains, mode):
    """What is left of the passed tensors after a step of all that trains, and after a loading."""
    name, weight, bias, learned, words = layer
    held = {
        n: nn.Parameter(v.clone(), trains[0]) if trains else v.clone() for n, v in words.items()
    }
    before = {n: v.requires_grad for n, v in held.items()}
    made(kata, name, weight, bias, learned, held)
    layer = made(kata, name, weight, bias, learned, held)
    getattr(layer, mode)()
    storages = {v.untyped_storage().data_ptr(): n for n, v in held.items()}
    trained = [p for p in layer.parameters() if p.requires_grad]
    (layer(x.clone().requires_grad_()) * g).sum().backward()
    got = {
        "trained": [n for p in trained if (n := storages.get(p.untyped_storage().data_ptr()))],
        "grads": [n for n, v in held.items() if v.grad is not None],
        "flags": [n for n, v in held.items() if v.requires_grad != before[n]],
    }
    with torch.no_grad():
        for p in trained:
            p.mul_(0.9)
    layer.load_state_dict(layer.state_dict())
    return got, {n: v.detach().clone() for n, v in held.items()}


@part("freeze")
def test_shared_tensors_do_not_train(stage, draw):
    """The shared tensors are not trained and get no gradient; a Parameter that is passed keeps its
    requires_grad."""
    ways = [*itertools.product(((), (True,), (False,)), MODES, ((5,),))]
    ways += [((True,), mode, lead) for mode in MODES for lead in ((), (2, 3), (1, 2, 2))]
    for trains, mode, lead in ways:
        case = VERA.case(draw, *lead)
        got, kept = stage(after_training, case.layer, case.x, case.g, trains, mode)
        passed = f"passed as {'a Parameter' if trains else 'a plain tensor'}"
        for name in (*got["trained"], *got["grads"]):
            text = f"{name}, {passed}, " + ("trains" if got["trained"] else "gets a gradient")
            require(False, text, "shared-trained")
        for name in got["flags"]:
            require(False, f"requires_grad of {name}, {passed}, has changed", "shared-flag-changed")
        for name, value in kept.items():
            same(value, case.options[name], f"{name} after a training step", "shared-changed")


@part("freeze")
def test_only_the_vectors_train(stage, draw):
    """Weight and bias of the base do not require and never receive a gradient. vera_d and vera_b
    are registered parameters that train, and no other one does. train() and eval() return the
    layer."""
    case = VERA.case(draw, 5)
    wrapped.base_frozen(stage, case)
    got = wrapped.only_learned_train(stage, case, "no-parameter")
    require(got["returned"], "train() and eval() should return the layer")


# forward


@part("forward")
def test_adds_the_update(stage, draw):
    """forward(x) = base(x) + vera_b * (shared_B @ (vera_d * (shared_A @ x)))."""
    case = VERA.case(draw, 3, 4)
    for mode, y in zip(MODES, stage(wrapped.in_each_mode, *case.call)):
        wrapped.computes(y, case, mode=mode)
    W, b, d, v = case.values
    zeros = ((0 * d, v), (d, 0 * v), (d * (d > 0), v * (v > 0)))
    some = [replace(case, values=(W, b, *one)) for one in zeros]
    wrapped.all_right(stage, some, named=lambda case: False)


@part("forward")
def test_without_a_bias(stage, draw):
    """A base without bias works."""
    wrapped.without_bias(stage, draw, VERA, None)


@part("forward")
def test_input_unchanged(stage, draw):
    """The input is not changed in place."""
    cases = [VERA.case(draw, *lead) for lead in ((5,), ())]
    wrapped.inputs_unchanged(stage, [*cases, VERA.case(draw, 5, out=IN, rank=IN)])


def walked(stage, draw, mode, *lead):
    """A layer in this mode of which vectors and base change, in place and in `.data`."""
    first, second, third = alike(draw, *lead)
    steps = wrapped.changes(
        first,
        mode,
        (second, "set", "vera_d"),
        (second, "set", "vera_b"),
        (second, "set", "base.weight", "base.bias"),
        (first, "data", "vera_d"),
        (first, "data", "vera_b"),
        (first, "replace", "base.weight"),
        (third, "load"),
    )
    return wrapped.walked(stage, first, steps)


def kept_values(step, past):
    """The cases where weight or vectors are those of the step before."""
    if not past:
        return {}
    places = (0, 1), (0,), (2,), (3,), (2, 3), (0, 1, 2, 3)
    return {"value-kept": [step.now.having(past[0], *some) for some in places]}


@part("forward")
def test_follows_its_parameters(stage, draw):
    """Each forward uses the values that base and vectors have now, in either mode and under
    no_grad."""
    for mode in MODES:
        wrapped.outputs_follow(walked(stage, draw, mode, 5), mode, kept_values)


# gradient


SHAPES = (  # out, in, rank, leading shape
    (OUT, IN, RANK, (2, 3)),
    (OUT, IN, RANK, ()),
    (OUT, IN, 1, (1,)),
    (6, 6, 6, (6, 6)),
    (1, IN, RANK, (3,)),
    (OUT, 1, RANK, (3,)),
    (OUT, IN, RANK, (2, 2, 3)),
)


def of_all_shapes(draw):
    """Layers of these shapes; one without a bias."""
    cases = [VERA.case(draw, *lead, out=o, into=i, rank=r) for o, i, r, lead in SHAPES]
    return [*cases, VERA.case(draw, 2, 3, bias=False)]


@part("gradient")
def test_gradients_of_the_vectors(stage, draw):
    """vera_d and vera_b get the exact gradients, in training and in eval mode, also where x needs
    none, and while entries of the vectors, or all, are zero."""
    wrapped.learned_gradients(stage, of_all_shapes(draw), "gets-no-gradient", "gets-no-gradient")
    case = VERA.case(draw, 2, 3)
    W, b, d, v = case.values
    still = replace(case, values=(W, b, 0 * d, v))
    some = replace(case, values=(W, b, d * (torch.arange(RANK) % 2), v * (torch.arange(OUT) % 2)))
    wrapped.all_gradients(stage, [at_start(case), still, some])


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to x, through the base and through the branch."""
    wrapped.input_gradients(stage, of_all_shapes(draw), wide)


@part("gradient")
def test_gradients_follow_the_parameters(stage, draw):
    """Each gradient is that of the values that base and vectors have now."""
    for mode in MODES:
        wrapped.gradients_follow(walked(stage, draw, mode, 2, 3), mode)


@part("gradient")
def test_two_calls_in_one_graph(stage, draw):
    """A layer that is called twice before the backward pass gets the sum of both gradients."""
    case = VERA.case(draw, 4)
    wrapped.gradients_add_up(stage, case, case.at(draw, 4))


# state


@part("state")
def test_state(stage, draw):
    """The vectors and the base's tensors are in the state dict under these names; load_state_dict
    of another instance's state reproduces its outputs, where both are built on equal shared
    tensors."""

    def bug(name, there):
        return "base-not-in-state" if name.startswith("base.") else None

    names = (*VERA.learned, "base.weight", "base.bias")
    wrapped.state_names(stage, VERA.case(draw, 1), names, bug)
    shared = pair(draw, torch.float32)
    kind = replace(VERA, given=lambda draw, dtype, **sizes: shared)
    wrapped.state_round_trip(stage, draw, kind)


# dtype and device


def right_in_dtype(stage, draw, dtype):
    for bias in (True, False):
        case = VERA.case(draw, 1, dtype=dtype, bias=bias)
        wrapped.learned_are(stage, case, "float32-vectors")
        (d,) = stage(wrapped.attributes, case.fresh, ("vera_d",))
        want = torch.full((RANK,), 0.1, dtype=torch.float64)
        near(d, want, what="vera_d at the start", dtype=dtype)
    for lead, mode, bias in (((5,), "train", True), ((2, 3), "eval", False), ((), "eval", True)):
        wrapped.in_dtype(stage, VERA.case(draw, *lead, dtype=dtype, bias=bias), mode)


@part("dtype")
def test_float64(stage, draw):
    """A float64 base gives float64 vectors and outputs, exact to 1e-9."""
    right_in_dtype(stage, draw, torch.float64)


@part("dtype")
def test_bfloat16(stage, draw):
    """A bfloat16 base gives bfloat16 vectors and outputs."""
    right_in_dtype(stage, draw, torch.bfloat16)


@part("dtype")
def test_after_a_cast(stage, draw):
    """A layer that was made in float32 works after .to(float64), also of a module around it, after
    .to(bfloat16), and when it is moved back."""
    case, wide, half = VERA.case(draw, 5), torch.float64, torch.bfloat16
    with blame("shared-left-behind", "dtype", "Double", "double", "BFloat16"):
        wrapped.after_move(stage, case, wide, dtype=wide)
        wrapped.after_move(stage, case, (wide, torch.float32))
        wrapped.after_move(stage, case, half, dtype=half)


@part("device")
def test_meta_device(stage, draw):
    """A base and shared tensors on the meta device give vectors and outputs there."""
    case = VERA.case(draw, 2, 5)
    there = {name: v.to("meta", torch.bfloat16) for name, v in case.options.items()}
    case = replace(case, options=there)
    wrapped.meta_device(stage, case, (None, "float32-vectors"))


# errors


@part("errors")
def test_shapes_that_do_not_fit(stage, draw):
    """Shared tensors that do not fit base or each other raise ValueError naming one of them,
    before anything is changed: larger ones too, and those of other numbers of dimensions."""
    two = {out: VERA.case(draw, 1, out=out) for out in (OUT, 1)}
    for bug, *wrong in (
        ("shapes-unchecked", ((RANK, IN - 1), None), (None, (OUT - 1, RANK)), (None, (1, RANK))),
        ("shapes-unchecked", ((IN, RANK), None), (None, (RANK, OUT)), ((RANK, 1), None)),
        ("larger-shapes-sliced", ((RANK, IN + 1), None), (None, (OUT + 1, RANK))),
        ("ranks-unchecked", (None, (OUT, RANK - 1)), (None, (OUT, 1)), ((RANK - 1, IN), None)),
        ("ranks-unchecked", (None, (OUT, RANK + 1)), ((RANK + 1, IN), None), ((1, IN), None)),
        ("dimensions-unchecked", ((IN,), None), ((IN,), (OUT, IN)), (None, (OUT,))),
        ("dimensions-unchecked", ((IN,), (OUT, 1)), ((IN,), (OUT,)), ((1, IN), (OUT,))),
        ("dimensions-unchecked", (None, (RANK,), 1)),
        ("dimensions-unchecked", ((1, RANK, IN), None), (None, (1, OUT, RANK))),
        ("dimensions-unchecked", ((RANK, IN, 1), None), (None, (OUT, RANK, 1))),
        ("dimensions-unchecked", ((RANK, 1, IN), None), (None, (OUT, 1, RANK))),
    ):
        for *shapes, out in ((*one, OUT)[:3] for one in wrong):
            case = two[out]
            given = zip(SHARED, shapes, case.options.values(), strict=True)
            words = {n: v if shape is None else draw(*shape) for n, shape, v in given}
            told = ", ".join(f"{name} {tuple(v.shape)}" for name, v in words.items())
            name, W, *_ = case.fresh
            outcome = stage.attempt(built, name, W, words)
            what = f"{told} for a base {IN} -> {out}"
            rejects(outcome, "ValueError", SHARED, what=what, bug=bug)
        trains, there, values = stage(wrapped.after_error, name, W, words)
        text = "the base was frozen before ValueError was raised"
        require(trains, text, "checked-after-freeze")
        require(there, "the base has other parameters or modes after the ValueError")
        same(values[0], W, "the base's weight after the ValueError")
        for given, (still, value) in stage(refused, name, W, words).items():
            require(still, f"requires_grad of {given} has changed after the ValueError")
            same(value, words[given], f"{given} after the ValueError")


def built(kata, name, weight, words):
    getattr(kata, name)(linear(weight), **words)


def refused(kata, name, weight, words):
    """Parameters that were passed and refused: whether they still train, and their values."""
    held = {n: nn.Parameter(v) for n, v in words.items()}
    try:
        built(kata, name, weight, held)
    except ValueError as error:
        del error
    return {n: (p.requires_grad, p.detach()) for n, p in held.items()}


# gpu


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU, also of a layer that was
    moved there, and nothing stays behind."""
    case = VERA.case(draw, 4, 5)
    wrapped.accelerator(stage, case, (), None)
    wrapped.after_move(stage, case, stage.device, rtol=1e-3, atol=1e-3)
