"""What is checked of `segmented_lora`. Contract: Punica (Chen et al. 2023), section 4."""

import itertools
from functools import partial

import torch

from grader.exam.checks import (
    TOLERANCE,
    CheckFailed,
    Compared,
    blame,
    close,
    fail,
    near,
    part,
    require,
    same,
    tensor,
)

OUT, IN, RANK, SCALE = 10, 14, 3, 3.5

# Segments of a batch as (adapter, number of tokens), in the order of the adapters.
FULL = ((-1, 3), (0, 4), (2, 5), (3, 1), (5, 2))
EVEN = ((1, 3), (2, 2), (5, 4))
NAMED = ((0, 4), (2, 5), (3, 1), (5, 2))
HOLES = ((-1, 0), (0, 3), (1, 0), (2, 0), (3, 4), (4, 2), (5, 0))
ADAPTERS = 6
KEPT = "result-kept"


# What is right, and what known mistakes give


def bounds(lengths):
    """0 and the running sum."""
    return torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])


def laid_out(segments):
    """segment_starts and segment_ids of such a batch."""
    ids, lengths = torch.tensor(segments).T
    return bounds(lengths), ids.contiguous()


def per_token(starts, ids):
    """The adapter of each token."""
    return ids.repeat_interleave(starts.diff())


def pieces(draw, segments, n=ADAPTERS, dtype=torch.float32):
    """x, lora_A, lora_B, segment_starts, segment_ids."""
    starts, ids = laid_out(segments)
    x = draw(int(starts[-1]), IN, dtype=dtype)
    return x, *factors(draw, n, dtype), starts, ids


def factors(draw, n=ADAPTERS, dtype=torch.float32, rank=RANK, out=OUT, width=IN):
    return draw(n, rank, width, std=0.4, dtype=dtype), draw(n, out, rank, std=0.6, dtype=dtype)


def update(x, A, B, adapters, scale=SCALE):
    """scale * B A x with each token's own factors, zero for -1; float64."""
    A, B = (f.double()[adapters.clamp(min=0)] for f in (A, B))
    low = torch.einsum("ti,tri->tr", x.double(), A)
    return scale * torch.einsum("tr,tor->to", low, B) * (adapters >= 0)[:, None]


def slips(x, A, B, starts, ids, scale=SCALE):
    """What known mistakes make of the output, where it shows."""
    adapters, n = per_token(starts, ids), len(A)
    want = update(x, A, B, adapters, scale)
    position = per_token(starts, torch.arange(len(ids))).clamp(max=n - 1)
    ends = torch.isin(torch.arange(len(x)), starts[1:] - 1)
    turned = A.reshape(n, A.shape[2], A.shape[1]).mT
    known = {
        "scale-missing": want / scale,
        "scale-twice": want * scale,
        "scale-over-rank": want / A.shape[1],
        "no-adapter-takes-last": update(x, A, B, adapters % n, scale),
        "no-adapter-takes-first": update(x, A, B, adapters.clamp(min=0), scale),
        "id-zero-is-none": want * (adapters != 0)[:, None],
        "adapter-by-position": update(x, A, B, torch.where(adapters < 0, -1, position), scale),
        "first-segment-skipped": want * (adapters != adapters[0])[:, None],
        "last-segment-skipped": want * (adapters != adapters[-1])[:, None],
        "last-token-of-segment-lost": want * ~ends[:, None],
        "factor-reshaped": update(x, turned, B, adapters, scale),
    }
    if len(adapters[adapters >= 0].unique()) < 2:  # then it may as well be the first
        del known["last-segment-skipped"], known["first-segment-skipped"]
    elif adapters[0] == 0:  # then it may as well be adapter 0 that is taken for none
        del known["first-segment-skipped"]
    if n < 2:  # the first, and the last
        del known["no-adapter-takes-last"], known["no-adapter-takes-first"]
    if A.shape[1] == A.shape[2]:  # then it may as well not be transposed at all
        del known["factor-reshaped"]
    return {bug: value for bug, value in known.items() if not close(value, want, 1e-3, 1e-3)}


def sort_of(adapter_ids):
    """What `order` should be."""
    return torch.sort(adapter_ids, stable=True).indices


def wrong_orders(adapter_ids):
    """What known mistakes give as order; each may have several forms."""
    T, right = len(adapter_ids), sort_of(adapter_ids)
    at_end = torch.where(adapter_ids < 0, adapter_ids.max() + 1, adapter_ids)
    falling = torch.sort(adapter_ids, descending=True, stable=True).indices
    return {
        "order-inverted": [right.argsort()],
        "order-holds-the-ids": [adapter_ids[right]],
        "order-descending": [falling, right.flip(0)],
        "not-sorted": [torch.arange(T)],
        "no-adapter-last": [sort_of(at_end)],
        "no-adapter-dropped": [right[adapter_ids[right] >= 0]],
    }


