"""What is checked of `multi_lora_batch`. Contract: Punica (Chen et al. 2023), section 4."""

import itertools
import math
from dataclasses import replace

import torch
from torch.nn import functional as F

from grader.exam.checks import (
    CheckFailed,
    LearnerRaised,
    Raised,
    blame,
    counted,
    fail,
    near,
    part,
    rejects,
    require,
    same,
    tensor,
)
from grader.exam.kit import CheapMeta, count, linear, nn
from grader.suites.shared import lowrank, wrapped
from grader.suites.shared.lowrank import ALPHA, FACTORS, RANK
from grader.suites.shared.wrapped import (
    ABSENT,
    MODES,
    Step,
    called,
    loaded,
    made,
    shown,
    writing,
)

OUT, IN, N, ROWS = 12, 18, 5, 8


def pieces(draw, dtype=torch.float32, n=N, out=OUT, into=IN, rank=RANK):
    """weight, bias, A, B: the updates are as large as the base."""
    return (
        draw(out, into, std=0.5, dtype=dtype),
        draw(out, std=2.0, dtype=dtype),
        draw(n, rank, into, std=0.4, dtype=dtype),
        draw(n, out, rank, std=0.6, dtype=dtype),
    )


def mixed(draw):
    """8 ids of 5 adapters in no order: one repeated twice, one once, one absent, and a -1."""
    while True:
        a, b, c, d, _ = torch.randperm(N, generator=draw.generator).tolist()
        ids = torch.tensor([a, a, a, b, b, c, d, -1])
        ids = ids[torch.randperm(ROWS, generator=draw.generator)]
        order = ids.argsort(stable=True)
        tangled = order[order] != torch.arange(ROWS)
        if ids[0] not in (a, -1) and int(tangled.sum()) > 2:
            return ids


def through(x, matrices, ids):
    """Row i of x (B, ..., in) times the matrix (out, in) of its id; zero for -1. float64."""
    rows = x.double().reshape(len(x), -1, x.shape[-1])
    y = rows @ matrices.double()[ids.clamp(min=0)].mT
    y[ids < 0] = 0
    return y.reshape(*x.shape[:-1], -1)


def arguments(weight, bias, A, B, alpha=ALPHA):
    return {"num_adapters": len(A), "rank": A.shape[1], "alpha": alpha}


def chosen(draw, *lead):
    """The ids of a batch."""
    return (mixed(draw) if lead[0] == ROWS else draw.integers(-1, N, lead[0]),)


def picking(pick):
    """As a formula: the layer with other ids than it is given."""
    return lambda x, ids, *values, **o: MULTI.right(x, pick(ids, len(values[2])), *values, **o)


def moving(move):
    """As a formula: what `move` makes of base and update, the order that sorts the ids, and a
    mask of the rows that have an adapter."""

    def formula(x, ids, *values, **options):
        base = F.linear(x, *values[:2])
        update = MULTI.right(x, ids, *values, **options) - base
        kept = (ids >= 0).view(-1, *[1] * (x.ndim - 1))
        return move(base, update, ids.argsort(stable=True), kept)

    return formula


def summed(x, ids, *values, **options):
    base = F.linear(x, *values[:2])
    each = (torch.full_like(ids, k) for k in range(len(values[2])))
    return base + sum(MULTI.right(x, k, *values, **options) - base for k in each)


