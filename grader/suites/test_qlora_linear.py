"""What is checked of `qlora_linear`. Contract: QLoRA (Dettmers et al. 2023), section 3."""

import math

import torch
from torch.nn import functional as F

from grader.exam.checks import LearnerRaised, blame, described, fail, near, part, require, tensor
from grader.exam.kit import linear, need, set_
from grader.suites.shared import lowrank, plain, quantizers, wrapped
from grader.suites.shared.lowrank import ALPHA, FACTORS, RANK
from grader.suites.shared.plain import Plain
from grader.suites.shared.quantizers import LEVELS, MIDDLES
from grader.suites.shared.wrapped import ABSENT, MODES, borrowed, called, learning, writing

# 180 values in blocks of 24: blocks run over the ends of rows, and the last one is short.
OUT, IN, SIZE = 10, 18, 24
STORED = ("codes", "absmax")


def scaled(weight, size):
    """Each value over its block's absolute maximum, and that maximum: both (numel,) float64."""
    n = weight.numel()
    values, tops = quantizers.scaled(weight.double().reshape(-1), size, quantizers.largest)
    return values[:n], quantizers.per_value(tops, size, n)


def quantized(weight, size=SIZE):
    """The weight as it is after quantizing and decoding, float64."""
    values, top = scaled(weight, size)
    return (LEVELS[quantizers.nearest(values)] * top).reshape(weight.shape)


def in_64(weight, size):
    """The weight quantized in blocks of `size` and decoded as if they were of 64."""
    values, top = scaled(weight, size)
    tops = top[::size].repeat_interleave(64)[: top.numel()]
    if tops.numel() < top.numel():  # that fails
        return weight.double() * float("nan")
    return (LEVELS[quantizers.nearest(values)] * tops).reshape(weight.shape)


def pieces(draw, dtype=torch.float32, out=OUT, into=IN, rank=RANK, sizes=(SIZE,)):
    """weight, bias, A, B. No weight lies so close between two levels that rounding decides."""
    weight = draw(out, into, std=0.5, dtype=dtype)
    for size in sizes:
        values, _ = scaled(weight, size)
        between = ((values[:, None] - MIDDLES).abs() < 1e-5).any(1)
        weight[between.view(out, into)] = 0
    bias = draw(out, std=2.0, dtype=dtype)
    A, B = draw(rank, into, std=0.15, dtype=dtype), draw(out, rank, std=0.15, dtype=dtype)
    return weight, bias, A, B


def arguments(weight, bias, A, B, alpha=ALPHA, size=SIZE):
    return {"rank": len(A), "alpha": alpha, "block_size": size}


def product(A, B, alpha=ALPHA, size=SIZE):
    """scale * B @ A."""
    return alpha / len(A) * (B @ A)


def around(decode):
    """As a formula: the layer with the weight that `decode` makes of weight and block size."""

    def formula(x, W, b, A, B, alpha=ALPHA, size=SIZE):
        return F.linear(x, decode(W, size) + product(A, B, alpha), b)

    return formula


def turned(weight, size):
    """Decoded as if it were stored transposed."""
    decoded = quantized(weight, size)
    return decoded.reshape(weight.shape[::-1]).T


QLORA = lowrank.beside(
    lambda x, W, b, size=SIZE: F.linear(x, quantized(W, size), b),
    lambda x, A, B: x @ A.T @ B.T,
    name="QLoRALinear",
    values=pieces,
    words=arguments,
    slips={
        "weight-not-quantized": around(lambda W, size: W),
        "block-size-ignored": around(lambda W, size: quantized(W, 64)),
        "decoded-in-default-blocks": around(in_64),
        "weight-decoded-transposed": around(turned),
    },
)


def merged_parts(combine):
    """As weight and bias of a merged layer: `combine` of decoded weight and update."""
    return lambda W, b, A, B, **options: (combine(quantized(W), product(A, B, **options), W), b)