def triple(got):
    """order, segment_starts and segment_ids as group_by_adapter returned them."""
    three = isinstance(got, (tuple, list)) and len(got) == 3
    require(
        three,
        "group_by_adapter should return three tensors: order, segment_starts, segment_ids",
    )
    names = ("order", "segment_starts", "segment_ids")
    values = tuple(tensor(v, name) for v, name in zip(got, names))
    for name, v in zip(names, values):
        require(not v.is_complex() and v.dtype != torch.bool, f"{name} should hold integers")
    return tuple(v.double() for v in values)


def judge_order(order, adapter_ids, what):
    """order is the stable ascending sort; names a known mistake."""
    want = sort_of(adapter_ids).double()
    if torch.equal(order, want):
        return
    T = len(adapter_ids)
    found = [
        bug
        for bug, forms in wrong_orders(adapter_ids).items()
        if any(torch.equal(order, form.double()) for form in forms)
    ]
    bug = found[0] if len(found) == 1 and len(adapter_ids.unique()) > 2 else None
    shape = tuple(order.shape)
    require(shape == (T,), f"{what}: order has shape {shape}, expected ({T},)", bug)
    permutes = torch.equal(order.sort().values, torch.arange(T).double())
    require(permutes, f"{what}: order does not hold each of 0..{T - 1} once: {_few(order)}", bug)
    seen = Compared("order", order, want, axes=("token",))
    if not torch.equal(adapter_ids[order.long()], adapter_ids.sort().values):
        came = _few(adapter_ids[order.long()])
        fail(f"{what}: adapter_ids[order] does not ascend: {came}", bug, seen)
    fail(
        f"{what}: tokens of one adapter change places: order is {_few(order)}, "
        f"expected {_few(want)}",
        "sort-not-stable",
        seen,
    )


def wrong_segments(adapter_ids):
    """What known mistakes give as segment_starts and segment_ids, in every form they take."""
    right, T = adapter_ids.sort().values, len(adapter_ids)
    ids, lengths = right.unique_consecutive(return_counts=True)
    runs, run_lengths = adapter_ids.unique_consecutive(return_counts=True)
    starts, zero = bounds(lengths), torch.zeros(1, dtype=torch.int64)
    none = int(right[0] < 0)  # whether the first segment is that of -1
    every = [bounds(torch.bincount(right - low)) for low in (-1, min(int(right[0]), 0))]
    known = {
        "end-missing": [(starts[:-1], ids)],
        "first-start-missing": [(starts[1:], ids)],
        "starts-are-lengths": [(lengths, ids), (torch.cat([zero, lengths]), ids)],
        "segments-numbered": [(starts, torch.arange(len(ids)))],
        "runs-not-sorted": [(bounds(run_lengths), runs)],
        "segment-per-token": [(torch.arange(T + 1), right)],
        "starts-for-absent-ids": [(found, ids) for found in every if len(found) > len(starts)],
        "no-adapter-dropped": [(starts[1:], ids[1:]), (bounds(lengths[1:]), ids[1:])][: 2 * none],
    }
    if len(ids) < 2:  # one segment of one name may come about in many ways
        del known["segments-numbered"]
    return known


def judge_segments(starts, ids, adapter_ids, what):
    """segment_starts and segment_ids tell where each adapter's tokens lie after the sort."""
    T, right = len(adapter_ids), adapter_ids.sort().values
    for name, v in (("segment_starts", starts), ("segment_ids", ids)):
        require(v.ndim == 1, f"{what}: {name} has shape {tuple(v.shape)}, expected one dimension")
    found = [
        bug
        for bug, forms in wrong_segments(adapter_ids).items()
        if any(torch.equal(starts, a.double()) and torch.equal(ids, b.double()) for a, b in forms)
    ]
    bug = found[0] if len(found) == 1 else None
    require(
        len(starts) == len(ids) + 1,
        f"{what}: {len(ids)} segment_ids need {len(ids) + 1} segment_starts, not {len(starts)}",
        bug,
    )
    span = f"{what}: segment_starts should ascend from 0 to {T}, got {_few(starts)}"
    require(bool((starts.diff() >= 0).all()), span, bug)
    require(float(starts[0]) == 0 and float(starts[-1]) == T, span, bug)
    require(torch.equal(starts, starts.round()), f"{what}: segment_starts should be whole numbers")
    lengths = starts.diff().long()
    adapters = ids.repeat_interleave(lengths)
    wrong = (adapters != right).nonzero()
    if len(wrong):
        at = int(wrong[0])
        fail(
            f"{what}: sorted token {at} lies in a segment of adapter {adapters[at]:g}, "
            f"expected {int(right[at])}",
            bug,
            Compared("the adapter of each sorted token", adapters, right, axes=("token",)),
        )
    full, there = int((lengths > 0).sum()), len(right.unique())
    require(
        full == there,
        f"{what}: {full} segments hold tokens, expected one for each of the {there} ids that occur",
        bug,
    )