def tiled(x, ids, *values, **options):
    """The rows flattened, and the ids repeated as if the batch were the last dimension of them."""
    flat = x.reshape(-1, x.shape[-1])
    y = MULTI.right(flat, ids.repeat(len(flat) // len(x)), *values, **options)
    return y.reshape(*x.shape[:-1], -1) * (1 if x.ndim > 2 else ABSENT)


MULTI = lowrank.beside(
    lambda x, W, b: F.linear(x, W, b),
    lambda x, ids, A, B: through(x, B @ A, ids),
    name="MultiLoRALinear",
    values=pieces,
    words=arguments,
    more=chosen,
    in_eval="eval-disables-adapters",
    slips={
        "minus-one-is-last": picking(lambda ids, n: ids % n),
        "minus-one-is-first": picking(lambda ids, n: ids.clamp(min=0)),
        "id-zero-is-none": picking(lambda ids, n: torch.where(ids == 0, -1, ids)),
        "first-id-for-all": picking(lambda ids, n: ids[:1].expand_as(ids)),
        "minus-one-drops-base": moving(lambda base, up, order, kept: (base + up) * kept),
        "not-put-back": moving(lambda base, up, order, kept: base + up[order]),
        "put-back-by-order": moving(lambda base, up, order, kept: base + up[order][order]),
        "output-stays-sorted": moving(lambda base, up, order, kept: (base + up)[order]),
        "adapters-summed": summed,
        "ids-tiled": tiled,
    },
)


def having_ids(case, ids):
    return replace(case, more=(torch.as_tensor(ids),))


# shape


@part("shape")
def test_factor_shapes(stage, draw):
    """lora_A is (num_adapters, rank, in_features), lora_B (num_adapters, out_features, rank)."""
    wrapped.shapes(stage, MULTI.case(draw, 1))


def fits(stage, case):
    """Whether the output is right."""
    try:
        near(stage(wrapped.outputs, *case.call, ("train",))[0], case.output())
    except CheckFailed:
        return False
    return True


@part("shape")
def test_any_dimensions_between(stage, draw):
    """x is (B, ..., in_features): any number of dimensions between, also none."""
    case = MULTI.case(draw, ROWS)
    cases = [case.at(draw, ROWS, *between) for between in ((), (3,), (2, 3), (1,), (3, 1, 2))]
    # What is right for one number of dimensions and wrong for another is wrong in that.
    bug = "leading-dims" if any(fits(stage, case) for case in cases[:2]) else None
    for case in cases:
        try:
            with blame(bug):
                (y,) = stage(wrapped.outputs, *case.call, ("train",))
        except LearnerRaised as error:
            none = having_ids(case, case.more[0].clamp(min=0))
            refused = "adapter_ids" in error.text and fits(stage, none)
            error.bug = "minus-one-refused" if refused else error.bug
            raise
        wrapped.computes(y, case, f"the output for {shown(case)}", bug=bug)


def run_all(kata, layer, inputs):
    layer = made(kata, *layer)
    learning = [layer(x, ids) for x, ids in inputs]
    layer.eval()
    with torch.no_grad():
        return learning + [layer(x, ids) for x, ids in inputs]


def all_right(stage, cases, bug=None):
    """The outputs of one layer for these inputs, one call after the other; then in eval mode under
    no_grad. bug: the mistake if a call raises, or an output has lost dimensions of one."""
    with blame(bug):
        ys = stage(run_all, cases[0].layer, [(case.x, *case.more) for case in cases])
    for number, (y, case) in enumerate(zip(ys, cases * 2, strict=True)):
        ids = case.more[0].tolist()
        text = f"the output for {shown(case)} and ids {ids if len(ids) <= 12 else 'of many kinds'}"
        text += " in eval mode under no_grad" if number >= len(cases) else ""
        want = case.output()
        shape = tuple(tensor(y, text).shape)
        large = [[d for d in dims if d > 1] for dims in (shape, want.shape)]
        squeezed = shape != want.shape and large[0] == large[1]
        near(y, want, what=text, bug=bug if squeezed else None)


@part("shape")
def test_one_row(stage, draw):
    """A batch of one row works, whichever its id; with one adapter too."""
    case = MULTI.case(draw, 2)
    all_right(stage, [having_ids(case, [0, 1])])
    for n, one in ((N, case), (1, MULTI.case(draw, 1, n=1))):
        ways = itertools.product(range(n), ((), (4,)))
        cases = [having_ids(one.at(draw, 1, *between), [k]) for k, between in ways]
        all_right(stage, cases, "size-of-one")


def run_strided(kata, layer, x, ids):
    layer = made(kata, *layer)
    turned = x.transpose(0, 1)
    return (
        layer(turned, ids),
        layer(turned[:, ::2], ids.repeat_interleave(2)[::2]),
        layer(turned.unflatten(1, (2, 3)).transpose(1, 2), ids),
        layer(x[0, :1].expand(len(ids), -1), ids),
    )


@part("shape")
def test_non_contiguous_inputs(stage, draw):
    """Neither x nor adapter_ids need be contiguous."""
    case, x = MULTI.case(draw, ROWS), draw(6, ROWS, IN)
    turned = x.transpose(0, 1)
    crossed = turned.unflatten(1, (2, 3)).transpose(1, 2)
    views = turned, turned[:, ::2], crossed, x[0, :1].expand(ROWS, -1)
    all_right(stage, [case])
    with blame("contiguous-only", "view size is not compatible", "contiguous"):
        ys = stage(run_strided, case.layer, x, *case.more)
    for y, view in zip(ys, views, strict=True):
        near(y, replace(case, x=view).output(), what="the output for a non-contiguous x")


@part("shape")
def test_any_sizes(stage, draw):
    """Any layer, rank, batch and number of adapters: one, hundreds, and all sizes alike."""
    for n, rows, between, out, into, rank in (
        (1, 4, (2,), 5, 9, 2),
        (2, 70, (), 4, 6, 3),
        (4, 4, (4,), 4, 4, 4),
        (3, 3, (3, 3), 3, 3, 3),
        (300, 90, (2,), 3, 5, 1),
        (3, 2, (7,), 9, 4, 1),
        (6, 3, (5,), 2, 30, 5),
        (9, 18, (), 3, 5, 2),
        (2, 5, (), 1, 4, 2),
        (9, 1, (), 1, 1, 1),
        (1, 1, (1,), 1, 1, 1),
    ):
        case = MULTI.case(draw, rows, *between, n=n, out=out, into=into, rank=rank)
        ids = torch.randperm(n, generator=draw.generator).repeat(rows // n + 1)[:rows]
        ids[rows // 2] = -1 if rows > 1 else n - 1
        all_right(stage, [having_ids(case, ids)])


# init


@part("init")
def test_starts_as_the_base(stage, draw):
    """At the start every row gets what the base computes."""
    case = MULTI.case(draw, ROWS, rank=4, options={"alpha": 6.0})
    wrapped.starts_as(stage, lowrank.at_start(case))


@part("init")
def test_b_starts_at_zero(stage, draw):
    """lora_B starts at exactly zero."""
    lowrank.b_starts_at_zero(stage, draw, MULTI, n=3)


@part("init")
def test_a_starts_random(stage, draw):
    """lora_A starts random: each adapter's own, of full row rank, not the same every time."""
    lowrank.a_starts_random(stage, draw, MULTI, math.inf, n=3)


def by_names(kata, weight, bias):
    layer = kata.MultiLoRALinear(base=linear(weight, bias), num_adapters=3, rank=8, alpha=2.0)
    return layer(x=torch.ones(2, weight.shape[1]), adapter_ids=torch.tensor([0, -1]))


@part("init")
def test_defaults_and_attributes(stage, draw):
    """rank 8, alpha 16, scale = alpha / rank; arguments by place or by name."""
    case = MULTI.case(draw, 1, out=20, into=30, n=3)
    stage(by_names, *case.values[:2])
    lowrank.defaults(stage, case, before=(("num_adapters", 3),))


@part("init")
def test_base_is_the_layer_passed_in(stage, draw):
    """`base` is the very layer passed in, its values untouched."""
    wrapped.keeps_base(stage, MULTI.case(draw, 1), "base-reinitialised")


# freeze


@part("freeze")
def test_base_is_frozen(stage, draw):
    """Weight and bias of the base do not require and never receive a gradient."""
    thawed = {"weight": "base-thawed", "bias": "base-thawed"}
    wrapped.base_frozen(stage, MULTI.case(draw, ROWS), thawed=thawed)


@part("freeze")
def test_only_the_factors_train(stage, draw):
    """lora_A and lora_B are registered parameters, and no other parameter trains."""
    wrapped.only_learned_train(stage, MULTI.case(draw, ROWS))


# forward


@part("forward")
def test_each_row_uses_its_own_adapter(stage, draw):
    """Row i: base(x[i]) plus alpha / rank times the update of adapter adapter_ids[i]."""
    for case in (MULTI.case(draw, ROWS, 4), MULTI.case(draw, ROWS, 4, out=IN)):
        for mode, y in zip(MODES, stage(wrapped.in_each_mode, *case.call)):
            wrapped.computes(y, case, mode=mode)


@part("forward")
def test_minus_one_is_the_base_alone(stage, draw):
    """The id -1 means the base alone; a whole batch of it too."""
    case, ids = MULTI.case(draw, ROWS), torch.tensor([-1, 2, -1, -1, N - 1, 0, -1, 2])
    for between in ((), (3,)):
        all_right(stage, [having_ids(case.at(draw, ROWS, *between), ids)])
        for rows in (ROWS, 1):
            alone = having_ids(case.at(draw, rows, *between), [-1] * rows)
            all_right(stage, [alone], "idle-batch-fails" if rows > 1 else None)


@part("forward")
def test_any_order_and_number(stage, draw):
    """Ids come in any order, however often: sorted, reversed, interleaved, all the same, all."""
    count_up = torch.arange(ROWS) % N
    lists = [
        count_up,
        count_up.sort()[0],
        count_up.sort(descending=True)[0],
        torch.full((ROWS,), 3),
        torch.full((ROWS,), N - 1),
        torch.tensor([4] * 7 + [0]),
        torch.tensor([0, -1] * 4),
        torch.arange(-1, N),
        torch.tensor([2] * 39 + [1]),
        draw.integers(-1, N, 40),
    ]
    case = MULTI.case(draw, ROWS)
    all_right(stage, [having_ids(case.at(draw, len(ids), 2), ids) for ids in lists])


@part("forward")
def test_without_a_bias(stage, draw):
    """A base without bias works."""
    leads = (ROWS,), (ROWS, 3), (ROWS, 2, 1, 3)
    wrapped.without_bias(stage, draw, MULTI, "bias-required", leads)


@part("forward")
def test_alpha_below_rank(stage, draw):
    """Also where alpha is smaller than rank, 0 or negative."""
    wrapped.any_alpha(stage, MULTI.case(draw, ROWS), (2, 0, -5))


@part("forward")
def test_inputs_unchanged(stage, draw):
    """Neither x nor adapter_ids is changed in place."""
    cases = [MULTI.case(draw, ROWS), MULTI.case(draw, ROWS, 3)]
    wrapped.inputs_unchanged(stage, cases, ("x", "adapter_ids"))


def steps(draw, case, mode, graph):
    """Other ids, written into the same tensor; factors and base changed, fewer rows, a load."""
    other, own = MULTI.case(draw, ROWS, 2), case.more[0]
    found = [
        called(case, "train" if mode == "each" else mode),
        Step("ids changed in place", "set", {}, having_ids(case, own.roll(3))),
        Step("ids changed back", "set", {}, case),
        # In `.data`: what a version counter does not tell.
        writing(case, other, "lora_A", verb="set" if graph else "replace"),
    ]
    last = found[-1].now
    found.append(writing(last, other, "lora_B", verb="set" if graph else "data"))
    found.append(writing(found[-1].now, other, "base.weight"))
    few = replace(found[-1].now, x=case.x[3:], g=case.g[3:], more=(own[3:],))
    found += [Step("a call for fewer rows", "set", {}, few), loaded(few, case)]
    if mode != "each":
        return found
    turns = itertools.cycle(("eval", "train"))
    return [step for one in found for step in (one, called(one.now, next(turns)))]


KEPT = "kept-between-calls"


def kept_values(step, past):
    """What it gives to keep ids or values of an earlier call; but a copy of the base, made with
    the layer, gives the same as one kept: no name."""
    now, ids = step.now, step.now.more[0]
    if not past or "base" in step.words:
        return {}
    forms = [replace(now, values=old.values) for old in past]
    forms += [replace(now, more=old.more) for old in past if old.more[0].shape == ids.shape]
    return {KEPT: forms}


@part("forward")
def test_follows_ids_and_parameters(stage, draw):
    """Each forward uses the ids and the parameters of the moment, in either mode."""
    ways = [(mode, graph) for graph in (True, False) for mode in MODES]
    for mode, graph in (*ways, ("each", True)):
        case = MULTI.case(draw, ROWS, 2)
        walked = wrapped.walked(stage, case, steps(draw, case, mode, graph), graph, bug=KEPT)
        wrapped.outputs_follow(walked, mode, kept_values)
        alone = None
        if graph and mode != "each":  # what does a new layer that is called once give?
            ((*_, alone),) = wrapped.seen_gradients(stage, [case], (((mode,), True, True),))
        flows = alone is not None and all(grad is not None for grad in alone["learned"])
        wrapped.gradients_follow(walked, mode, none=KEPT if flows else None)


# gradient


def both(draw):
    """Cases for x of three and of two dimensions."""
    case = MULTI.case(draw, ROWS, 3)
    return [case, replace(case.at(draw, ROWS), more=case.more)]


@part("gradient")
def test_gradients_of_the_factors(stage, draw):
    """lora_A and lora_B get the exact gradients, summed over rows, in training and eval mode."""
    for case in both(draw):
        none = "factors-get-no-gradient", "eval-no-gradient"
        wrapped.learned_gradients(stage, [case], *none)


def only(stage, cases, rest, words):
    """Factors get no gradient but zero in the rest of the adapters."""
    for case in cases:
        for _, _, got in wrapped.seen_gradients(stage, [case], EACH):
            for name, grad in zip(FACTORS, got["learned"], strict=True):
                for k in rest if grad is not None else ():
                    zero = bool((grad[k] == 0).all())
                    require(zero, f"{words}, yet {name}[{k}] gets a gradient")


EACH = tuple(((mode,), True, True) for mode in MODES)


@part("gradient")
def test_absent_adapters_get_none(stage, draw):
    """An adapter that is not in the batch gets no gradient but zero."""
    for case in both(draw):
        rest = set(range(N)) - set(case.more[0].tolist())
        only(stage, [case], rest, "an adapter is not in the batch")


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to x, through the frozen base and through each row's adapter."""
    for case in both(draw):
        wrapped.input_gradients(stage, [case])


@part("gradient")
def test_gradients_without_adapters(stage, draw):
    """In a batch of -1 alone the gradient flows to x, and the factors get none but zero."""
    case = having_ids(MULTI.case(draw, ROWS, 2), [-1] * ROWS)
    ((*_, got),) = wrapped.seen_gradients(stage, [case])
    require(got["x"] is not None, "no gradient reaches the input where all ids are -1")
    near(got["x"], case.gradients()[0], what="the gradient to x where all ids are -1")
    only(stage, [case], range(N), "all ids are -1")


@part("gradient")
def test_gradients_of_any_batch(stage, draw):
    """Whatever the batch: one row, one adapter, all rows alike, each adapter once, sorted."""
    batches = (
        (N, [3] * 4),
        (N, [N - 1]),
        (N, [-1]),
        (N, list(range(N))),
        (N, [2, 4, 0, 1, 3]),
        (N, [-1, 0, 0, 2, 4, 4]),
        (1, [0, -1, 0]),
        (1, [0]),
        (9, [8, 0, 8, -1]),
    )
    cases = [
        having_ids(MULTI.case(draw, len(ids), *between, n=n, bias=number % 2 == 0), ids)
        for number, (between, (n, ids)) in enumerate(itertools.product(((), (2,)), batches))
    ]
    for case, _, got in wrapped.seen_gradients(stage, cases):
        ids, grads = case.more[0].tolist(), (got["x"], *got["learned"])
        if ids == [-1]:
            zeros = [torch.zeros_like(v) for v in case.values[2:]]
            found = zip(got["learned"], zeros, strict=True)
            grads = got["x"], *(zero if grad is None else grad for grad, zero in found)
        words = f"for ids {ids} of {len(case.values[2])}, {shown(case)}"
        wrapped.right_gradients(grads, case, words)


def in_steps(kata, layer, x, ids, g):
    layer = made(kata, *layer)
    with torch.no_grad():
        layer.eval()(x, ids)
    layer.train()
    for _ in range(2):
        y = layer(x, ids)
        if y.requires_grad:
            (y * g).sum().backward()
    return layer.lora_A.grad, layer.lora_B.grad


@part("gradient")
def test_gradients_after_other_calls(stage, draw):
    """A call under no_grad before, or a backward before, takes nothing from the gradients."""
    case = MULTI.case(draw, ROWS, 2)
    got = stage(in_steps, case.layer, case.x, *case.more, case.g)
    for name, grad, want in zip(FACTORS, got, case.gradients()[1:], strict=True):
        require(grad is not None, f"{name} gets no gradient after a call under no_grad")
        near(grad, 2 * want, what=f"the gradient of {name} from two backwards")


@part("gradient")
def test_gradients_of_two_forwards(stage, draw):
    """Several forwards may come before the backward: their gradients add up."""
    case = MULTI.case(draw, ROWS, 2)
    wrapped.gradients_add_up(stage, case, having_ids(case, case.more[0].roll(3)))


@part("gradient")
def test_b_learns_from_the_start(stage, draw):
    """While lora_B is still zero the adapters in the batch get its gradient all the same."""
    lowrank.b_learns_from_the_start(stage, MULTI.case(draw, ROWS), "skipped-while-zero")


# state


@part("state")
def test_state_names(stage, draw):
    """lora_A, lora_B and the base's tensors are in the state dict under these names."""
    names = (*FACTORS, "base.weight", "base.bias")
    wrapped.state_names(stage, MULTI.case(draw, 1), names)
    wrapped.state_names(stage, MULTI.case(draw, 1, bias=False), names[:-1])


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs; instances share none."""
    wrapped.state_round_trip(stage, draw, MULTI, lead=(ROWS,))


# dtype and device


def right_in_dtype(stage, draw, dtype):
    other = "output-in-float32" if dtype == torch.bfloat16 else None
    for bias in (True, False):
        case = MULTI.case(draw, 1, dtype=dtype, bias=bias)
        wrapped.learned_are(stage, case)
    for between, mode in itertools.product(((), (3,)), MODES):
        # A scale that is not exact in any dtype: one kept in a coarser dtype shows.
        case = MULTI.case(draw, ROWS, *between, dtype=dtype, options={"alpha": 10.0})
        (still,) = stage(wrapped.outputs, *case.call, (mode,), mode == "train")
        # Where only the scale is rounded, what is computed is not.
        rounded = replace(case, options={"alpha": float(torch.tensor(10 / RANK)) * RANK})
        coarse = None if wrapped.like(still, rounded.output(), 1e-9) else "computed-in-float32"
        wrapped.in_dtype(stage, case, mode, other, coarse, cut="input-gradient-cut")
        near(still, case.output(), what=f"the output in {mode} mode", dtype=dtype)


@part("dtype")
def test_float64(stage, draw):
    """A float64 base gives float64 factors and outputs, exact to 1e-9."""
    right_in_dtype(stage, draw, torch.float64)


@part("dtype")
def test_bfloat16(stage, draw):
    """A bfloat16 base gives bfloat16 factors and outputs; ids stay whole numbers."""
    right_in_dtype(stage, draw, torch.bfloat16)
    case = MULTI.case(draw, 4, dtype=torch.bfloat16, n=300, out=3, into=5, rank=2)
    case = having_ids(case, [299, 257, -1, 259])
    (y,) = stage(wrapped.outputs, *case.call, ("train",))
    near(y, case.output(), what="the output of adapter 299", dtype=case.dtype)


def on_meta(kata, ids, rows):
    base = nn.Linear(18, 12, device="meta", dtype=torch.bfloat16)
    with CheapMeta():
        layer = kata.MultiLoRALinear(base, 5, rank=3)
        return layer(torch.empty(rows, 18, device="meta", dtype=torch.bfloat16), ids)


@part("device")
def test_meta_device(stage, draw):
    """On the meta device factors and outputs are there too; adapter_ids is on the CPU."""
    for between in ((), (5,)):
        try:
            case = MULTI.case(draw, ROWS, *between)
            wrapped.meta_device(stage, case, ("cpu-factors", "float32-factors"))
        except LearnerRaised as error:
            explain(error)
            raise
    for ids, rows, kind in (
        ([0, N, 1], 3, "IndexError"),
        ([0, -2, 1], 3, "IndexError"),
        ([0, 1], 3, "ValueError"),
    ):
        case = having_ids(MULTI.case(draw, rows), ids)
        plain = stage.attempt(with_ids, *case.call, "train")
        if not named(plain, kind):
            continue  # not a matter of the device: the part `errors` reports it
        outcome = stage.attempt(on_meta, torch.tensor(ids), rows)
        rejects(outcome, kind, "adapter_ids", what=f"on meta, ids {ids} for {rows} rows")


def explain(error):
    """Say what failed on meta where torch's own words are no help."""
    if "expected device" in error.text or "same device" in error.text:
        error.bug = "devices-mixed"
    elif "no data" in error.text or "cannot be called on meta" in error.text:
        fail(f"A value of a meta tensor was asked for: {error.text}", "meta-value-asked")


# errors


def with_ids(kata, layer, x, more, mode, before=None):
    """The output for the ids; before: the layer runs first with these, in the same tensor."""
    (ids,) = more
    layer = made(kata, *layer)
    getattr(layer, mode)()
    with torch.set_grad_enabled(mode == "train"):
        if before is not None:
            own = before.clone()
            layer(x, own)
            ids = own.copy_(ids)
        return layer(x, ids)


def named(outcome, error):
    """Whether it is this exception with a message that names adapter_ids."""
    raised = isinstance(outcome, Raised) and f"builtins.{error}" in outcome.types
    return raised and "adapter_ids" in outcome.text


def judge(outcome, error, what, bug):
    """As `rejects`; that torch itself found an index too large is no check of the ids."""
    said = outcome.text if isinstance(outcome, Raised) else ""
    torchs = "out of bounds for dimension" in said or "in self" in said
    if torchs and "adapter_ids" not in said:
        fail(f"{what} must raise {error} naming adapter_ids; torch says: {said}", bug)
    rejects(outcome, error, "adapter_ids", what=what, bug=bug)


def bad_ids(stage, draw, bad, name):
    """Each of `bad` at several places, in both modes. name: (found by id, tried) -> bug."""
    layer, tried, good = MULTI.case(draw, ROWS), [], {}
    ways = (("train", (), True, (0, 3)), ("eval", (2,), False, (-1, 3)), ("eval", (), True, (3,)))
    for mode, between, bias, places in ways:
        case = layer.at(draw, ROWS, *between)
        W, b, *factors = case.values
        case = replace(case, values=(W, b if bias else None, *factors))
        stage(with_ids, *case.call, mode)  # so that the id is what is wrong
        for id_, place in itertools.product(bad, places):
            ids = mixed(draw)
            ids[place] = id_
            wrong = having_ids(case, ids)
            outcome = stage.attempt(with_ids, *wrong.call, mode)
            how = f"{mode} mode{' under no_grad' * (mode == 'eval')}, {shown(case)}"
            tried.append((id_, wrong, outcome, f"an id {id_} of {N} adapters ({how})"))
            good.setdefault((id_, how), []).append(named(outcome, "IndexError"))
    by_id = {i: {g for (j, _), seen in good.items() if j == i for g in seen} for i in bad}
    bug = None
    if any(len(set(seen)) == 2 for seen in good.values()):
        bug = "ids-partly-checked"  # one and the same call finds it in one place only
    elif all(len(seen) == 1 for seen in by_id.values()):
        bug = name(by_id, tried)
    for *_, outcome, what in tried:
        judge(outcome, "IndexError", what, bug)
    for n, rows in ((1, ROWS), (N, 1)):
        ids = torch.zeros(rows, dtype=torch.int64)
        ids[0] = n if bad[0] == N else bad[0]
        case = having_ids(MULTI.case(draw, rows, n=n), ids)
        outcome = stage.attempt(with_ids, *case.call, "train", torch.zeros_like(ids))
        batch = f"{counted(n, 'adapter')} in a batch of {counted(rows, 'row')}"
        what = f"an id {int(ids[0])} of {batch}, written into ids that were right"
        judge(outcome, "IndexError", what, None)


@part("errors")
def test_id_too_large(stage, draw):
    """An id of num_adapters or more raises IndexError naming adapter_ids."""

    def name(by_id, tried):
        missed = {id_ for id_, seen in by_id.items() if False in seen}
        if missed == {N}:
            return "id-bound-off-by-one"
        return "id-unchecked" if len(missed) == len(by_id) else None

    bad_ids(stage, draw, (N, N + 1, 1000), name)


@part("errors")
def test_id_below_minus_one(stage, draw):
    """An id below -1 raises IndexError naming adapter_ids; it does not count from the end."""

    def name(by_id, tried):
        for bug, other in (("negative-id-wraps", N - 2), ("negative-id-is-none", -1)):
            alike = []
            for id_, case, y, _ in tried:
                if id_ == -2:
                    (ids,) = case.more
                    form = having_ids(case, torch.where(ids == -2, other, ids))
                    alike.append(wrapped.like(y, form.output(), 1e-4))
            if all(alike):
                return bug
        return None

    bad_ids(stage, draw, (-2, -N, -N - 1), name)


@part("errors")
def test_length_of_ids(stage, draw):
    """A number of ids other than B raises ValueError naming adapter_ids."""
    layer, tried, right = MULTI.case(draw, ROWS), [], set()
    for lead, length in (
        ((ROWS,), ROWS - 1),
        ((ROWS,), ROWS + 1),
        ((ROWS,), 1),
        ((ROWS,), IN),
        ((ROWS, 3), 1),
        ((ROWS, 3), 3),
        ((ROWS, 3), ROWS * 3),
        ((1, 4), 4),
        ((1,), 3),
    ):
        for mode in MODES:
            case = layer.at(draw, *lead)
            if (lead, mode) not in right:  # so that the length is what is wrong
                stage(with_ids, *case.call, mode)
                right.add((lead, mode))
            wrong = having_ids(case, draw.integers(-1, N, length))
            tried.append((lead, length, stage.attempt(with_ids, *wrong.call, mode)))
    missed = {(lead, length) for lead, length, y in tried if not named(y, "ValueError")}
    bug = None
    if len(missed) == len(tried) // 2:
        bug = "length-unchecked"
    elif missed == {(lead, length) for lead, length, _ in tried if length == 1}:
        bug = "one-id-spread"
    for lead, length, outcome in tried:
        what = f"{length} adapter_id{'s' * (length > 1)} for x {(*lead, IN)}"
        judge(outcome, "ValueError", what, bug)


def after_error(kata, layer, x, more):
    (ids,), layer = more, made(kata, *layer)
    try:
        layer(x, ids)
    except (IndexError, ValueError) as error:
        del error
    return x, ids, layer.lora_A, layer.lora_B, layer.base.weight


@part("errors")
def test_errors_change_nothing(stage, draw):
    """An error leaves x, adapter_ids and the parameters as they were."""
    for ids in ([-1, 3, 0, -1, N, 2, 1, 0], [-1, 0, 2]):
        case = having_ids(MULTI.case(draw, ROWS), ids)
        W, _, A, B = case.values
        names = "x", "adapter_ids", "lora_A", "lora_B", "base.weight"
        held = zip(names, stage(after_error, *case.call), (case.x, *case.more, A, B, W))
        for name, got, was in held:
            same(got, was, f"{name}, after an error,")


# cost


def cost(kata, layer, x, more):
    _, _, bias, *_ = layer
    (ids,), layer = more, made(kata, *layer)
    for factor in (layer.lora_A, layer.lora_B):
        factor.requires_grad_(bias is not None)  # and frozen too

    def learn(x):
        y = layer.train()(x, ids)
        if y.requires_grad:
            y.square().sum().backward()

    def answer(x):
        with torch.no_grad():
            layer.eval()(x, ids)

    inputs = [rows.clone().requires_grad_() for rows in (x, x[:, 0])]
    calls = [(call, rows) for rows in inputs for call in (learn, answer)]
    found = [count(lambda call=call, rows=rows: call(rows)) for call, rows in calls]
    elsewhere = sum(c["elsewhere"] for c in found)
    return [c["ops"] for c in found], max(c["largest"] for c in found), elsewhere


def spread(rows, n):
    """Ids (rows,) of n adapters in no order, -1 among them; all there if the rows suffice."""
    ids = torch.arange(rows) * 7 % n
    ids[:4] = torch.tensor([n - 1, 0, -1, n - 1])
    ids[4 : 4 + n] = torch.arange(n).flip(0)[: max(rows - 4, 0)]
    ids[4 + n :: 3] = -1
    return ids


@part("cost")
def test_operators_do_not_grow(stage, draw):
    """The number of dispatched operators grows neither with B nor with num_adapters."""

    def ops(rows, n, bias=True, dtype=torch.float32):
        sizes = {"n": n, "out": 6, "into": 8, "rank": 2}
        case = MULTI.case(draw, rows, 2, dtype=dtype, bias=bias, **sizes)
        counts, _, elsewhere = stage(cost, *having_ids(case, spread(rows, n)).call)
        require(not elsewhere, "a part of the work is done outside of torch, and not counted")
        return counts

    few, rows, adapters = ops(4, 2), ops(400, 2), ops(4, 80)
    both = ops(400, 80)
    half = [ops(rows, n, bias=False, dtype=torch.bfloat16) for rows, n in ((4, 2), (400, 80))]
    together = "B from 4 to 400 and num_adapters from 2 to 80"
    for start, got, what, bug in (
        (few, rows, "B from 4 to 400", "loop-over-rows"),
        (few, adapters, "num_adapters from 2 to 80", "loop-over-adapters"),
        (few, both, together, "loop-over-adapters"),
        (*half, f"{together} (bfloat16, no bias, frozen factors)", None),
    ):
        for one, other in zip(start, got):
            # Another path for another size is no loop; a turn of a loop takes an operator.
            text = f"{one} operators grow to {other} with {what}"
            require(other - one < 40, text, bug)


@part("cost")
def test_no_merged_weights(stage, draw):
    """No tensor of (B, out, in) or (num_adapters, out, in) values is made."""
    # So wide a layer that what else may be made for 16 tokens stays below two weights.
    out, into = 96, 128
    for n, dtype, ids in (
        (N, torch.float32, [3, 0, -1, 4, 1, 3, 2, 0]),
        (3, torch.bfloat16, [2, 0, -1, 1, 1, 0, 2]),
        (N, torch.float64, [3, 0, -1, 4, 1, 3, 2, 0]),
    ):
        bias = dtype != torch.bfloat16  # without one the factors are frozen too
        sizes = {"n": n, "out": out, "into": into, "rank": 2}
        case = MULTI.case(draw, len(ids), 2, dtype=dtype, bias=bias, **sizes)
        largest = stage(cost, *having_ids(case, ids).call)[1]
        weights = largest // (out * into)
        known = {n: "merged-all", n + 1: "merged-all"}
        known |= {len(ids): "merged-per-row", len(ids) - 1: "merged-per-row"}
        exactly = weights * out * into == largest
        text = f"a tensor of {largest} values is made, the size of {weights} weights {(out, into)}"
        require(largest < 3 * out * into, text, known.get(weights) if exactly else None)


# gpu


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU, and nothing stays behind."""
    for case in (MULTI.case(draw, ROWS), MULTI.case(draw, ROWS, 4)):
        wrapped.accelerator(stage, case)