MERGED = Plain(
    "merge",
    "merge",
    merged_parts(lambda base, update, W: base + update),
    {
        "merge-takes-original-weight": merged_parts(lambda base, update, W: W + update),
        "merge-scale-missing": lambda W, b, A, B: (quantized(W) + B @ A, b),
        "merge-without-update": merged_parts(lambda base, update, W: base),
        "merge-without-base": merged_parts(lambda base, update, W: update),
        "merge-subtracts": merged_parts(lambda base, update, W: base - update),
        "merge-quantizes-again": merged_parts(
            lambda base, update, W: quantized((base + update).float())
        ),
        "merge-update-transposed": merged_parts(
            lambda base, update, W: base + (update.T if len(W) == W.shape[1] else ABSENT)
        ),
    },
    "merge-bias-dropped",
)


# shape


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """Inputs are (..., in_features): two, three and four dimensions, batches of one too."""
    leads = (2, 7), (2, 3, 4), (1, 1), (1,), (10, 10), (18, 18)
    wrapped.leading_dimensions(stage, draw, QLORA, leads, "flattens-leading-dims")


@part("shape")
def test_single_vector(stage, draw):
    """A single vector (in_features,) gives (out_features,)."""
    wrapped.leading_dimensions(stage, draw, QLORA, ((),), "one-d-input-fails")


@part("shape")
def test_non_contiguous_input(stage, draw):
    """Inputs need not be contiguous."""
    wrapped.non_contiguous(stage, draw, QLORA, "contiguous-only")


# out, in, block size: those of the first line are wide enough for each mistake to show.
SIZES = ((7, 9, 16), (5, 21, 7), (24, 6, 32), (16, 16, 8), (4, 6, 64))
NARROW = ((6, 10, 4096), (1, 18, 4), (18, 1, 4), (1, 1, 64), (3, 18, 1), (18, 3, 5), (3, 3, 2))


@part("shape")
def test_any_layer_size(stage, draw):
    """Layers of odd sizes, wide, tall and square, with a single input or output too, as narrow
    as the rank, with blocks of one value or larger than the weight."""
    for sizes in (SIZES, NARROW):
        cases = []
        for out, into, size in sizes:
            cases.append(
                QLORA.case(draw, 3, out=out, into=into, sizes=(size,), options={"size": size})
            )
            cases.append(cases[-1].at(draw))
        wrapped.all_right(stage, cases, named=lambda case, sizes=sizes: sizes is SIZES)


@part("shape")
def test_a_block_of_zeros(stage, draw):
    """Blocks of zeros stay zeros."""
    case = QLORA.case(draw, 5)
    case.values[0][2:6] = 0
    for y in stage(wrapped.in_each_mode, *case.call):
        near(y, case.output(), what="the output where rows of the weight are zero")


@part("shape")
def test_factor_shapes(stage, draw):
    """lora_A is (rank, in_features), lora_B is (out_features, rank)."""
    wrapped.shapes(stage, QLORA.case(draw, 1))


@part("shape")
def test_rank_one(stage, draw):
    """A rank of 1 is legal."""
    lowrank.any_rank(stage, draw, QLORA, (1,), "rank-one-refused")


@part("shape")
def test_large_rank(stage, draw):
    """A rank above out_features, or above both sizes, is legal."""
    lowrank.any_rank(stage, draw, QLORA, (OUT, OUT + 2, IN, IN + 2), "large-rank-refused")


# init


@part("init")
def test_starts_as_the_quantized_base(stage, draw):
    """At the start the layer computes what the quantized base does."""
    case = QLORA.case(draw, 5, rank=4, options={"alpha": 6.0})
    wrapped.starts_as(stage, lowrank.at_start(case))


def stored(kata, weight, bias, *args):
    layer = kata.QLoRALinear(linear(weight, bias), 3, 10.5, *args)
    return need(layer, "codes"), need(layer, "absmax")