def _few(values):
    shown = [f"{v:g}" for v in values[:12].tolist()]
    return f"[{', '.join(shown)}{', …' if len(values) > 12 else ''}]"


def judge_group(got, adapter_ids, what):
    order, starts, ids = triple(got)
    judge_order(order, adapter_ids, what)
    judge_segments(starts, ids, adapter_ids, what)


def mixed(draw, T, ids):
    """(T,) adapter ids in no order; each of `ids` occurs, as far as there is room."""
    ids = torch.tensor(ids)
    chosen = torch.cat([ids, ids[draw.integers(0, len(ids), T)]])[:T]
    while True:
        drawn = chosen[draw(T).argsort()]
        order = sort_of(drawn)
        seen = list(dict.fromkeys(drawn.tolist()))  # in the order of their first tokens
        telling = not torch.equal(order[order], torch.arange(T)) and sorted(seen) not in (
            seen,
            seen[::-1],
            seen[-1:] + seen[:-1],
        )
        if telling or len(seen) < 3:  # with fewer, mistakes can look alike
            return drawn


# shape


def grouped(kata, adapter_ids):
    return kata.group_by_adapter(adapter_ids)


@part("shape")
def test_group_shapes(stage, draw):
    """order is (T,), segment_starts (s + 1,), segment_ids (s,), for one token too."""
    for T, ids, bug in (
        (30, (0, 2, 5), None),
        (12, (-1, 0, 1, 3, 4), "no-adapter-fails"),  # raises where nothing but the -1 is new
        (7, (2, 4), "size-of-one"),
        (7, (-1, 4), None),
        (2, (3, 1), "size-of-one"),
        (1, (2,), "size-of-one"),
    ):
        adapter_ids = mixed(draw, T, ids)
        with blame(bug):
            got = stage(grouped, adapter_ids)
        judge_group(got, adapter_ids, f"{T} token{'s' * (T > 1)}")


def applied(kata, x, lora_A, lora_B, starts, ids, scale):
    # New memory is filled with NaN: what is never written shows, whatever lay there before.
    torch._C._set_deterministic_algorithms(True, warn_only=True)
    try:
        return kata.sgmv(x, lora_A, lora_B, starts, ids, scale)
    finally:
        torch._C._set_deterministic_algorithms(False)


def _right(stage, values, what="the output", scale=SCALE, bug=None, named=True):
    """sgmv gives the right update; names a known mistake.

    bug: the mistake if it raises, or gives another shape. named: whether known mistakes may be:
    not where they would have shown before.
    """
    x, A, B, starts, ids = values
    with blame(bug):
        y = stage(applied, *values, scale)
    adapters = per_token(starts, ids)
    want = update(x, A, B, adapters, scale)
    known = partial(slips, *values, scale) if scale == SCALE and named else {}
    reshaped = tensor(y, what).shape != want.shape
    near(y, want, what=what, unless=known, bug=bug if reshaped else _unwritten(y, want, adapters))


def _unwritten(y, want, adapters):
    """The mistake if all the output, or all of tokens without an adapter, was never written."""
    unset, none = y.isnan(), adapters < 0
    if bool(unset.all()):
        return "output-uninitialised" if not bool(none.all()) else "no-adapter-not-written"
    right = bool(none.any()) and close(y[~none], want[~none], 1e-4, 1e-5)
    return "no-adapter-not-written" if right and bool(unset[none].all()) else None


def _fits(stage, values):
    """Whether sgmv is right for these."""
    try:
        _right(stage, values)
    except CheckFailed:
        return False
    return True


def sized(draw, n, rank, out, width, segments):
    """As `pieces`, for these sizes."""
    starts, ids = laid_out(segments)
    A, B = factors(draw, n, rank=rank, out=out, width=width)
    return draw(int(starts[-1]), width), A, B, starts, ids


