"""What is checked of `multi_lora_batch`. Contract: Punica (Chen et al. 2023), section 4."""

import itertools

import torch
from torch import nn

from grader.exam.checks import (
    CheckFailed,
    LearnerRaised,
    Raised,
    blame,
    close,
    counted,
    fail,
    near,
    part,
    rejects,
    require,
    same,
    tensor,
)
from grader.exam.kit import CheapMeta, copy, count, linear, need, set_

OUT, IN, RANK, ALPHA, N, ROWS = 12, 18, 3, 10.5, 5, 8  # alpha / rank = 3.5


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


def make(kata, weight, bias, A, B, alpha=ALPHA):
    layer = kata.MultiLoRALinear(linear(weight, bias), A.shape[0], rank=A.shape[1], alpha=alpha)
    set_(layer, lora_A=A, lora_B=B)
    return layer


def through(x, matrices, ids):
    """Row i of x (B, ..., in) times the matrix (out, in) of its id; zero for -1. float64."""
    rows = x.double().reshape(len(x), -1, x.shape[-1])
    y = rows @ matrices.double()[ids.clamp(min=0)].mT
    y[ids < 0] = 0
    return y.reshape(*x.shape[:-1], -1)


def oracle(x, ids, weight, bias, A, B, scale=ALPHA / RANK):
    """base, update: both float64."""
    base = x.double() @ weight.double().T
    base = base if bias is None else base + bias.double()
    return base, through(x, scale * (B.double() @ A.double()), ids)