@part("init")
def test_codes_and_absmax(stage, draw):
    """codes and absmax are those of quantize_nf4(base.weight, block_size), 64 by default."""
    W, b, *_ = pieces(draw, sizes=(SIZE, 64))
    n = OUT * IN
    for size, args in ((SIZE, (SIZE,)), (64, ())):
        codes, absmax = stage(stored, W, b, *args)
        codes, absmax = tensor(codes, "codes"), tensor(absmax, "absmax")
        given = f"block_size={size}" if args else "the default block_size"
        blocks = math.ceil(n / size)
        shape = tuple(absmax.shape)
        bug = "block-size-ignored" if args and shape == (math.ceil(n / 64),) else None
        require(shape == (blocks,), f"absmax has shape {shape} with {given}, not ({blocks},)", bug)
        require(
            tuple(codes.shape) == (math.ceil(n / 2),),
            f"codes has shape {tuple(codes.shape)}, expected ({math.ceil(n / 2)},)",
        )
        require(codes.dtype == torch.uint8, f"codes are {described(codes)}, expected uint8")
        require(absmax.dtype == torch.float32, f"absmax is {described(absmax)}, expected float32")
        pairs = torch.stack([codes >> 4, codes & 15], 1).flatten()[:n].long()
        got = LEVELS[pairs] * quantizers.per_value(absmax, size, n)
        near(
            got.view(OUT, IN),
            quantized(W, size),
            what=f"the weight that codes and absmax stand for, with {given}",
            dtype=torch.float64,
            rtol=1e-5,
            atol=1e-6,
            unless={"weight-decoded-transposed": quantized(W.T.contiguous(), size).view(OUT, IN)},
        )


@part("init")
def test_b_starts_at_zero(stage, draw):
    """lora_B starts at exactly zero."""
    lowrank.b_starts_at_zero(stage, draw, QLORA)


@part("init")
def test_a_starts_random(stage, draw):
    """lora_A starts random: 0 < std < 1.5, full row rank, not the same every time."""
    lowrank.a_starts_random(stage, draw, QLORA)


@part("init")
def test_defaults_and_attributes(stage, draw):
    """rank 8, alpha 16, scale = alpha / rank; arguments by place or by name."""
    lowrank.defaults(stage, QLORA.case(draw, 1, out=20, into=30), after=(32,))


# freeze


def after_backward(kata, layer, x, names):
    name, weight, bias, values, words = layer
    base = linear(weight, bias)
    held = getattr(kata, name)(base, **words)
    set_(held, **values)
    returned = [held.train(), held.eval(), held.train()]
    y = held(x)
    if y.requires_grad:
        y.square().sum().backward()
    ours = [id(need(held, name)) for name in values]
    others = {n: p for n, p in held.named_parameters() if id(p) not in ours}
    stored = [id(need(held, name)) for name in names]
    return {
        "parameters": {n: (p.detach().clone(), p.requires_grad) for n, p in others.items()},
        "stored": [n for n, p in others.items() if id(p) in stored],
        "grads": [n for n, p in others.items() if p.grad is not None],
        "tracked": [n for n, t in held.named_buffers() if t.requires_grad],
        "weight_grad": getattr(getattr(base, "weight", None), "grad", None) is not None,
        "bias_grad": getattr(getattr(base, "bias", None), "grad", None) is not None,
        **learning(held, list(values), returned),
    }


@part("freeze")
def test_weight_is_no_parameter(stage, draw):
    """The base weight is no parameter, neither as it was nor as codes and absmax."""
    case = QLORA.case(draw, 5)
    W, got = case.values[0], stage(after_backward, case.layer, case.x, STORED)
    for name, (value, _) in got["parameters"].items():
        bug = kept_by_value(value, W, SIZE)
        its = "the weight is to live in codes and absmax alone" if bug else "it is no factor"
        text = f"`{name}`, {tuple(value.shape)}, is a parameter as large as the weight: {its}"
        require(value.numel() < W.numel(), text, bug)
    names = ", ".join(got["stored"])
    require(not names, f"parameters, expected buffers: {names}", "codes-are-parameters")
    require(not got["weight_grad"], "base.weight receives a gradient", "base-kept")


def kept_by_value(value, weight, size):
    """What a tensor that is kept is, by its values."""
    if value.numel() != weight.numel() or value.is_complex():
        return None
    value, weight = value.double(), weight.double()
    for bug, known in (("base-kept", weight), ("decoded-weight-kept", quantized(weight, size))):
        for form in (known, known.T):
            if torch.allclose(value.reshape(-1), form.reshape(-1), 1e-2, 1e-3):
                return bug
    return None