@part("shape")
def test_output_shape(stage, draw):
    """sgmv gives (T, out), whatever in, r, out, n and the number of tokens are."""
    for segments in (EVEN, ((1, 1), (2, 3)), FULL):
        values = pieces(draw, segments)
        one = "size-of-one" if len(segments) == 2 else None
        square = not _fits(stage, values) and _fits(stage, sized(draw, 6, 2, 5, 5, segments))
        _right(stage, values, bug="out-equal-to-in" if square else one)
    for n, rank, out, width, segments, bug in (
        (3, 6, 4, 4, ((0, 2), (2, 3)), None),
        (4, 4, 4, 4, ((-1, 1), (0, 1), (2, 1), (3, 1)), None),  # all alike
        (3, 3, 3, 3, ((-1, 0), (0, 2), (2, 1)), None),
        (5, 4, 6, 4, ((-1, 2), (4, 3)), None),
        (5, 6, 6, 4, ((-1, 2), (4, 3)), None),
        (4, 1, 5, 7, ((-1, 2), (1, 2), (3, 2)), "size-of-one"),
        (3, 2, 1, 5, ((0, 2), (2, 3)), "size-of-one"),
        (3, 2, 5, 1, ((0, 2), (2, 3)), "size-of-one"),
        (1, 2, 5, 4, ((-1, 2), (0, 3)), "size-of-one"),
        (2, 2, 5, 4, ((1, 1),), "size-of-one"),
        (2, 1, 1, 1, ((1, 1),), "size-of-one"),
        (1, 1, 1, 1, ((-1, 1), (0, 1)), "size-of-one"),
        (2, 8, 5, 4, ((0, 1), (1, 1)), None),
    ):
        values = x, A, B, *_ = sized(draw, n, rank, out, width, segments)
        what = f"x {tuple(x.shape)}, lora_A {tuple(A.shape)}, lora_B {tuple(B.shape)}: the output"
        _right(stage, values, what, bug=bug)


def grouped_strided(kata, adapter_ids):
    table = torch.stack([adapter_ids + 1, adapter_ids, adapter_ids + 2], dim=1)
    row = table.clone().flatten()
    return kata.group_by_adapter(table[:, 1]), kata.group_by_adapter(row[1::3])


def applied_strided(kata, x, lora_A, lora_B, starts, ids, scale):
    wide = torch.stack([x, -x], dim=2)
    spaced = torch.stack([starts, starts + 1], dim=1), torch.stack([ids, ids + 1], dim=1)
    lora_A = lora_A.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    lora_B = lora_B.mT.contiguous().mT
    turned = x.T.contiguous().T
    given = lora_A, lora_B, turned
    strides = [t.stride() for t in given]
    ys = (
        kata.sgmv(wide[:, :, 0], lora_A, lora_B, spaced[0][:, 0], spaced[1][:, 0], scale),
        kata.sgmv(turned, lora_A, lora_B, starts, ids, scale),
    )
    return *ys, strides == [t.stride() for t in given]


@part("shape")
def test_non_contiguous_inputs(stage, draw):
    """Ids, tokens, factors and segments need not be contiguous."""
    adapter_ids = mixed(draw, 18, (-1, 0, 1, 3))
    by_stride = "contiguous-only", "view size is not compatible", "contiguous"
    with blame(*by_stride):
        column, skipped = stage(grouped_strided, adapter_ids)
    judge_group(column, adapter_ids, "a column of ids")
    judge_group(skipped, adapter_ids, "every third id")
    values = x, A, B, starts, ids = pieces(draw, FULL)
    want = update(x, A, B, per_token(starts, ids))
    _right(stage, values)
    with blame(*by_stride):
        *ys, kept = stage(applied_strided, *values, SCALE)
    text = "the strides of x or of a factor are changed"
    require(kept, text, "changes-input-in-place")
    for y in ys:
        near(y, want, what="the output for inputs that are not contiguous")


# forward


@part("forward")
def test_order_ascends(stage, draw):
    """adapter_ids[order] ascends, in whatever order the ids come."""
    ids = mixed(draw, 20, (-1, 0, 1, 2, 5))
    for what, adapter_ids in (
        ("ids in no order", ids),
        ("ids that ascend already", ids.sort().values),
        ("ids that descend", ids.sort(descending=True).values),
        ("ids in turn", torch.tensor([2, 0, 1] * 5)),
        ("ids in runs", torch.tensor([3, 3, 0, 0, 0, -1, -1, 3, 0, 1, 1])),
    ):
        judge_group(stage(grouped, adapter_ids), adapter_ids, what)


def grouped_fairly(kata, adapter_ids):
    from torch.utils._python_dispatch import TorchDispatchMode

    class TiesReversed(TorchDispatchMode):
        # A sort that is not asked to be stable may put equal values in any order. Whether it
        # does depends on the machine; here it always does.
        @classmethod
        def _should_skip_dynamo(cls):
            return False  # True would import the compiler: a second

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            named = dict(zip([a.name for a in func._schema.arguments], args)) | (kwargs or {})
            aten = torch.ops.aten
            sorts = func in (aten.sort.default, aten.sort.stable)
            if not sorts or named.get("stable") or not named["self"].ndim:
                return func(*args, **(kwargs or {}))
            values, dim = named["self"], named.get("dim", -1)
            down = named.get("descending", False)
            turned = torch.sort(values.flip(dim), dim=dim, descending=down, stable=True)
            return turned.values, values.shape[dim] - 1 - turned.indices

    with TiesReversed():
        return kata.group_by_adapter(adapter_ids)