def slips(x, ids, weight, bias, A, B, scale=ALPHA / RANK):
    """What known mistakes make of the output."""
    base, update = oracle(x, ids, weight, bias, A, B, scale)
    rank = A.shape[1]

    def chosen(other):
        return base + oracle(x, other, weight, bias, A, B, scale)[1]

    every = sum(chosen(torch.full_like(ids, k)) - base for k in range(len(A)))
    order = ids.argsort(stable=True)
    kept = (ids >= 0).view(-1, *[1] * (x.ndim - 1))
    known = {
        "minus-one-is-last": chosen(ids % len(A)),
        "minus-one-is-first": chosen(ids.clamp(min=0)),
        "minus-one-drops-base": (base + update) * kept,
        "id-zero-is-none": base + update * (ids > 0).view(-1, *[1] * (x.ndim - 1)),
        "first-id-for-all": chosen(ids[:1].expand_as(ids)),
        "adapters-summed": base + every,
        "not-put-back": base + update[order],
        "put-back-by-order": base + update[order][order],
        "output-stays-sorted": (base + update)[order],
        "scale-missing": base + update / scale,
        "scale-is-alpha": base + update * rank,
        "scale-inverted": base + update / scale**2,
        "scale-alpha-over-sqrt-rank": base + update * rank**0.5,
        "scale-twice": base + update * scale,
        "scale-on-sum": base * scale + update,
        "base-dropped": update,
        "update-subtracted": base - update,
        "update-missing": base,
    }
    if x.ndim > 2:
        flat = x.reshape(-1, x.shape[-1])
        tiled = ids.repeat(len(flat) // len(x))
        known["ids-tiled"] = (sum(oracle(flat, tiled, weight, bias, A, B, scale))).view_as(base)
    if bias is not None:
        known["bias-dropped"] = base - bias.double() + update
        known["bias-twice"] = base + bias.double() + update
    right = base + update
    return {bug: value for bug, value in known.items() if not close(value, right, 1e-2, 1e-2)}


# shape


def factor_shapes(kata, weight, bias):
    layer = kata.MultiLoRALinear(linear(weight, bias), 5, rank=3, alpha=10.5)
    return tuple(need(layer, "lora_A").shape), tuple(need(layer, "lora_B").shape)


@part("shape")
def test_factor_shapes(stage, draw):
    """lora_A is (num_adapters, rank, in_features), lora_B (num_adapters, out_features, rank)."""
    a_shape, b_shape = stage(factor_shapes, draw(OUT, IN), draw(OUT))
    want = N, RANK, IN
    bug = "factor-transposed"
    turned = bug if a_shape == (N, IN, RANK) else None
    require(a_shape == want, f"lora_A has shape {a_shape}, expected {want}", turned)
    want = N, OUT, RANK
    turned = bug if b_shape == (N, RANK, OUT) else None
    require(b_shape == want, f"lora_B has shape {b_shape}, expected {want}", turned)


def run(kata, weight, bias, A, B, x, ids, alpha=ALPHA):
    return make(kata, weight, bias, A, B, alpha)(x, ids)


def _fits(stage, values, x, ids):
    """Whether the output for x is right."""
    try:
        near(stage(run, *values, x, ids), sum(oracle(x, ids, *values)))
    except CheckFailed:
        return False
    return True


@part("shape")
def test_any_dimensions_between(stage, draw):
    """x is (B, ..., in_features): any number of dimensions between, also none."""
    values, ids = pieces(draw), mixed(draw)
    inputs = [draw(ROWS, *between, IN) for between in ((), (3,), (2, 3), (1,), (3, 1, 2))]
    # What is right for one number of dimensions and wrong for another is wrong in that.
    bug = "leading-dims" if any(_fits(stage, values, x, ids) for x in inputs[:2]) else None
    for x in inputs:
        try:
            with blame(bug):
                y = stage(run, *values, x, ids)
        except LearnerRaised as error:
            refused = "adapter_ids" in error.text and _fits(stage, values, x, ids.clamp(min=0))
            error.bug = "minus-one-refused" if refused else error.bug
            raise
        near(
            y,
            sum(oracle(x, ids, *values)),
            what=f"the output for x {tuple(x.shape)}",
            unless=slips(x, ids, *values),
            bug=bug,
        )


def run_all(kata, weight, bias, A, B, cases):
    layer = make(kata, weight, bias, A, B)
    learning = [layer(x, ids) for x, ids in cases]
    layer.eval()
    with torch.no_grad():
        return learning + [layer(x, ids) for x, ids in cases]


def _all_right(stage, values, cases, what="", bug=None):
    """The outputs for these inputs, one call after the other; then in eval mode under no_grad.

    bug: the mistake if a call raises, or an output has lost dimensions of one.
    """
    with blame(bug):
        ys = stage(run_all, *values, cases)
    scale = ALPHA / values[2].shape[1]
    for number, (y, (x, ids)) in enumerate(zip(ys, cases * 2)):
        shown = ids.tolist() if len(ids) <= 12 else "of many kinds"
        text = what or f"the output for x {tuple(x.shape)} and ids {shown}"
        text += " in eval mode under no_grad" if number >= len(cases) else ""
        want = sum(oracle(x, ids, *values, scale))
        shape = tuple(tensor(y, text).shape)
        squeezed = shape != want.shape and [d for d in shape if d > 1] == [
            d for d in want.shape if d > 1
        ]
        near(y, want, what=text, bug=bug if squeezed else None)


@part("shape")
def test_one_row(stage, draw):
    """A batch of one row works, whichever its id; with one adapter too."""
    values = pieces(draw)
    _all_right(stage, values, [(draw(2, IN), torch.tensor([0, 1]))])
    for n, chosen in ((N, values), (1, pieces(draw, n=1))):
        cases = [
            (draw(1, *between, IN), torch.tensor([k])) for k in range(n) for between in ((), (4,))
        ]
        _all_right(stage, chosen, cases, bug="size-of-one")


def run_strided(kata, weight, bias, A, B, x, ids):
    layer = make(kata, weight, bias, A, B)
    turned = x.transpose(0, 1)
    return (
        layer(turned, ids),
        layer(turned[:, ::2], ids.repeat_interleave(2)[::2]),
        layer(turned.unflatten(1, (2, 3)).transpose(1, 2), ids),
        layer(x[0, :1].expand(ROWS, -1), ids),
    )


@part("shape")
def test_non_contiguous_inputs(stage, draw):
    """Neither x nor adapter_ids need be contiguous."""
    values, ids = pieces(draw), mixed(draw)
    x = draw(6, ROWS, IN)
    turned = x.transpose(0, 1)
    crossed = turned.unflatten(1, (2, 3)).transpose(1, 2)
    views = turned, turned[:, ::2], crossed, x[0, :1].expand(ROWS, -1)
    near(stage(run, *values, x[0], ids), sum(oracle(x[0], ids, *values)))
    with blame("contiguous-only", "view size is not compatible", "contiguous"):
        ys = stage(run_strided, *values, x, ids)
    for y, v in zip(ys, views):
        near(y, sum(oracle(v, ids, *values)), what="the output for a non-contiguous x")


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
        values = pieces(draw, n=n, out=out, into=into, rank=rank)
        ids = torch.randperm(n, generator=draw.generator).repeat(rows // n + 1)[:rows]
        ids[rows // 2] = -1 if rows > 1 else n - 1
        x = draw(rows, *between, into)
        held = f"{n} adapter{'s' * (n > 1)} of rank {rank}"
        _all_right(stage, values, [(x, ids)], f"the output of {held} for x {tuple(x.shape)}")


# init


def start(kata, weight, bias, x, ids):
    return kata.MultiLoRALinear(linear(weight, bias), 5, rank=4, alpha=6.0)(x, ids)


@part("init")
def test_starts_as_the_base(stage, draw):
    """At the start every row gets what the base computes."""
    W, b, *_ = pieces(draw)
    x, ids = draw(ROWS, IN), mixed(draw)
    y = stage(start, W, b, x, ids)
    base = x.double() @ W.double().T + b.double()
    unless = {"base-dropped": torch.zeros_like(base), "bias-dropped": base - b}
    unless |= {"bias-twice": base + b, "minus-one-drops-base": base * (ids >= 0)[:, None]}
    near(y, base, what="the output at the start", unless=unless)


def fresh_factors(kata, weight, n, rank):
    made = []
    for _ in range(2):
        # What is left in memory must not pass for random.
        stale = [torch.full((n, rank, weight.shape[1]), 0.5) for _ in range(4)]
        stale += [torch.full((n, weight.shape[0], rank), 0.5) for _ in range(4)]
        del stale
        made.append(kata.MultiLoRALinear(linear(weight), n, rank=rank))
    return made[0].lora_A, made[0].lora_B, made[1].lora_A


@part("init")
def test_b_starts_at_zero(stage, draw):
    """lora_B starts at exactly zero."""
    _, B, _ = stage(fresh_factors, draw(40, 64), 3, 8)
    most = f"{float(B.double().abs().max()):.3g}"
    text = f"lora_B should start at zero; its largest entry is {most}"
    require(bool((B == 0).all()), text, "b-random")


@part("init")
def test_a_starts_random(stage, draw):
    """lora_A starts random: each adapter's own, of full row rank, not the same every time."""
    A, _, other = stage(fresh_factors, draw(40, 64), 3, 8)
    require(bool(torch.isfinite(A).all()), "lora_A holds values that are not finite")
    require(bool((A != 0).any()), "lora_A starts at zero: lora_B never gets a gradient", "a-zero")
    values = A.double()
    constant = bool((values == values.reshape(-1)[0]).all())
    require(not constant, "lora_A starts constant", "a-constant")
    for k, factor in enumerate(values):
        singular = torch.linalg.svdvals(factor)
        full = bool(singular[-1] > 1e-4 * singular[0])
        require(full, f"lora_A[{k}] does not start with full row rank: its rows depend")
    for k in range(3):
        alike = torch.equal(values[k], values[k - 1])
        require(not alike, "two adapters start with the same lora_A: it is not random")
    require(not torch.equal(A, other), "two layers start with the same lora_A: it is not random")


def defaults(kata, weight, bias):
    layer = kata.MultiLoRALinear(linear(weight, bias), 3)
    by_place = kata.MultiLoRALinear(linear(weight, bias), 3, 4, 10.0)
    wide = kata.MultiLoRALinear(base=linear(weight, bias), num_adapters=3, rank=8, alpha=2.0)
    wide(x=torch.ones(2, weight.shape[1]), adapter_ids=torch.tensor([0, -1]))
    return {
        "shape": tuple(layer.lora_A.shape),
        "scale": float(need(layer, "scale")),
        "placed": (tuple(by_place.lora_A.shape), float(by_place.scale)),
        "wide": float(wide.scale),
    }


@part("init")
def test_defaults_and_attributes(stage, draw):
    """rank 8, alpha 16, scale = alpha / rank; arguments by place or by name."""
    got = stage(defaults, draw(30, 20), None)
    shape = got["shape"]
    require(shape[1] == 8, f"rank should default to 8; lora_A is {shape}")
    shape = got["placed"][0]
    require(shape[:2] == (3, 4), f"num_adapters 3 and rank 4 by place; lora_A is {shape}")
    near(
        got["placed"][1],
        2.5,
        what="scale with rank 4 and alpha 10",
        unless={
            "scale-missing": 1.0,
            "scale-is-alpha": 10.0,
            "scale-inverted": 0.4,
            "scale-alpha-over-sqrt-rank": 5.0,
        },
    )
    near(got["scale"], 2.0, what="scale with the default rank 8 and alpha 16")
    near(got["wide"], 0.25, what="scale with rank 8 and alpha 2")


def base_untouched(kata, weight, bias):
    base = linear(weight, bias)
    kept, kept_bias = base.weight, base.bias
    layer = kata.MultiLoRALinear(base, 2, rank=3)
    inside = need(layer, "base")
    return {
        "same": inside is base,
        "kept": base.weight is kept and base.bias is kept_bias,
        "weight": base.weight,
        "bias": base.bias,
        "inside": inside.weight,
    }


@part("init")
def test_base_is_the_layer_passed_in(stage, draw):
    """`base` is the very layer passed in, its values untouched."""
    W, b, *_ = pieces(draw)
    for bias in (b, None):
        got = stage(base_untouched, W, bias)
        same(got["inside"], W, "base.weight", "base-reinitialised")
        same(got["weight"], W, "the weight of the layer passed in", "base-reinitialised")
        if bias is not None:
            same(got["bias"], b, "the bias of the layer passed in", "base-reinitialised")
        require(got["same"], "`base` should be the very layer passed in, not a copy", "base-copied")
        require(got["kept"], "the base's weight or bias is another Parameter than before")


# freeze


def after_backward(kata, weight, bias, A, B, x, ids):
    base = linear(weight, bias)
    layer = kata.MultiLoRALinear(base, len(A), rank=A.shape[1], alpha=10.5)
    at_once = not base.weight.requires_grad, bias is None or not base.bias.requires_grad
    set_(layer, lora_A=A, lora_B=B)
    layer.eval().train()(x, ids).square().sum().backward()
    ours = {id(layer.lora_A): "lora_A", id(layer.lora_B): "lora_B"}
    inside = {id(p) for p in layer.parameters()}
    return {
        "at_once": at_once,
        "weight": base.weight.requires_grad,
        "weight_grad": base.weight.grad,
        "bias": bias is not None and base.bias.requires_grad,
        "bias_grad": None if bias is None else base.bias.grad,
        "extra": [n for n, p in layer.named_parameters() if p.requires_grad and id(p) not in ours],
        "trains": [layer.lora_A.requires_grad, layer.lora_B.requires_grad],
        "registered": [id(layer.lora_A) in inside, id(layer.lora_B) in inside],
    }


@part("freeze")
def test_base_is_frozen(stage, draw):
    """Weight and bias of the base do not require and never receive a gradient."""
    W, b, A, B = pieces(draw)
    for bias, note in ((b, ""), (None, " where the base has no bias")):
        got = stage(after_backward, W, bias, A, B, draw(ROWS, IN), mixed(draw))
        for name, now, first, bug in (
            ("base.weight", got["weight"], got["at_once"][0], "base-not-frozen"),
            ("base.bias", got["bias"], got["at_once"][1], "bias-not-frozen"),
        ):
            text = f"{name} is frozen at first and trains after eval().train() and a forward{note}"
            require(not (first and now), text, None if note else "base-thawed")
            require(not now, f"{name} is not frozen{note}", None if note else bug)
            require(first, f"{name} is not yet frozen when the layer has been made{note}")
        require(got["weight_grad"] is None, f"base.weight receives a gradient{note}")
        require(got["bias_grad"] is None, "base.bias receives a gradient")


@part("freeze")
def test_only_the_factors_train(stage, draw):
    """lora_A and lora_B are registered parameters, and no other parameter trains."""
    got = stage(after_backward, *pieces(draw), draw(ROWS, IN), mixed(draw))
    for name, trains, inside in zip(("lora_A", "lora_B"), got["trains"], got["registered"]):
        require(inside, f"{name} is not among parameters(): no optimizer will see it")
        require(trains, f"{name} does not train (requires_grad is False)")
    others = [n for n in got["extra"] if not n.endswith(("base.weight", "base.bias"))]
    require(not others, f"another parameter trains: {', '.join(others)}", "extra-trainable")
    require(not got["extra"], f"another parameter trains: {', '.join(got['extra'])}")


# forward


@part("forward")
def test_each_row_uses_its_own_adapter(stage, draw):
    """Row i: base(x[i]) plus alpha / rank times the update of adapter adapter_ids[i]."""
    for out, into in ((OUT, IN), (IN, IN)):
        values, ids = pieces(draw, out=out, into=into), mixed(draw)
        x = draw(ROWS, 4, into)
        known = slips(x, ids, *values)
        near(stage(run, *values, x, ids), sum(oracle(x, ids, *values)), unless=known)


@part("forward")
def test_minus_one_is_the_base_alone(stage, draw):
    """The id -1 means the base alone; a whole batch of it too."""
    values = pieces(draw)
    ids = torch.tensor([-1, 2, -1, -1, N - 1, 0, -1, 2])
    for between in ((), (3,)):
        _all_right(stage, values, [(draw(ROWS, *between, IN), ids)])
        for rows in (ROWS, 1):
            alone = draw(rows, *between, IN), torch.full((rows,), -1)
            _all_right(stage, values, [alone], bug="idle-batch-fails" if rows > 1 else None)


@part("forward")
def test_any_order_and_number(stage, draw):
    """Ids come in any order, however often: sorted, reversed, interleaved, all the same, all."""
    values = pieces(draw)
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
    _all_right(stage, values, [(draw(len(ids), 2, IN), ids) for ids in lists])


@part("forward")
def test_without_a_bias(stage, draw):
    """A base without bias works."""
    W, b, A, B = pieces(draw)
    x, ids = draw(ROWS, IN), mixed(draw)
    near(stage(run, W, b, A, B, x, ids), sum(oracle(x, ids, W, b, A, B)))
    with blame("bias-required", "NoneType"):
        y = stage(run, W, None, A, B, x, ids)
    known = slips(x, ids, W, None, A, B)
    near(y, sum(oracle(x, ids, W, None, A, B)), what="the output without bias", unless=known)
    cases = [(draw(ROWS, *between, IN), ids) for between in ((3,), (2, 1, 3), ())]
    _all_right(stage, (W, None, A, B), cases, "an output without bias")


@part("forward")
def test_alpha_below_rank(stage, draw):
    """Also where alpha is smaller than rank, 0 or negative."""
    values, ids = pieces(draw), mixed(draw)
    x = draw(ROWS, IN)
    for alpha in (2, 0, -5):
        want = sum(oracle(x, ids, *values, alpha / RANK))
        what = f"the output with rank 3, alpha {alpha:g}"
        near(stage(run, *values, x, ids, alpha), want, what=what)


def keeps_inputs(kata, weight, bias, A, B, x, ids):
    seen = []
    for train in (True, False):
        for grad in (True, False):
            own, chosen = x.clone(), ids.clone()
            with torch.set_grad_enabled(grad):
                make(kata, weight, bias, A, B).train(train)(own, chosen)
                kept = torch.is_grad_enabled() == grad
            seen.append((own, chosen, kept))
    return seen


@part("forward")
def test_inputs_unchanged(stage, draw):
    """Neither x nor adapter_ids is changed in place."""
    values, ids = pieces(draw), mixed(draw)
    for x in (draw(ROWS, IN), draw(ROWS, 3, IN)):
        for own, chosen, kept in stage(keeps_inputs, *values, x, ids):
            require(kept, "forward leaves grad mode on that was off, or off that was on")
            same(own, x, "x", "changes-input-in-place")
            same(chosen, ids, "adapter_ids", "changes-ids-in-place")


def live(kata, weight, bias, A, B, weight2, A2, B2, x, ids, other, mode, grad):
    layer = make(kata, weight, bias, A, B).train(mode == "train")
    start = copy.deepcopy(layer.state_dict())
    own, seen = ids.clone(), []

    def look(x, ids):
        if mode == "each":
            layer.train(not layer.training)
        seen.append(layer(x, ids))

    with torch.set_grad_enabled(grad):
        look(x, own)
        own.copy_(other)
        look(x, own)
        look(x, ids)
        if grad:
            set_(layer, lora_A=A2)
        else:  # what a version counter does not tell
            layer.lora_A.data = A2.clone()
        look(x, ids)
        if grad:
            set_(layer, lora_B=B2)
        else:
            layer.lora_B.data.copy_(B2)
        look(x, ids)
        held = layer.base.weight.detach().clone()
        set_(layer.base, weight=weight2)
        look(x, ids)
        look(x[3:], ids[3:])
        layer.load_state_dict(start)
        look(x[3:], ids[3:])
    return held, seen


@part("forward")
def test_follows_ids_and_parameters(stage, draw):
    """Each forward uses the ids and the parameters of the moment, in either mode."""
    W, b, A, B = pieces(draw)
    W2, _, A2, B2 = pieces(draw)
    x, ids = draw(ROWS, 2, IN), mixed(draw)
    other = ids.roll(3)
    first, last = (W, b, A, B), (W2, b, A2, B2)
    half, both = (W, b, A2, B), (W, b, A2, B2)
    few, chosen = x[3:], ids[3:]
    # What is called for, and what keeping an earlier call's values would make of it.
    steps = (
        ("the output", x, ids, first, ()),
        ("the output after ids changed in place", x, other, first, [(ids, *first)]),
        ("the output for other ids", x, ids, first, [(other, *first)]),
        ("the output after lora_A changed", x, ids, half, [(ids, *first)]),
        ("the output after lora_B changed", x, ids, both, [(ids, *half), (ids, *first)]),
        # A copy made with the layer gives the same: no name.
        ("the output after the base changed", x, ids, last, ()),
        ("the output for fewer rows", few, chosen, last, ()),
        (
            "the output after load_state_dict",
            few,
            chosen,
            first,
            [(chosen, *last), (chosen, *both)],
        ),
    )
    ways = [(mode, grad) for grad in (True, False) for mode in ("train", "eval")]
    for mode, grad in (*ways, ("each", True)):
        held, seen = stage(live, W, b, A, B, W2, A2, B2, x, ids, other, mode, grad)
        where = "train and eval mode in turn" if mode == "each" else f"{mode} mode"
        where = f"({where})" if grad else f"({where}, no_grad)"
        require(torch.equal(held, W), f"base.weight changes {where}")
        for y, (what, rows, own, values, stale) in zip(seen, steps):
            known = slips(rows, own, *values)
            if mode == "eval" and grad:  # training has just been right
                known["eval-disables-adapters"] = known.pop("update-missing")
            kept = [sum(oracle(rows, *old)) for old in stale]
            if isinstance(y, torch.Tensor) and kept:
                fits = [value for value in kept if close(y, value, 1e-4, 1e-5)]
                known["kept-between-calls"] = (fits or kept)[0]
            near(y, sum(oracle(rows, own, *values)), what=f"{what} {where}", unless=known)


# gradient


def gradients(kata, weight, bias, A, B, x, ids, g, mode):
    layer = getattr(make(kata, weight, bias, A, B), mode)()
    x = x.clone().requires_grad_()
    y = layer(x, ids)
    if y.requires_grad:
        (y * g).sum().backward()  # y.backward(g) would import sympy
    trains = layer.lora_A.requires_grad and layer.lora_B.requires_grad
    return x.grad, layer.lora_A.grad, layer.lora_B.grad, trains


def exact(x, ids, g, A, B, scale=ALPHA / RANK):
    """The gradients of lora_A and lora_B: row by row from the definition, float64."""
    to_a, to_b = torch.zeros_like(A).double(), torch.zeros_like(B).double()
    for k, row, back in zip(ids.tolist(), x.double(), g.double()):
        if k >= 0:
            row, back = row.reshape(-1, A.shape[2]), back.reshape(-1, B.shape[1])
            to_a[k] += scale * (back @ B[k].double()).T @ row
            to_b[k] += scale * back.T @ (row @ A[k].double().T)
    return to_a, to_b


def _each(stage, draw):
    """Gradients in both modes, for x of two and three dimensions, with what they came from."""
    values, ids = pieces(draw), mixed(draw)
    for mode in ("train", "eval"):
        for between in ((3,), ()):
            x, g = draw(ROWS, *between, IN), draw(ROWS, *between, OUT)
            yield mode, stage(gradients, *values, x, ids, g, mode), (x, ids, g, *values)


def _scales(value, scale=ALPHA / RANK, rank=RANK):
    return {
        "scale-missing": value / scale,
        "scale-is-alpha": value * rank,
        "scale-inverted": value / scale**2,
        "scale-twice": value * scale,
        "scale-alpha-over-sqrt-rank": value * rank**0.5,
    }


@part("gradient")
def test_gradients_of_the_factors(stage, draw):
    """lora_A and lora_B get the exact gradients, summed over rows, in training and eval mode."""
    for mode, (_, a, b, trains), (x, ids, g, _, _, A, B) in _each(stage, draw):
        off = None
        if trains and a is None and b is None:
            off = "factors-get-no-gradient" if mode == "train" else "eval-no-gradient"
        for name, got, want in zip(("lora_A", "lora_B"), (a, b), exact(x, ids, g, A, B)):
            require(got is not None, f"{name} gets no gradient ({mode} mode)", off)
            near(got, want, what=f"the gradient of {name}", unless=_scales(want))


@part("gradient")
def test_absent_adapters_get_none(stage, draw):
    """An adapter that is not in the batch gets no gradient but zero."""
    for _, (_, a, b, _), (_, ids, *_) in _each(stage, draw):
        for name, got in (("lora_A", a), ("lora_B", b)):
            if got is None:
                continue
            for k in set(range(N)) - set(ids.tolist()):
                text = f"adapter {k} is not in the batch, yet {name}[{k}] gets a gradient"
                require(bool((got[k] == 0).all()), text)


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to x, through the frozen base and through each row's adapter."""
    for mode, (got, *_), (_, ids, g, W, _, A, B) in _each(stage, draw):
        base = g.double() @ W.double()
        branch = through(g, ALPHA / RANK * (B.double() @ A.double()).mT, ids)
        cut = "input-gradient-cut" if mode == "train" else None  # else it flows in training
        require(got is not None, f"no gradient reaches the input ({mode} mode)", cut)
        known = {bug: base + value for bug, value in _scales(branch).items()}
        known |= {"input-gradient-cut": branch, "branch-input-detached": base} if cut else {}
        near(got, base + branch, what="the gradient to x", unless=known)


@part("gradient")
def test_gradients_without_adapters(stage, draw):
    """In a batch of -1 alone the gradient flows to x, and the factors get none but zero."""
    values, ids = pieces(draw), torch.full((ROWS,), -1)
    x, g = draw(ROWS, 2, IN), draw(ROWS, 2, OUT)
    got, a, b, _ = stage(gradients, *values, x, ids, g, "train")
    require(got is not None, "no gradient reaches the input where all ids are -1")
    near(got, g.double() @ values[0].double(), what="the gradient to x where all ids are -1")
    for name, grad in (("lora_A", a), ("lora_B", b)):
        text = f"{name} gets a gradient from rows of id -1"
        require(grad is None or bool((grad == 0).all()), text)


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
    for number, (n, chosen) in enumerate(batches):
        (W, bias, A, B), ids = pieces(draw, n=n), torch.tensor(chosen)
        for between in ((), (2,)):
            x, g = draw(len(ids), *between, IN), draw(len(ids), *between, OUT)
            own = bias if (number + len(between)) % 2 else None
            to_x, a, b, _ = stage(gradients, W, own, A, B, x, ids, g, "train")
            note = f" for ids {chosen} of {n}" + " without bias" * (own is None)
            back = g.double() @ W.double()
            back += through(g, ALPHA / RANK * (B.double() @ A.double()).mT, ids)
            require(to_x is not None, f"no gradient reaches x{note}")
            near(to_x, back, what=f"the gradient to x{note}")
            for name, got, want in zip(("lora_A", "lora_B"), (a, b), exact(x, ids, g, A, B)):
                if got is None and chosen == [-1]:
                    continue
                require(got is not None, f"{name} gets no gradient{note}")
                near(got, want, what=f"the gradient of {name}{note}")


def in_steps(kata, weight, bias, A, B, x, ids, g):
    layer = make(kata, weight, bias, A, B)
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
    values, ids = pieces(draw), mixed(draw)
    x, g = draw(ROWS, 2, IN), draw(ROWS, 2, OUT)
    got = stage(in_steps, *values, x, ids, g)
    for name, grad, want in zip(("lora_A", "lora_B"), got, exact(x, ids, g, *values[2:])):
        require(grad is not None, f"{name} gets no gradient after a call under no_grad")
        near(grad, 2 * want, what=f"the gradient of {name} from two backwards")


def two_forwards(kata, weight, bias, A, B, x, ids, g, other):
    layer = make(kata, weight, bias, A, B)
    ys = layer(x, ids), layer(x, other)
    sum((y * g).sum() for y in ys).backward()
    return layer.lora_A.grad, layer.lora_B.grad


@part("gradient")
def test_gradients_of_two_forwards(stage, draw):
    """Several forwards may come before the backward: their gradients add up."""
    values, ids = pieces(draw), mixed(draw)
    other, x, g = ids.roll(3), draw(ROWS, 2, IN), draw(ROWS, 2, OUT)
    got = stage(two_forwards, *values, x, ids, g, other)
    want = [sum(both) for both in zip(*(exact(x, k, g, *values[2:]) for k in (ids, other)))]
    for name, grad, right in zip(("lora_A", "lora_B"), got, want):
        require(grad is not None, f"{name} gets no gradient from two forwards")
        near(grad, right, what=f"the gradient of {name} from two forwards", unless=_scales(right))


def first_gradient(kata, weight, bias, A, x, ids, g):
    layer = kata.MultiLoRALinear(linear(weight, bias), len(A), rank=A.shape[1], alpha=10.5)
    set_(layer, lora_A=A)
    y = layer(x, ids)
    if y.requires_grad:
        (y * g).sum().backward()
    return layer.lora_B.grad


@part("gradient")
def test_b_learns_from_the_start(stage, draw):
    """While lora_B is still zero the adapters in the batch get its gradient all the same."""
    W, b, A, B = pieces(draw)
    x, ids, g = draw(ROWS, IN), mixed(draw), draw(ROWS, OUT)
    _, want = exact(x, ids, g, A, B)
    got = stage(first_gradient, W, b, A, x, ids, g)
    if got is None:  # and once lora_B is not zero?
        later = stage(gradients, W, b, A, B, x, ids, g, "train")[2]
        bug = "skipped-while-zero" if later is not None else None
        fail("lora_B gets no gradient at the start", bug)
    near(got, want, what="the first gradient of lora_B", unless=_scales(want))


# state


def state_names(kata, weight, bias):
    return list(kata.MultiLoRALinear(linear(weight, bias), 2, rank=3).state_dict())


@part("state")
def test_state_names(stage, draw):
    """lora_A, lora_B and the base's tensors are in the state dict under these names."""
    names = stage(state_names, draw(OUT, IN), draw(OUT))
    for name in ("lora_A", "lora_B", "base.weight", "base.bias"):
        require(name in names, f"`{name}` is not in the state dict; it holds: {', '.join(names)}")
    names = stage(state_names, draw(OUT, IN), None)
    text = f"without a bias `base.weight` is not in the state dict; it holds: {', '.join(names)}"
    require("base.weight" in names, text)


def round_trip(kata, weight, bias, A, B, weight2, bias2, x, ids):
    first = make(kata, weight, bias, A, B)
    second = kata.MultiLoRALinear(linear(weight2, bias2), len(A), rank=A.shape[1], alpha=10.5)
    second(x, ids)
    before = first(x, ids)
    second.load_state_dict(first.state_dict())
    return before, second(x, ids)


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs; instances share none."""
    values, ids = pieces(draw), mixed(draw)
    x = draw(ROWS, IN)
    before, after = stage(round_trip, *values, draw(OUT, IN), draw(OUT), x, ids)
    want = sum(oracle(x, ids, *values))
    near(before, want, what="the output of a layer after another has been made")
    near(after, want, what="the output after load_state_dict")


# dtype and device


def kinds(kata, weight, bias):
    layer = kata.MultiLoRALinear(linear(weight, bias), 2, rank=3)
    return str(layer.lora_A.dtype)[6:], str(layer.lora_B.dtype)[6:]


def in_dtype(kata, weight, bias, A, B, x, ids, g):
    layer = make(kata, weight, bias, A, B, alpha=10.0)
    x = x.clone().requires_grad_()
    y = layer(x, ids)
    if y.requires_grad:
        (y * g).sum().backward()
    with torch.no_grad():
        still = layer.eval()(x, ids)
    return y, still, x.grad, layer.lora_A.grad, layer.lora_B.grad


def _dtype(stage, draw, dtype):
    W, b, A, B = values = pieces(draw, dtype)
    right = str(dtype)[6:]
    both = [*stage(kinds, W, b), *stage(kinds, W, None)]
    for name, kind in zip(("lora_A", "lora_B") * 2, both):
        bug = "float32-factors" if kind == "float32" else None
        require(kind == right, f"{name} is {kind}, the base is {right}", bug)
    third = 10 / 3  # not exact in any dtype: a scale kept in a coarser one shows
    ids = mixed(draw)
    for between in ((), (3,)):
        x, g = draw(ROWS, *between, IN, dtype=dtype), draw(ROWS, *between, OUT, dtype=dtype)
        y, still, to_x, *grads = stage(in_dtype, *values, x, ids, g)
        kind, bug = tensor(y).dtype, None
        if dtype == torch.bfloat16 and kind == torch.float32:
            bug = "output-in-float32"
        require(kind == dtype, f"the output is {str(kind)[6:]}, expected {right}", bug)
        want = sum(oracle(x, ids, *values, third))
        # Right to seven digits and no further.
        single = sum(oracle(x, ids, *values, float(torch.tensor(third))))  # only the scale is
        coarse = dtype == torch.float64 and close(y, want, 1e-6, 1e-6)
        coarse = coarse and not close(y, single, 1e-9, 1e-9)
        bug = "computed-in-float32" if coarse else None
        near(y, want, dtype=dtype, unless=slips(x, ids, *values, third), bug=bug)
        near(still, want, what="the output in eval mode under no_grad", dtype=dtype)
        for name, got, right in zip(("lora_A", "lora_B"), grads, exact(x, ids, g, A, B, third)):
            require(got is not None, f"{name} gets no gradient")
            near(got, right, what=f"the gradient of {name}", dtype=dtype)
        back = g.double() @ W.double()
        back += through(g, third * (B.double() @ A.double()).mT, ids)
        require(to_x is not None, "no gradient reaches the input", "input-gradient-cut")
        near(to_x, back, what="the gradient to x", dtype=dtype)


@part("dtype")
def test_float64(stage, draw):
    """A float64 base gives float64 factors and outputs, exact to 1e-9."""
    _dtype(stage, draw, torch.float64)


@part("dtype")
def test_bfloat16(stage, draw):
    """A bfloat16 base gives bfloat16 factors and outputs; ids stay whole numbers."""
    _dtype(stage, draw, torch.bfloat16)
    values = pieces(draw, torch.bfloat16, n=300, out=3, into=5, rank=2)
    x, ids = draw(4, 5, dtype=torch.bfloat16), torch.tensor([299, 257, -1, 259])
    want = sum(oracle(x, ids, *values, ALPHA / 2))
    near(stage(run, *values, x, ids), want, what="the output of adapter 299", dtype=x.dtype)


def meta_layer(kata):
    return kata.MultiLoRALinear(nn.Linear(18, 12, device="meta", dtype=torch.bfloat16), 5, rank=3)


def meta_factors(kata):
    with CheapMeta():
        layer = meta_layer(kata)
    factors = need(layer, "lora_A"), need(layer, "lora_B")
    return [(t.device.type, t.dtype) for t in factors]


def on_meta(kata, ids, between, rows=None):
    x = torch.empty(rows or len(ids), *between, 18, device="meta", dtype=torch.bfloat16)
    with CheapMeta():
        return meta_layer(kata)(x, ids)


@part("device")
def test_meta_device(stage, draw):
    """On the meta device factors and outputs are there too; adapter_ids is on the CPU."""
    for name, (device, dtype) in zip(("lora_A", "lora_B"), stage(meta_factors)):
        require(device == "meta", f"{name} is on {device}; the base is on meta", "cpu-factors")
        require(dtype == torch.bfloat16, f"{name} is {str(dtype)[6:]}; the base is bfloat16")
    for between in ((), (5,)):
        try:
            y = tensor(stage(on_meta, mixed(draw), between))
        except LearnerRaised as error:
            _explain(error)
            raise
        require(y.device.type == "meta", f"the output is on {y.device.type}, expected meta")
        want = ROWS, *between, OUT
        require(tuple(y.shape) == want, f"the output has shape {tuple(y.shape)}, expected {want}")
    for ids, rows, kind in (
        ([0, N, 1], 3, "IndexError"),
        ([0, -2, 1], 3, "IndexError"),
        ([0, 1], 3, "ValueError"),
    ):
        plain = stage.attempt(with_ids, *pieces(draw), draw(rows, IN), torch.tensor(ids), "train")
        if not _named(plain, kind):
            continue  # not a matter of the device: the part `errors` reports it
        outcome = stage.attempt(on_meta, torch.tensor(ids), (), rows)
        rejects(outcome, kind, "adapter_ids", what=f"on meta, ids {ids} for {rows} rows")


def _explain(error):
    """Say what failed on meta where torch's own words are no help."""
    if "expected device" in error.text or "same device" in error.text:
        error.bug = "devices-mixed"
    elif "no data" in error.text or "cannot be called on meta" in error.text:
        fail(f"A value of a meta tensor was asked for: {error.text}", "meta-value-asked")


# errors


def with_ids(kata, weight, bias, A, B, x, ids, mode, before=None):
    """The output for ids; before: for these it is called first, with the same tensor."""
    with torch.set_grad_enabled(mode == "train"):
        layer = getattr(make(kata, weight, bias, A, B), mode)()
        if before is not None:
            own = before.clone()
            layer(x, own)
            ids = own.copy_(ids)
        return layer(x, ids)


def _named(outcome, error):
    """Whether it is this exception with a message that names adapter_ids."""
    raised = isinstance(outcome, Raised) and f"builtins.{error}" in outcome.types
    return raised and "adapter_ids" in outcome.text


def _judge(outcome, error, what, bug):
    """As `rejects`; that torch itself found an index too large is no check of the ids."""
    said = outcome.text if isinstance(outcome, Raised) else ""
    torchs = "out of bounds for dimension" in said or "in self" in said
    if torchs and "adapter_ids" not in said:
        fail(f"{what} must raise {error} naming adapter_ids; torch says: {said}", bug)
    rejects(outcome, error, "adapter_ids", what=what, bug=bug)


def _bad_ids(stage, draw, bad, name):
    """Each of `bad` at several places, in both modes. name: (found by id, tried) -> bug."""
    (W, b, A, B), tried, good = pieces(draw), [], {}
    ways = (("train", (), b, (0, 3)), ("eval", (2,), None, (-1, 3)), ("eval", (), b, (3,)))
    for mode, between, bias, places in ways:
        x, given = draw(ROWS, *between, IN), (W, bias, A, B)
        stage(with_ids, *given, x, mixed(draw), mode)  # so that the id is what is wrong
        for id_, place in itertools.product(bad, places):
            ids = mixed(draw)
            ids[place] = id_
            outcome = stage.attempt(with_ids, *given, x, ids, mode)
            how = f"{mode} mode{' under no_grad' * (mode == 'eval')}, x of {x.ndim} dimensions"
            how += ", no bias" * (bias is None)
            tried.append((id_, x, ids, given, outcome, f"an id {id_} of {N} adapters ({how})"))
            good.setdefault((id_, how), []).append(_named(outcome, "IndexError"))
    by_id = {i: {g for (j, _), seen in good.items() if j == i for g in seen} for i in bad}
    bug = None
    if any(len(set(seen)) == 2 for seen in good.values()):
        bug = "ids-partly-checked"  # one and the same call finds it in one place only
    elif all(len(seen) == 1 for seen in by_id.values()):
        bug = name(by_id, tried)
    for *_, outcome, what in tried:
        _judge(outcome, "IndexError", what, bug)
    for n, rows in ((1, ROWS), (N, 1)):
        ids = torch.zeros(rows, dtype=torch.int64)
        ids[0] = n if bad[0] == N else bad[0]
        given = *pieces(draw, n=n), draw(rows, IN)
        outcome = stage.attempt(with_ids, *given, ids, "train", torch.zeros_like(ids))
        what = (
            f"an id {int(ids[0])} of {counted(n, 'adapter')} in a batch of {counted(rows, 'row')}"
        )
        what += ", written into ids that were right"
        _judge(outcome, "IndexError", what, None)


@part("errors")
def test_id_too_large(stage, draw):
    """An id of num_adapters or more raises IndexError naming adapter_ids."""

    def name(by_id, tried):
        missed = {id_ for id_, seen in by_id.items() if False in seen}
        if missed == {N}:
            return "id-bound-off-by-one"
        return "id-unchecked" if len(missed) == len(by_id) else None

    _bad_ids(stage, draw, (N, N + 1, 1000), name)


@part("errors")
def test_id_below_minus_one(stage, draw):
    """An id below -1 raises IndexError naming adapter_ids; it does not count from the end."""

    def name(by_id, tried):
        for bug, other in (("negative-id-wraps", N - 2), ("negative-id-is-none", -1)):
            alike = [
                isinstance(y, torch.Tensor)
                and close(y, sum(oracle(x, torch.where(ids == -2, other, ids), *given)), 1e-4, 1e-5)
                for id_, x, ids, given, y, _ in tried
                if id_ == -2
            ]
            if all(alike):
                return bug
        return None

    _bad_ids(stage, draw, (-2, -N, -N - 1), name)


@part("errors")
def test_length_of_ids(stage, draw):
    """A number of ids other than B raises ValueError naming adapter_ids."""
    values, tried = pieces(draw), []
    for shape, length in (
        ((ROWS, IN), ROWS - 1),
        ((ROWS, IN), ROWS + 1),
        ((ROWS, IN), 1),
        ((ROWS, IN), IN),
        ((ROWS, 3, IN), 1),
        ((ROWS, 3, IN), 3),
        ((ROWS, 3, IN), ROWS * 3),
        ((1, 4, IN), 4),
        ((1, IN), 3),
    ):
        ids = draw.integers(-1, N, length)
        for mode in ("train", "eval"):
            stage(with_ids, *values, draw(*shape), draw.integers(-1, N, shape[0]), mode)
            outcome = stage.attempt(with_ids, *values, draw(*shape), ids, mode)
            tried.append((shape, length, outcome))
    missed = {(shape, length) for shape, length, y in tried if not _named(y, "ValueError")}
    bug = None
    if len(missed) == len(tried) // 2:
        bug = "length-unchecked"
    elif missed == {(shape, length) for shape, length, _ in tried if length == 1}:
        bug = "one-id-spread"
    for shape, length, outcome in tried:
        what = f"{length} adapter_id{'s' * (length > 1)} for x {shape}"
        _judge(outcome, "ValueError", what, bug)


def after_error(kata, weight, bias, A, B, x, ids):
    layer = make(kata, weight, bias, A, B)
    try:
        layer(x, ids)
    except (IndexError, ValueError):
        return x, ids, layer.lora_A, layer.lora_B, layer.base.weight
    return x, ids, layer.lora_A, layer.lora_B, layer.base.weight


@part("errors")
def test_errors_change_nothing(stage, draw):
    """An error leaves x, adapter_ids and the parameters as they were."""
    W, b, A, B = pieces(draw)
    x = draw(ROWS, IN)
    for ids in (torch.tensor([-1, 3, 0, -1, N, 2, 1, 0]), torch.tensor([-1, 0, 2])):
        names = "x", "adapter_ids", "lora_A", "lora_B", "base.weight"
        for name, got, was in zip(names, stage(after_error, W, b, A, B, x, ids), (x, ids, A, B, W)):
            same(got, was, f"{name}, after an error,")


# cost


def cost(kata, weight, bias, A, B, x, ids):
    layer = make(kata, weight, bias, A, B)
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
    return [c["ops"] for c in found], max(c["largest"] for c in found)


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
        W, b, A, B = pieces(draw, dtype, n=n, out=6, into=8, rank=2)
        x = draw(rows, 2, 8, dtype=dtype)
        return stage(cost, W, b if bias else None, A, B, x, spread(rows, n))[0]

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
        W, b, A, B = pieces(draw, dtype, n=n, out=out, into=into, rank=2)
        bias = None if dtype == torch.bfloat16 else b  # then the factors are frozen too
        x = draw(len(ids), 2, into, dtype=dtype)
        largest = stage(cost, W, bias, A, B, x, torch.tensor(ids))[1]
        weights = largest // (out * into)
        known = {n: "merged-all", n + 1: "merged-all"}
        known |= {len(ids): "merged-per-row", len(ids) - 1: "merged-per-row"}
        exactly = weights * out * into == largest
        text = f"a tensor of {largest} values is made, the size of {weights} weights {(out, into)}"
        require(largest < 3 * out * into, text, known.get(weights) if exactly else None)


# gpu


def places(kata, weight, bias, device):
    layer = kata.MultiLoRALinear(linear(weight, bias).to(device), 2, rank=3)
    return layer.lora_A.device.type, layer.lora_B.device.type


def on_device(kata, weight, bias, A, B, x, ids, g, device):
    weight, bias, A, B, x, ids, g = (t.to(device) for t in (weight, bias, A, B, x, ids, g))
    layer = make(kata, weight, bias, A, B)
    x = x.requires_grad_()
    y = layer(x, ids)
    (y * g).sum().backward()
    return y, y.device.type, x.grad, layer.lora_A.grad, layer.lora_B.grad


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU, and nothing stays behind."""
    W, b, A, B = values = pieces(draw)
    for name, place in zip(("lora_A", "lora_B"), stage(places, W, b, stage.device)):
        where = f"{name} is on {place}; the base is on {stage.device}"
        require(place == stage.device, where, "cpu-factors")
    ids = mixed(draw)
    for between in ((), (4,)):
        x, g = draw(ROWS, *between, IN), draw(ROWS, *between, OUT)
        y, place, to_x, to_a, to_b = stage(on_device, *values, x, ids, g, stage.device)
        require(place == stage.device, f"the output is on {place}, x is on {stage.device}")
        near(y, sum(oracle(x, ids, *values)), rtol=1e-3, atol=1e-3)
        back = g.double() @ W.double()
        back += through(g, ALPHA / RANK * (B.double() @ A.double()).mT, ids)
        near(to_x, back, what="the gradient to x", rtol=1e-3, atol=1e-3)
        for name, got, want in zip(("lora_A", "lora_B"), (to_a, to_b), exact(x, ids, g, A, B)):
            near(got, want, what=f"the gradient of {name}", rtol=1e-3, atol=1e-3)