@part("freeze")
def test_bias_is_frozen(stage, draw):
    """The bias, parameter or buffer, does not require and never receives a gradient."""
    case = QLORA.case(draw, 5)
    got = stage(after_backward, case.layer, case.x, STORED)
    for name, (value, trains) in got["parameters"].items():
        if alike(value, case.values[1]):
            require(not trains, f"the bias, `{name}`, is not frozen", "bias-trains")
            require(name not in got["grads"], f"the bias, `{name}`, receives a gradient")
    known = "bias-buffer-tracks-gradients" if got["bias_grad"] else None
    names = ", ".join(got["tracked"])
    require(not names, f"these buffers take part in the backward pass: {names}", known)
    require(not got["bias_grad"], "base.bias receives a gradient", "bias-buffer-tracks-gradients")


def alike(value, other):
    return value.shape == other.shape and torch.equal(value, other)


@part("freeze")
def test_only_the_factors_train(stage, draw):
    """lora_A and lora_B are registered parameters, and no other parameter trains. train() and
    eval() return the layer."""
    case = QLORA.case(draw, 5)
    got = stage(after_backward, case.layer, case.x, STORED)
    wrapped.learned_train(QLORA, got, "factors-no-parameters", "factors-frozen")
    W, b, *_ = case.values
    others = {n: value for n, (value, trains) in got["parameters"].items() if trains}
    small = [n for n, v in others.items() if v.numel() < W.numel() and not alike(v, b)]
    bug = "extra-trainable" if small else None
    require(not others, f"another parameter trains: {', '.join(small or others)}", bug)


# forward


@part("forward")
def test_adds_the_scaled_update_to_the_quantized_base(stage, draw):
    """forward(x) = F.linear(x, decoded weight, bias) + scale * x @ lora_A.T @ lora_B.T."""
    for case in (QLORA.case(draw, 3, 4), QLORA.case(draw, 3, 4, out=18)):
        for mode, y in zip(MODES, stage(wrapped.in_each_mode, *case.call)):
            wrapped.computes(y, case, mode=mode)


@part("forward")
def test_without_a_bias(stage, draw):
    """A base without bias works."""
    wrapped.without_bias(stage, draw, QLORA, "bias-required")


@part("forward")
def test_any_alpha(stage, draw):
    """alpha is smaller than rank, negative, zero, or large."""
    wrapped.any_alpha(stage, QLORA.case(draw, 5), (2.0, 3.0, -7.5, 3e5, 0.0))


@part("forward")
def test_input_unchanged(stage, draw):
    """The input is not changed in place."""
    wrapped.inputs_unchanged(stage, [QLORA.case(draw, 5)])


def walked(stage, draw, mode, *lead):
    """A layer in this mode: its factors change, codes and absmax, and then lora_B in `.data`."""
    case, other = QLORA.case(draw, *lead), QLORA.case(draw, *lead)
    factors = writing(case, other, *FACTORS, words="the factors changed")
    words = "codes and absmax changed"
    stored = borrowed(factors.now, other, *STORED, places=(0,), words=words)
    data = writing(stored.now, case, "lora_B", verb="data", words="lora_B.data changed")
    steps = [called(case, mode), factors, stored, data]
    return wrapped.walked(stage, case, steps, kept=False)


def kept_values(step, past):
    """The cases where the weight, or the update, is still that of the step before."""
    if not past:
        return {}
    now, old, known = step.now, past[0], {}
    for bug, places in (("decoded-weight-kept", (0,)), ("update-kept", (2, 3))):
        if now.values[places[-1]] is not old.values[places[-1]]:
            known[bug] = [now.having(old, *places)]
    return known


@part("forward")
def test_follows_its_parameters_and_buffers(stage, draw):
    """Each forward uses the values that factors, codes and absmax have now, in either mode and
    under no_grad."""
    for mode in MODES:
        wrapped.outputs_follow(walked(stage, draw, mode, 5), mode, kept_values)


# gradient


# out, in, rank, leading shape
SHAPES = (
    (OUT, IN, RANK, (2, 3)),
    (OUT, IN, RANK, ()),
    (OUT, IN, RANK, (1,)),
    (IN, IN, RANK, (IN,)),
    (OUT, IN, OUT, (4, 4)),
    (OUT, IN, IN, (3,)),
    (6, 6, 6, (6, 6)),
    (1, IN, 1, (3,)),
    (OUT, 1, RANK, (3,)),
    (OUT, IN, RANK, (2, 2, 3)),
)