@part("forward")
def test_sort_is_stable(stage, draw):
    """Tokens of one adapter keep their order."""
    for T, ids in ((9, (0, 1)), (48, (-1, 0, 1)), (1100, (-1, 0, 2, 3, 7)), (64, (4,))):
        adapter_ids = mixed(draw, T, ids)
        judge_group(stage(grouped_fairly, adapter_ids), adapter_ids, f"{T} tokens")


@part("forward")
def test_no_adapter_comes_first(stage, draw):
    """-1 forms the first segment; a batch may hold no -1, or nothing else."""
    adapter_ids = mixed(draw, 15, (-1, 0, 1, 3))
    judge_group(stage(grouped, adapter_ids), adapter_ids, "ids with -1")
    adapter_ids = mixed(draw, 15, (0, 1, 3))
    judge_group(stage(grouped, adapter_ids), adapter_ids, "ids without -1")
    for T in (1, 6):
        adapter_ids = torch.full((T,), -1)
        judge_group(stage(grouped, adapter_ids), adapter_ids, f"{T} times -1")


@part("forward")
def test_segments_name_their_adapters(stage, draw):
    """segment_ids are the adapters' own ids, with gaps between them, and large ones too."""
    for ids in ((2, 3, 5), (-1, 4), (7,), (0, 9, 40), (-1, 130, 260, 300)):
        adapter_ids = mixed(draw, 18, ids)
        judge_group(stage(grouped, adapter_ids), adapter_ids, f"ids out of {ids}")


@part("forward")
def test_each_segment_has_its_adapter(stage, draw):
    """Each token of a segment gets scale * x @ A.T @ B.T of the segment's adapter."""
    for segments in (
        FULL,
        NAMED,
        ((0, 2), (1, 3), (2, 1), (3, 2), (4, 1), (5, 3)),
        ((3, 6),),
        ((0, 6),),
    ):
        _right(stage, pieces(draw, segments), f"the output for segments {segments}")
    many = tuple((k, 1 + k % 3) for k in range(1, 300, 2))
    _right(stage, pieces(draw, many, n=300), "the output for 300 adapters")
    long = ((-1, 70), (0, 1100), (2, 65))
    _right(stage, pieces(draw, long), "the output for long segments")


@part("forward")
def test_no_adapter_gives_zeros(stage, draw):
    """In the segment of -1 the output is zero, also where it is the only one."""
    _right(stage, pieces(draw, NAMED), "the output without -1")
    for segments, bug in (
        (FULL, None),
        (((-1, 5), (5, 2)), None),
        (((-1, 4),), "idle-batch-fails"),
        (((-1, 1),), None),
    ):
        what = f"the output for segments {segments}"
        with blame(bug):
            _right(stage, pieces(draw, segments), what)


@part("forward")
def test_empty_segments(stage, draw):
    """Segments may be empty: the first, the last, several in a row."""
    _right(stage, pieces(draw, FULL))
    _right(stage, pieces(draw, NAMED))
    for segments in (
        HOLES,
        ((-1, 0), (5, 3)),
        ((-1, 2), (0, 0), (1, 0), (2, 3)),
        ((0, 0), (1, 0), (4, 1)),
        ((0, 3), (3, 0), (5, 0)),
        ((-1, 4), (0, 0)),
    ):
        values = pieces(draw, segments)
        with blame("empty-segment-fails"):
            _right(stage, values, f"the output for segments {segments}", named=False)


@part("forward")
def test_any_scale(stage, draw):
    """scale may be any number: small, negative, 1 or 0."""
    for scale in (SCALE, 0.125, -1.5, 1.0, 0.0):
        _right(stage, pieces(draw, FULL), f"the output with scale {scale}", scale)


def whole(kata, x, lora_A, lora_B, adapter_ids, scale, g):
    x, lora_A, lora_B = (t.clone().requires_grad_() for t in (x, lora_A, lora_B))
    order, starts, ids = kata.group_by_adapter(adapter_ids)
    order = order.long()
    y = kata.sgmv(x[order], lora_A, lora_B, starts, ids, scale)
    if y.requires_grad:
        (y * g[order]).sum().backward()
    return order, y, x.grad, lora_A.grad, lora_B.grad


def _whole(stage, draw, adapter_ids, n=ADAPTERS):
    """Evidence of grouping, sgmv and its gradients in one; what is right of each."""
    x, g = draw(len(adapter_ids), IN), draw(len(adapter_ids), OUT)
    A, B = factors(draw, n)
    order, y, *grads = stage(whole, x, A, B, adapter_ids, SCALE, g)
    judge_order(order.double(), adapter_ids, "the batch")
    want = update(x, A, B, adapter_ids)
    shape = tuple(tensor(y).shape)
    require(shape == want.shape, f"sgmv gives {shape}, expected {tuple(want.shape)}")
    back = torch.empty_like(y).index_copy(0, order, y)
    return back, want, grads, _gradients(x, A, B, adapter_ids, SCALE, g)


@part("forward")
def test_same_as_one_adapter_per_token(stage, draw):
    """Grouping, sgmv and the undone permutation give each token its own adapter's update."""
    for T, ids in ((16, (-1, 0, 2, 5)), (12, (1, 3, 4)), (20, (-1, 0, 1, 2, 3, 4, 5)), (5, (5,))):
        back, want, *_ = _whole(stage, draw, mixed(draw, T, ids))
        near(back, want, what=f"the update of {T} tokens with ids out of {ids}")
    back, want, *_ = _whole(stage, draw, torch.full((4,), -1))
    near(back, want, what="the update of 4 tokens without an adapter")


def by_keyword(kata, adapter_ids, x, lora_A, lora_B, starts, ids, scale):
    return kata.group_by_adapter(adapter_ids=adapter_ids), kata.sgmv(
        scale=scale, segment_ids=ids, segment_starts=starts, lora_B=lora_B, lora_A=lora_A, x=x
    )


@part("forward")
def test_arguments_by_name(stage, draw):
    """Arguments may be given by name."""
    adapter_ids = mixed(draw, 12, (-1, 0, 3))
    values = x, A, B, starts, ids = pieces(draw, FULL)
    got, y = stage(by_keyword, adapter_ids, *values, SCALE)
    judge_group(got, adapter_ids, "ids given by name")
    near(y, update(x, A, B, per_token(starts, ids)), what="the output for arguments by name")


def untouched(kata, adapter_ids, x, lora_A, lora_B, starts, ids, scale):
    given = [t.clone() for t in (adapter_ids, x, lora_A, lora_B, starts, ids)]
    kata.group_by_adapter(given[0])
    kata.sgmv(*given[1:], scale)
    return given


@part("forward")
def test_inputs_unchanged(stage, draw):
    """No argument is changed in place."""
    names = ("adapter_ids", "x", "lora_A", "lora_B", "segment_starts", "segment_ids")
    square = sized(draw, 6, RANK, 5, 5, ((-1, 4),))  # the output may look like x
    for values in (*(pieces(draw, segments) for segments in (FULL, NAMED, HOLES)), square):
        given = mixed(draw, 12, (-1, 0, 3)), *values
        after = stage(untouched, *given, SCALE)
        for name, value, before in zip(names, after, given):
            same(value, before, name, "changes-input-in-place")


def in_turn(kata, first, second, first_ids, second_ids, scales, grad):
    made, at_once = [], []

    def call(adapter_ids, given, scale):
        group, y = kata.group_by_adapter(adapter_ids), kata.sgmv(*given, scale)
        made.append((group, y))
        at_once.append(([t.clone() for t in group], y.clone()))

    adapter_ids = first_ids.clone()
    given = [t.clone() for t in first]
    with torch.set_grad_enabled(grad):
        call(adapter_ids, given, scales[0])
        adapter_ids.copy_(second_ids)
        for old, new in zip(given, second):  # .data: no version counter tells
            (old if grad else old.data).copy_(new)
        call(adapter_ids, given, scales[0])
        call(adapter_ids, given, scales[1])
        call(first_ids.clone(), [t.clone() for t in first], scales[0])
        kept = torch.is_grad_enabled() == grad
    return at_once, made, kept


@part("forward")
def test_calls_are_independent(stage, draw):
    """A call depends on its arguments alone, and changes no earlier result."""
    first = pieces(draw, FULL)
    second = pieces(draw, ((-1, 1), (1, 6), (2, 1), (3, 3), (4, 4)))
    ids = mixed(draw, 15, (-1, 0, 2)), mixed(draw, 15, (-1, 1, 2))
    one, two = (update(*v[:3], per_token(*v[3:])) for v in (first, second))
    # What keeping any of the first call's arguments gives in the second.
    places = list(itertools.product(*zip(first[3:], second[3:])))
    mixtures = list(itertools.product(*zip(first[:3], second[:3]), places))[:-1]
    kept = [update(x, A, B, per_token(*place)) for x, A, B, place in mixtures]
    known = first[4][first[4] >= 0]  # these adapters' factors may have been multiplied out
    low, up = (new.index_copy(0, known, old[known]) for old, new in zip(first[1:3], second[1:3]))
    kept.append(update(second[0], low, up, per_token(*second[3:])))
    calls = (
        ("a first call", 0, one),
        ("a call after its arguments changed in place", 1, two),
        ("a call with another scale", 1, two / SCALE * 0.5),
        ("a call that repeats the first", 0, one),
    )
    for grad in (True, False):
        at_once, made, kept_mode = stage(in_turn, first, second, *ids, (SCALE, 0.5), grad)
        require(kept_mode, "a call leaves grad mode on that was off, or off that was on")
        for k, (name, at, want) in enumerate(calls):
            what = name if grad else f"{name}, under no_grad"
            group, y = at_once[k]
            old = k == 1 and torch.equal(triple(group)[0].long(), sort_of(ids[0]))
            text = f"group_by_adapter, {what}: order is that of the batch before"
            require(not old, text, KEPT)
            judge_group(group, ids[at], f"group_by_adapter, {what}")
            stale = [v for v in kept if k == 1 and close(tensor(y), v, 1e-4, 1e-5)]
            near(y, want, what=f"the output of {what}", bug=KEPT if stale else None)
            later = zip((*at_once[k][0], y), (*made[k][0], made[k][1]))
            for before, after in later:
                same(after, before, f"a result of {what}, by a later call,", "result-overwritten")