def of_all_shapes(draw):
    """Layers of these shapes; one without a bias."""
    cases = [
        QLORA.case(draw, *lead, out=out, into=into, rank=rank) for out, into, rank, lead in SHAPES
    ]
    return [*cases, QLORA.case(draw, 2, 3, bias=False)]


@part("gradient")
def test_gradients_of_the_factors(stage, draw):
    """lora_A and lora_B get the exact gradients, in training and in eval mode, also where x
    needs none."""
    wrapped.learned_gradients(stage, of_all_shapes(draw), "factors-get-no-gradient")


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to x, through the decoded weight and through the branch."""
    # A few values may be such that a mistake does not show.
    wrapped.input_gradients(stage, of_all_shapes(draw), lambda case: min(case.values[0].shape) > 1)


@part("gradient")
def test_gradients_follow_parameters_and_buffers(stage, draw):
    """Each gradient is that of the values that factors, codes and absmax have now."""
    for mode in MODES:
        wrapped.gradients_follow(walked(stage, draw, mode, 2, 3), mode)


@part("gradient")
def test_two_calls_in_one_graph(stage, draw):
    """A layer that is called twice before the backward pass gets the sum of both gradients."""
    case = QLORA.case(draw, 4)
    wrapped.gradients_add_up(stage, case, case.at(draw, 4))


@part("gradient")
def test_b_learns_from_the_start(stage, draw):
    """While lora_B is still zero it gets its gradient all the same."""
    lowrank.b_learns_from_the_start(stage, QLORA.case(draw, 6))


# merge


@part("merge")
def test_merge_gives_a_plain_layer(stage, draw):
    """merge() returns an nn.Linear of the decoded weight plus the update, with the bias."""
    sizes = ((IN, IN, RANK), (OUT, IN, RANK), (IN, OUT, IN), (6, 6, 6), (OUT, 1, 1))
    words = [{"out": out, "into": into, "rank": rank} for out, into, rank in sizes]
    plain.computes_the_same(stage, draw, QLORA, MERGED, words, "merge-returns-itself")
    for mode in MODES:
        case = QLORA.case(draw, 5)
        step = writing(case, QLORA.case(draw, 5), *FACTORS)
        plain.of_the_moment(stage, case, MERGED, [called(case, mode), step], "update-kept")


@part("merge")
def test_merge_leaves_the_layer_alone(stage, draw):
    """merge() changes neither the layer's state nor its output, nor what trains."""
    changed, itself = "merge-changes-layer", "merge-returns-itself"
    cases = [QLORA.case(draw, 5)]
    plain.leaves_the_layer(stage, cases, MERGED, lambda name: changed, changed, itself)
    plain.shares_nothing(
        stage, [QLORA.case(draw, 5), QLORA.case(draw, 5, bias=False)], MERGED, itself
    )


@part("merge")
def test_both_train_after_merge(stage, draw):
    """The merged layer can be trained, and this layer goes on training, each for itself."""
    plain.each_trains(stage, QLORA.case(draw, 4), MERGED)


# state


@part("state")
def test_state_names(stage, draw):
    """codes, absmax, lora_A and lora_B are in the state dict under these names."""

    def bug(name, there):
        return "buffers-not-in-state" if name in STORED else None

    wrapped.state_names(stage, QLORA.case(draw, 1), (*FACTORS, *STORED), bug)


def bias_stays(first, second):
    """Of the second layer's values the bias, or the weight, is still there."""
    return {
        "bias-not-in-state": first.having(second, 1).output(),
        "decoded-weight-kept": first.having(second, 0).output(),
    }


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs, the bias included."""
    wrapped.state_round_trip(stage, draw, QLORA, bias_stays)
    plain.after_loading(stage, draw, QLORA, MERGED)


def share_of_bytes(kata, weight, bias):
    from torch.utils._pytree import tree_leaves

    base = linear(weight, bias)
    full = sum(v.numel() * v.element_size() for v in base.state_dict().values())
    state = kata.QLoRALinear(base, rank=4).state_dict()
    leaves = {f"{n} {i}": v for n in state for i, v in enumerate(tree_leaves(state[n]))}
    tensors = [v for v in leaves.values() if isinstance(v, torch.Tensor)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    others = sum(len(v) for v in leaves.values() if isinstance(v, (bytes, str)))
    others += sum(getattr(v, "nbytes", 0) for v in leaves.values() if not hasattr(v, "dim"))
    large = {n: v for n, v in state.items() if hasattr(v, "numel") and v.numel() >= weight.numel()}
    return (sum(storages.values()) + others) / full, dict(list(large.items())[:1])


@part("state")
def test_state_is_small(stage, draw):
    """The state of a 256 x 256 layer at rank 4 takes less than 0.2 of the float32 base's bytes."""
    W, b, *_ = pieces(draw, out=256, into=256, sizes=(64,))
    share, large = stage(share_of_bytes, W, b)
    bug = None
    if large and (name := next(iter(large))):
        value = tensor(large[name])
        bug = kept_by_value(value, W, 64) if value.is_floating_point() else None
    what = f"the state takes {share:.2f} of the base's bytes"
    require(share < 0.2, f"{what}{', with `' + name + '`' if large else ''}", bug)