# gradient


def _gradients(x, A, B, adapters, scale, g):
    """Gradients of x, lora_A, lora_B; float64."""
    leaves = [t.double().requires_grad_() for t in (x, A, B)]
    (update(*leaves, adapters, scale) * g.double()).sum().backward()
    return [leaf.grad for leaf in leaves]


def gradients(kata, x, lora_A, lora_B, starts, ids, scale, g, which, turned=False):
    leaves = [t.mT.contiguous().mT if turned else t.clone() for t in (x, lora_A, lora_B)]
    leaves = [t.requires_grad_(k in which) for k, t in enumerate(leaves)]
    y = kata.sgmv(*leaves, starts, ids, scale)
    if y.requires_grad:
        (y * g).sum().backward()
    return y, y.requires_grad, [leaf.grad for leaf in leaves]


def _graded(
    stage,
    draw,
    segments,
    which=(0, 1, 2),
    dtype=torch.float32,
    scale=SCALE,
    n=ADAPTERS,
    turned=False,
):
    """Name, gradient as it came and as it should be, of each of `which`."""
    values = x, A, B, starts, ids = pieces(draw, segments, n, dtype)
    g = draw(len(x), OUT, dtype=dtype)
    y, alive, got = stage(gradients, *values, scale, g, which, turned)
    right = close(tensor(y), update(x, A, B, per_token(starts, ids), scale), *TOLERANCE[dtype])
    require(
        alive,
        f"the output for segments {segments} does not require a gradient",
        "output-detached" if right else None,
    )
    want = _gradients(x, A, B, per_token(starts, ids), scale, g)
    return [(NAMES[k], got[k], want[k]) for k in which]


NAMES = ("x", "lora_A", "lora_B")


def _as_wanted(got, note="", named=True):
    missing = tuple(name for name, grad, _ in got if grad is None)
    cut = {("x",): "input-gradient-cut", ("lora_A", "lora_B"): "factor-gradients-cut"}
    bug = cut.get(missing) if named else None
    for name, grad, want in got:
        require(grad is not None, f"{name} gets no gradient{note}", bug)
        near(grad, want, what=f"the gradient of {name}{note}")


@part("gradient")
def test_gradients(stage, draw):
    """x, lora_A and lora_B get exact gradients; adapters of no token get none or zeros."""
    for segments in (FULL, NAMED, ((2, 4),), ((-1, 3), (5, 1))):
        _as_wanted(_graded(stage, draw, segments), f" for segments {segments}")
    for scale, note, more in (
        (-1.5, "", {}),
        (1.0, " and inputs that are not contiguous", {"turned": True}),
        (0.125, " and one adapter", {"n": 1}),
    ):
        segments = ((-1, 1), (0, 3)) if "n" in more else NAMED
        got = _graded(stage, draw, segments, scale=scale, **more)
        _as_wanted(got, f" with scale {scale}{note}", named=False)


@part("gradient")
def test_gradients_with_empty_segments(stage, draw):
    """Empty segments change no gradient."""
    for segments in (HOLES, ((-1, 2), (0, 0), (1, 0), (2, 3)), ((-1, 0), (0, 3), (5, 0))):
        _as_wanted(_graded(stage, draw, segments), f" for segments {segments}")


@part("gradient")
def test_any_of_them_may_be_frozen(stage, draw):
    """Each gets its gradient also where the others need none."""
    _as_wanted(_graded(stage, draw, FULL))
    for which in ((0,), (1, 2), (1,), (2,)):
        alone = " and ".join(NAMES[k] for k in which)
        _as_wanted(_graded(stage, draw, FULL, which), f", with only {alone} to be trained")


@part("gradient")
def test_no_adapter_no_gradient(stage, draw):
    """With -1 alone nothing gets a gradient, or zeros."""
    values = pieces(draw, ((-1, 4),))
    *_, got = stage(gradients, *values, SCALE, draw(4, OUT), (0, 1, 2))
    for name, grad in zip(NAMES, got):
        if grad is not None:
            none = bool((tensor(grad) == 0).all())
            require(none, f"{name} gets a gradient from tokens without an adapter")


@part("gradient")
def test_gradients_through_the_grouping(stage, draw):
    """With the permutation around it, gradients are those of one adapter per token."""
    for T, ids in ((16, (-1, 0, 2, 5)), (12, (1, 3, 4))):
        _, _, grads, wanted = _whole(stage, draw, mixed(draw, T, ids))
        for name, grad, want in zip(NAMES, grads, wanted):
            require(grad is not None, f"{name} gets no gradient through the grouping")
            near(grad, want, what=f"the gradient of {name} through the grouping")


# dtype


def kinds(kata, adapter_ids):
    return [v.dtype for v in kata.group_by_adapter(adapter_ids)]


@part("dtype")
def test_integers(stage, draw):
    """order, segment_starts and segment_ids are integer tensors."""
    for ids in ((-1, 0, 3), (2,)):
        got = stage(grouped, mixed(draw, 12, ids))
        triple(got)
        for name, value in zip(("order", "segment_starts", "segment_ids"), got):
            floats = value.is_floating_point()
            text = f"{name} should hold integers, not {str(value.dtype)[6:]}"
            require(not floats, text, "floats-for-integers")


@part("dtype")
def test_dtype_of_the_tokens(stage, draw):
    """float64, bfloat16 and float32 work, and the output has the dtype of x."""
    for segments in (FULL, HOLES, ((-1, 3),)):
        seen = []
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            values = x, A, B, starts, ids = pieces(draw, segments, dtype=dtype)
            y = tensor(stage(applied, *values, 0.7))
            seen.append((dtype, y, update(x, A, B, per_token(starts, ids), 0.7)))
        single = [y.dtype == torch.float32 for _, y, _ in seen[1:]]
        mixed_up = {(True, True): "output-always-float32", (False, True): "output-in-float32"}
        bug = mixed_up.get(tuple(single)) if segments == FULL else None
        for dtype, y, want in seen:
            kind, got = (str(d)[6:] for d in (dtype, y.dtype))
            text = f"the {kind} output is {got}, expected {kind}"
            require(y.dtype == dtype, text, bug if got == "float32" else None)
            coarse = dtype == torch.float64 and close(y, want, 1e-6, 1e-6)
            single = want * (float(torch.tensor(0.7)) / 0.7)  # only the scale is in float32
            coarse = coarse and not close(y, single, 1e-9, 1e-9)
            slip = "computed-in-float32" if coarse else None
            near(y, want, what=f"the {kind} output", dtype=dtype, bug=slip)


@part("dtype")
def test_gradients_in_the_dtype_of_the_tokens(stage, draw):
    """Gradients are right in float64 and bfloat16 too."""
    for dtype in (torch.float64, torch.bfloat16):
        for name, grad, want in _graded(stage, draw, FULL, dtype=dtype):
            what = f"the {str(dtype)[6:]} gradient of {name}"
            near(tensor(grad, what), want, what=what, dtype=dtype)


# gpu


def on_device(kata, x, lora_A, lora_B, adapter_ids, scale, g, device):
    leaves = [t.to(device).requires_grad_() for t in (x, lora_A, lora_B)]
    group = kata.group_by_adapter(adapter_ids.to(device))
    order = group[0].long()
    y = kata.sgmv(leaves[0][order], *leaves[1:], *group[1:], scale)
    (y * g.to(device)[order]).sum().backward()
    grads = [leaf.grad for leaf in leaves]
    return group, y, grads, [t.device.type for t in (*group, y)]


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """On the accelerator grouping, output and gradients are the same, and stay there."""
    for T, chosen in ((24, (-1, 0, 2, 5)), (200, (0, 1, 3))):
        adapter_ids = mixed(draw, T, chosen)
        x, g = draw(T, IN), draw(T, OUT)
        A, B = factors(draw)
        given = x, A, B, adapter_ids, SCALE, g
        group, y, grads, places = stage(on_device, *given, stage.device)
        names = ("order", "segment_starts", "segment_ids", "the output")
        for name, place in zip(names, places):
            require(place == stage.device, f"{name}: on {place}, its inputs on {stage.device}")
        judge_group(group, adapter_ids, f"{T} tokens on {stage.device}")
        near(y, update(x, A, B, adapter_ids)[sort_of(adapter_ids)])
        for name, grad, want in zip(NAMES, grads, _gradients(*given)):
            near(tensor(grad, f"the gradient of {name}"), want, what=f"the gradient of {name}")