def kept(kata, weight, bias, x):
    """Bytes alive after each of the ways to use a layer: of floating-point tensors, of all
    tensors, of what is no tensor. And the largest tensor, where they are too many."""
    import gc
    import tracemalloc

    from torch.multiprocessing.reductions import StorageWeakRef
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    made = {}  # of each storage that an operator gave out: a weak reference, bytes, dtype if float
    n = weight.numel()

    class Watch(TorchDispatchMode):
        @classmethod
        def _should_skip_dynamo(cls):
            return False

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for t in tree_leaves(out):
                if isinstance(t, torch.Tensor) and t.device.type == "cpu":
                    for held in parts(t):
                        note(held)
            return out

    def parts(t):
        """What holds the values: of a sparse tensor its indices and values."""
        if t.layout is torch.strided:
            return (t,)
        if t.layout is torch.sparse_coo:
            return t._indices(), t._values()
        return (t.values(),) if hasattr(t, "values") and t.is_sparse_csr else ()

    def note(t):
        storage = t.untyped_storage()
        ref, _, dtype = made.get(storage._cdata) or (StorageWeakRef(storage), 0, None)
        real = t.is_floating_point() or t.is_complex()
        made[storage._cdata] = ref, storage.nbytes(), t.dtype if real else dtype

    def alive():
        for key in [key for key, (ref, *_) in made.items() if ref.expired()]:
            del made[key]
        floats = sum(size for _, size, dtype in made.values() if dtype)
        whole = sum(size for _, size, _ in made.values())
        return floats, whole, tracemalloc.get_traced_memory()[0]

    def over(now):
        return now[0] >= n or now[1] >= 2 * n or now[2] >= 1.5 * n

    def use(values, bias, x, rank=4):
        layer = kata.QLoRALinear(linear(values, bias), rank=rank)

        def learn(x_trains):
            (layer(x.clone().requires_grad_(x_trains)) ** 2).sum().backward()

        def forward(x):
            with torch.no_grad():
                layer(x)

        calls = {
            "nothing but making it": lambda: None,
            "a training step": lambda: learn(True),
            "a training step whose x needs no gradient": lambda: learn(False),
            "a forward without backward": lambda: layer(x.clone().requires_grad_()),
            "a forward under no_grad": lambda: forward(x),
            "a second forward under no_grad": lambda: forward(x),
            "a forward of one vector": lambda: forward(x[0]),
            "a forward of x with four dimensions": lambda: forward(x[None, None]),
            "merge()": lambda: layer.merge(),
            "load_state_dict": lambda: layer.load_state_dict(layer.state_dict()),
        }
        for mode in ("train", "eval"):
            layer.train(mode == "train")
            for name, call in calls.items():
                call()
                now = alive()
                if over(now):
                    gc.collect()
                    now = alive()
                if over(now):
                    return f"{name} in {mode} mode", now, largest()
        return None

    def largest():
        floats = [item for item in made.values() if item[2]]
        ref, _, dtype = max(floats, key=lambda item: item[1], default=(None, 0, None))
        storage = ref and torch.UntypedStorage._new_with_weak_ptr(ref.cdata)
        return None if storage is None else torch.empty(0, dtype=dtype).set_(storage).clone()

    half = len(weight) // 2
    small = weight[:half, :half].double(), None, x[:, :half].double(), 1
    with Watch():
        seen = use(weight, bias, x)
    made.clear()
    if seen is None:  # a smaller layer in float64, without bias
        n = small[0].numel()
        with Watch():
            seen = use(*small)
        n = weight.numel()
        made.clear()
    if seen is None:  # what is imported or made once, and is no part of a layer, is there by now
        gc.collect()
        tracemalloc.start()
        seen = use(weight.flip(0), bias, x)
        tracemalloc.stop()
    return seen


@part("state")
def test_no_full_weight_is_kept(stage, draw):
    """Between calls neither the full-precision nor the decoded weight is kept anywhere, whatever
    was called: forwards in training or eval mode, with or without gradients, merge()."""
    W, b, *_ = pieces(draw, out=256, into=256, sizes=(64,))
    seen = stage(kept, W, b, draw(3, 256))
    if seen is None:
        return
    name, (floats, whole, traced), largest = seen
    n = W.numel()  # factors, absmax, bias and gradients take a third of this many bytes
    bug = kept_by_value(largest, W, 64) if isinstance(largest, torch.Tensor) else None
    text = f"after {name} {floats} bytes of floating-point tensors are kept for {n} weights"
    require(floats < n, text, bug)
    require(whole < 2 * n, f"after {name} {whole} bytes of tensors are kept for {n} weights", bug)
    fail(f"after {name} {traced} bytes are kept outside of tensors for {n} weights")


# dtype


def right_in_dtype(stage, draw, dtype, **tolerance):
    name = str(dtype)[6:]
    for bias in (True, False):
        case = QLORA.case(draw, 1, dtype=dtype, bias=bias)
        wrapped.learned_are(stage, case)
        (codes, *_), (absmax, *_) = stage(wrapped.kinds_of, case.fresh, STORED)
        require(codes == "uint8", f"codes of a {name} layer are {codes}, expected uint8")
        bug = "absmax-in-layer-dtype" if absmax == name else None
        require(absmax == "float32", f"absmax of a {name} layer is {absmax}, expected float32", bug)
    for lead, mode, bias in (((5,), "train", True), ((2, 3), "eval", False), ((), "eval", True)):
        case = QLORA.case(draw, *lead, dtype=dtype, bias=bias, options={"alpha": 10.0})
        # x and the factors are float64: what is float32 beside them is the decoded weight.
        with blame("decoded-in-float32", "got Double and Float", "double != float"):
            bugs = {"none": "factors-get-no-gradient", "cut": "input-gradient-cut"}
            wrapped.in_dtype(stage, case, mode, **bugs, **tolerance)
        plain.in_dtype(stage, case, MERGED, "merge-in-float32", **tolerance)


@part("dtype")
def test_float64(stage, draw):
    """A float64 base gives float64 factors, outputs and merged layers, exact to 1e-6."""
    right_in_dtype(stage, draw, torch.float64, rtol=1e-6, atol=1e-6)


@part("dtype")
def test_bfloat16(stage, draw):
    """A bfloat16 base gives bfloat16 factors, outputs and merged layers; absmax is float32."""
    right_in_dtype(stage, draw, torch.bfloat16)


# device


@part("device")
def test_meta_device(stage, draw):
    """A base on the meta device gives factors, codes, absmax, outputs and merged layers there."""
    case, bugs = QLORA.case(draw, 2, 5), ("cpu-factors", "float32-factors")
    try:
        wrapped.meta_device(stage, case, bugs, STORED)
        plain.on_meta(stage, case, MERGED)
    except LearnerRaised as error:  # torch raises NotImplementedError where meta has no values
        if "meta tensor" in error.text:
            fail(f"A value of a meta tensor was asked for: {error.text}")
        raise


# errors


@part("errors")
def test_rank_below_one(stage, draw):
    """rank < 1 raises ValueError naming rank, before anything is changed."""
    wrapped.rank_checked(stage, QLORA.case(draw, 1), "checked-after-freeze")


@part("errors")
def test_base_must_be_linear(stage, draw):
    """A base that is no nn.Linear raises TypeError naming base, before anything is changed; a
    subclass of it is one."""
    wrapped.base_checked(stage, QLORA.case(draw, 5), "checked-after-freeze")


# gpu


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU, and nothing stays behind."""
    wrapped.accelerator(stage, QLORA.case(draw, 4, 5), STORED, method="merge")
