"""What is checked of `prefix_tuning`. Contract: Li and Liang 2021, section 4.2; He et al. 2022,
section 2.2."""

from dataclasses import replace
from functools import partial

import torch

from grader.exam.checks import blame, near, part, rejects, require, same, tensor
from grader.exam.kit import need, set_
from grader.suites.shared import properties
from grader.suites.shared.properties import MODES, Layer

H, P, D = 3, 5, 12  # heads, length of the prefix, d_model; four features for each head
PREFIXES = {"prefix_k": 0, "prefix_v": 1}  # and their places among the values


# What is right, and what known mistakes make of it. The values are prefix_k, prefix_v, and weight
# and bias of q_proj, k_proj, v_proj and o_proj.


def chunks(t, heads):
    """(B, L, d_model) to (B, heads, L, d_head), neighbours in one head."""
    return torch.stack(t.chunk(heads, -1), 1)


def side_by_side(mixed):
    return torch.cat(mixed.unbind(1), -1)


def weights(scores, before, size, scale=None, hidden=None):
    """A softmax over the keys, the first `before` of which are the prefix."""
    scores = scores * (size**-0.5 if scale is None else scale)
    if hidden is not None:
        query, key = torch.meshgrid(*map(torch.arange, scores.shape[-2:]), indexing="ij")
        scores = scores.masked_fill(hidden(query, key, before), -torch.inf)
    powers = torch.exp(scores - scores.amax(-1, keepdim=True))
    return powers / powers.sum(-1, keepdim=True)


def later(query, key, before):
    return key > query + before


def as_they_are(pk, pv, *_):
    return pk, pv


def as_it_is(x):
    return x


def attend(
    x,
    *values,
    heads=H,
    weigh=weights,
    split=chunks,
    merge=side_by_side,
    own=as_they_are,
    seen=as_it_is,
):
    """own: what becomes of the prefixes; seen: what keys and values are made of."""
    wq, bq, wk, bk, wv, bv, wo, bo = values[2:]
    q, k, v = x @ wq.T + bq, seen(x) @ wk.T + bk, seen(x) @ wv.T + bv
    q, k, v = (split(t, heads) for t in (q, k, v))
    pk, pv = (p.expand(len(x), *p.shape) for p in own(*values))
    scores = q @ torch.cat([pk, k], 2).transpose(2, 3)
    mixed = merge(weigh(scores, pk.shape[2], pk.shape[3]) @ torch.cat([pv, v], 2))
    return mixed @ wo.T + bo


causally = partial(attend, weigh=partial(weights, hidden=later))


def scaled(factor):
    return partial(attend, weigh=partial(weights, scale=factor))


def apart(scores, before, size):
    return torch.cat([weights(s, 0, size) for s in scores.tensor_split([before], -1)], -1)


def interleaved(t, heads):
    return t.unflatten(-1, (-1, heads)).permute(0, 3, 1, 2)


def projected(pk, pv, wq, bq, wk, bk, wv, bv, *_):
    """The prefixes, sent through k_proj and v_proj."""
    return [
        chunks(side_by_side(p[None]) @ w.T + b, len(p))[0]
        for p, w, b in ((pk, wk, bk), (pv, wv, bv))
    ]


def without(pk, pv, *_):
    return pk[:, :0], pv[:, :0]


def unmixed(mixed):
    return mixed.reshape(len(mixed), mixed.shape[2], -1)


def last_missing(x, *values):
    return attend(x, *values[:8], torch.eye(D, dtype=x.dtype), torch.zeros(D, dtype=x.dtype))


SLIPS = {
    "scale-missing": scaled(1.0),
    "scale-of-d-model": scaled(D**-0.5),
    "softmaxes-apart": partial(attend, weigh=apart),
    "heads-interleaved": partial(
        attend, split=interleaved, merge=lambda mixed: mixed.permute(0, 2, 3, 1).flatten(2)
    ),
    "heads-not-merged": partial(attend, merge=unmixed),
    "prefix-through-projections": partial(attend, own=projected),
    "prefix-missing": partial(attend, own=without),
    "output-projection-missing": last_missing,
}


def hiding(hidden):
    return partial(attend, weigh=partial(weights, hidden=hidden))


def hidden_afterwards(scores, before, size):
    shares = weights(scores, before, size)
    return shares * (weights(scores, before, size, hidden=later) > 0)


CAUSAL_SLIPS = {
    "causal-ignored": attend,
    "causal-top-left": hiding(lambda query, key, before: key > query),
    "causal-hides-the-prefix": hiding(
        lambda query, key, before: (key < before) | (key > query + before)
    ),
    "causal-without-itself": hiding(lambda query, key, before: key >= query + before),
    "hidden-after-softmax": partial(attend, weigh=hidden_afterwards),
}


def drawn(draw, heads=H, length=P, width=D, dtype=torch.float32):
    """Values on which every mistake shows: scores of all sizes, biases that matter."""
    prefixes = [draw(heads, length, width // heads, std=1.5, dtype=dtype) for _ in PREFIXES]
    std = 1.3 * width**-0.5
    linears = [draw(*s, std=std, dtype=dtype) for _ in "qkvo" for s in ((width, width), (width,))]
    return *prefixes, *linears


def layers(draw, **options):
    """The layer without and with the causal mask, of the same values."""
    values = drawn(draw, **options)
    plain = Layer(make, fill, attend, SLIPS, values, D, (H,))
    words = {"what": "the output with causal=True", "call": with_mask}
    return plain, replace(plain, right=causally, slips=CAUSAL_SLIPS, **words)


# What probes do


def make(kata, heads, *values):
    module = kata.PrefixAttention(values[2].shape[0], heads, values[0].shape[1])
    return fill(module.to(values[0].dtype), *values)


def fill(module, *values):
    if values[0].shape[1]:
        set_(module, prefix_k=values[0], prefix_v=values[1])
    for name, weight, bias in zip("qkvo", values[2::2], values[3::2]):
        set_(need(module, f"{name}_proj"), weight=weight, bias=bias)
    return module


def fill_data(module, *values):
    """Put values in by .data, which autograd does not count as a change."""
    module.prefix_k.data.copy_(values[0])
    module.prefix_v.data.copy_(values[1])
    for name, weight, bias in zip("qkvo", values[2::2], values[3::2]):
        projection = getattr(module, f"{name}_proj")
        projection.weight.data.copy_(weight)
        projection.bias.data.copy_(bias)
    return module


def with_mask(layer, x):
    return layer(x, True)


# shape


def layout(kata):
    """The shapes of the parameters, and what has another name."""
    module = kata.PrefixAttention(d_model=12, num_heads=3, prefix_len=5)
    names = ("prefix_k", "prefix_v", "q_proj", "k_proj", "v_proj", "o_proj")
    missing = [name for name in names if not hasattr(module, name)]
    shapes = {name: tuple(getattr(module, name).shape) for name in names[:2] if not missing}
    linears = {name: getattr(module, name) for name in names[2:] if not missing}
    return {
        "missing": missing,
        "shapes": shapes,
        "linear": {n: isinstance(m, torch.nn.Linear) for n, m in linears.items()},
        "bias": {n: getattr(m, "bias", None) is not None for n, m in linears.items()},
        "sizes": {n: tuple(m.weight.shape) for n, m in linears.items()},
    }


@part("shape")
def test_parameter_shapes(stage):
    """prefix_k and prefix_v are (num_heads, prefix_len, d_head); the projections are
    nn.Linear(d_model, d_model) with bias."""
    with blame("argument-renamed", "PrefixAttention.__init__() got an unexpected keyword"):
        got = stage(layout)
    missing = ", ".join(got["missing"])
    require(not missing, f"PrefixAttention has no {missing}", "attribute-missing")
    known = {(P, H, 4): "prefix-transposed", (P, D): "prefix-not-by-head"}
    for name, shape in got["shapes"].items():
        text = f"{name} has shape {tuple(shape)}, expected {(H, P, 4)}"
        require(tuple(shape) == (H, P, 4), text, known.get(tuple(shape)))
    for name, linear in got["linear"].items():
        require(linear, f"{name} is no nn.Linear")
        require(got["bias"][name], f"{name} has no bias", "projection-without-bias")
        shape = tuple(got["sizes"][name])
        require(shape == (D, D), f"{name}.weight has shape {shape}, expected {(D, D)}")


# Batch, length, heads, prefix, d_model: one, or some of them the same.
SIZES = [(2, 7, 3, 5, 12), (1, 1, 3, 5, 12), (3, 1, 1, 1, 4), (1, 6, 1, 5, 6), (4, 4, 4, 4, 16)]
SIZES += [(2, 3, 6, 2, 6), (1, 3, 1, 2, 1), (3, 5, 2, 5, 10), (5, 2, 2, 3, 4), (2, 40, 2, 3, 4)]
SIZES += [(3, 3, 3, 3, 9), (2, 6, 6, 6, 36), (2, 2, 2, 1, 4), (4, 3, 2, 70, 4), (1, 130, 2, 3, 4)]
SIZES += [(2, 3, 12, 2, 24)]


def run_all(kata, cases):
    outputs = []
    for heads, values, x in cases:
        module = make(kata, heads, *values)
        outputs.append((module(x), module(x=x, causal=True)))
    return outputs


@part("shape")
def test_output_shapes(stage, draw):
    """(B, L, d_model) stays (B, L, d_model); one row, token, head, feature or prefix vector is
    legal."""
    plain, _ = layers(draw)
    x = draw(2, 7, D)
    y = tensor(stage(properties.output_of, plain.arguments, x, **plain.helpers))
    bug = "prefix-in-queries" if tuple(y.shape) == (2, 7 + P, D) else None
    require(y.shape == x.shape, f"the output has shape {tuple(y.shape)}, expected (2, 7, 12)", bug)
    near(y, plain.output(x), unless=plain.mistakes(x))
    text = "PrefixAttention.forward() got an unexpected keyword"
    _computes_all(stage, draw, SIZES, "argument-renamed", text)


def _computes_all(stage, draw, sizes, bug=None, *texts):
    cases = [
        (heads, drawn(draw, heads, length, width), draw(rows, tokens, width))
        for rows, tokens, heads, length, width in sizes
    ]
    _computes_cases(stage, cases, bug, *texts)


def _computes_cases(stage, cases, bug=None, *texts, note=""):
    with blame(bug, *texts):
        outputs = stage(run_all, cases)
    for got, (heads, values, x) in zip(outputs, cases):
        words = f"x {tuple(x.shape)}, {heads} heads and {values[0].shape[1]} prefix vectors{note}"
        wide = [v.double() for v in (x, *values)]
        for y, right, how in zip(got, (attend, causally), ("", ", causal=True")):
            near(y, right(*wide, heads=heads), what=f"the output for {words}{how}")


def views(x):
    """Views of x (12, 7, 12) that are not contiguous."""
    return x.transpose(0, 2), x[1:4].transpose(0, 1), x[:3, ::2], x[:1].expand(4, -1, -1)


def of_views(kata, arguments, x, leaves, make, call):
    """The outputs, and whether the views are what they were."""
    layer, seen = make(kata, *arguments), []
    for view in views(x):
        view = view.detach().requires_grad_(leaves)
        before = view.shape, view.stride()
        y = call(layer, view)
        seen.append((y, (view.shape, view.stride()) == before))
    return seen


@part("shape")
def test_non_contiguous_input(stage, draw):
    """x need not be contiguous; its shape and strides stay as they are."""
    for layer in layers(draw):
        x = draw(D, 7, D)
        for leaves in (False, True):
            seen = stage(of_views, layer.arguments, x, leaves, **layer.helpers)
            for view, (y, kept) in zip(views(x), seen):
                words = f"an x of strides {view.stride()}"
                what = f"{layer.what} for {words}"
                near(y, layer.output(view), what=what, unless=layer.mistakes(view))
                require(kept, f"a forward changes shape or strides of {words}")


@part("shape")
def test_without_a_prefix(stage, draw):
    """With prefix_len=0 it is plain attention, causal or not."""
    sizes = [(rows, tokens, heads, 0, width) for rows, tokens, heads, _, width in SIZES[:6]]
    with blame("no-prefix-refused", "prefix_len"):
        _computes_all(stage, draw, sizes)


# init


def fresh(kata, width, heads, length):
    one, other = (kata.PrefixAttention(width, heads, length) for _ in range(2))
    pair = need(one, "prefix_k"), need(one, "prefix_v")
    shared = pair[0].data_ptr() == pair[1].data_ptr()
    return pair, (other.prefix_k, other.prefix_v), shared


@part("init")
def test_prefixes_start_random(stage):
    """prefix_k and prefix_v start random, non-zero, with a standard deviation below 1.5."""
    for width, heads, length in ((60, 2, 20), (120, 4, 1), (12, 12, 60), (144, 12, 12)):
        pair, others, shared = stage(fresh, width, heads, length)
        require(not shared, "prefix_k and prefix_v are one tensor")
        bugs = {"large": "prefix-too-large"}
        bugs |= {"zero": "prefix-zero"} if length == 20 else {}
        for name, value, other in zip(PREFIXES, pair, others):
            properties.random_start(value, other, name, bugs)


# freeze


def training(kata, heads, values, x):
    module = make(kata, heads, *values)
    own = [module.prefix_k, module.prefix_v]
    still = {n: p for n, p in module.named_parameters() if all(p is not q for q in own)}
    thawed = [n for n, p in still.items() if p.requires_grad]
    for mode in ("eval", "train"):
        getattr(module, mode)()
        for causal in (False, True):
            y = module(x.clone().requires_grad_(), causal)
            if y.requires_grad:
                y.sum().backward()
        module.load_state_dict(module.state_dict())
    return {
        "registered": [any(p is q for p in module.parameters()) for q in own],
        "trains": [q.requires_grad for q in own],
        "thawed": thawed or [n for n, p in still.items() if p.requires_grad],
        "learns": [n for n, p in still.items() if p.grad is not None],
    }


@part("freeze")
def test_only_the_prefix_trains(stage, draw):
    """prefix_k and prefix_v are parameters that train; the projections, their biases too, are
    frozen and receive no gradient."""
    got = stage(training, H, drawn(draw), draw(2, 4, D))
    for name, there, trains in zip(PREFIXES, got["registered"], got["trains"]):
        text = f"{name} is not among parameters(): no optimizer will see it"
        require(there, text, "prefix-no-parameter")
        require(trains, f"{name} does not train (requires_grad is False)", "prefix-frozen")
    names = {f"{p}_proj.{part}" for p in "qkvo" for part in ("weight", "bias")}
    thawed = set(got["thawed"])
    bug = "projections-train" if names <= thawed else None
    bug = bug or (None if thawed & names else "extra-trainable")
    require(not thawed, f"what else trains: {', '.join(sorted(thawed))}", bug)
    text = f"what is frozen receives a gradient: {', '.join(got['learns'])}"
    require(not got["learns"], text)


def no_prefix(kata, heads, values, x, g):
    module, x = make(kata, heads, *values), x.clone().requires_grad_()
    for causal in (False, True):
        y = module(x, causal)
        if y.requires_grad and y.shape == g.shape:
            (y * g).sum().backward()
    sizes = [p.numel() for p in module.parameters() if p.requires_grad]
    return sum(sizes), x.grad, [n for n, p in module.named_parameters() if p.grad is not None]


@part("freeze")
def test_nothing_trains_without_a_prefix(stage, draw):
    """With prefix_len=0 no value trains; gradients flow to the input."""
    values, x, g = drawn(draw, length=0), draw(2, 4, D), draw(2, 4, D)
    with blame("no-prefix-refused", "prefix_len"):
        count, got, _ = stage(no_prefix, H, values, x, g)
    require(count == 0, f"{count} values train with prefix_len=0")
    require(got is not None, "no gradient reaches the input with prefix_len=0")
    plain, causal = layers(draw)
    want = [replace(layer, values=values).gradients(x, g)[0] for layer in (plain, causal)]
    near(got, sum(want), what="the gradient to the input with prefix_len=0")


# forward


@part("forward")
def test_attends_to_the_prefix_and_the_content(stage, draw):
    """Every query attends to the prefix and to all of the content, scores scaled by
    1 / sqrt(d_head), head by head."""
    plain, _ = layers(draw)
    for lead in ((3, 6), (2, 9)):
        properties.computes(stage, plain, draw(*lead, D))


@part("forward")
def test_causal(stage, draw):
    """With causal=True every query sees the whole prefix, and the content up to and with
    itself."""
    _, causal = layers(draw)
    for lead in ((3, 6), (2, 9)):
        properties.computes(stage, causal, draw(*lead, D))


@part("forward")
def test_zeros(stage, draw):
    """A vector of zeros, in the prefix or in x, counts like any other."""
    (pk, pv, *linears), x = drawn(draw), draw(3, 6, D)
    half = torch.ones(P, 1)
    half[1:3] = 0
    prefixes = [(0 * pk, 0 * pv), (half * pk, half * pv), (half * pk, pv), (pk, half * pv)]
    cases = [(H, (*both, *linears), x) for both in prefixes]
    rows = torch.ones(3, 6, 1)
    rows[0, 2:4] = rows[1, 0] = rows[2] = 0
    cases.append((H, (pk, pv, *linears), rows * x))
    _computes_cases(stage, cases, note=", with vectors of zeros")


def large(draw, length, shift):
    """Whole numbers, so that the scores, in the hundreds, are exact in any order of computing.
    shift: whether most of them are above or below zero."""
    pk, pv = (draw.integers(-20, 21, 2, length, 4) for _ in PREFIXES)
    linears = [draw.integers(-2, 3, *s) for _ in "qkvo" for s in ((8, 8), (8,))]
    linears[1] += 12
    linears[3] += 12 * shift
    values = tuple(v.float() for v in (pk + 12 * shift, pv, *linears))
    return values, draw.integers(-4, 5, 3, 6, 8).float()


def spread(draw, length, dtype):
    """Scores from -800, for the first token, to 800 for the last, those of the prefix below -600:
    all far apart, and exact in bfloat16 too."""
    content, none = torch.tensor([-4.0, -2, -1, 1, 2, 4]), torch.zeros(8, 8)
    wk = none.clone()
    wk[:, 0] = 10
    pk = torch.tensor([-32.0, -38, -35])[:length, None].expand(2, -1, 4)
    pv = draw.integers(-4, 5, 2, length, 4).float()
    wv, wo = (draw.integers(-2, 3, 8, 8).float() for _ in "vo")
    wide = pk, pv, none, none[0] + 10, wk, none[0], wv, none[0], wo, none[0]
    x = draw.integers(-4, 5, 3, 6, 8).float()
    x[..., 0] = content
    return tuple(v.to(dtype) for v in wide), x.to(dtype)


def of_large(kata, heads, values, x, g):
    seen = []
    for causal in (False, True):
        module, leaf = make(kata, heads, *values), x.clone().requires_grad_()
        y = module(leaf, causal)
        if y.requires_grad and y.shape == g.shape:
            (y * g).sum().backward()
        names = ("prefix_k", "prefix_v") if values[0].shape[1] else ()
        seen.append((y.detach(), leaf.grad, *(getattr(module, name).grad for name in names)))
    return seen


@part("forward")
def test_large_scores(stage, draw):
    """Scores in the hundreds give no NaN, neither in the output nor in the gradients."""
    cases = [large(draw, *sizes) for sizes in ((3, 1), (3, -1), (0, 1), (0, -1))]
    cases += [spread(draw, length, torch.float32) for length in (3, 0)]
    cases += [spread(draw, 0, torch.float64), spread(draw, 3, torch.bfloat16)]
    for values, x in cases:
        g = draw(3, 6, 8, dtype=x.dtype)
        off = 4e-2 if x.dtype == torch.bfloat16 else 5e-3  # scaling may round
        seen = stage(of_large, 2, values, x, g)
        for got, right, how in zip(seen, (attend, causally), ("", ", causal=True")):
            layer = Layer(make, fill, partial(right, heads=2), {}, values, 8)
            names = ("the output", *(f"the gradient of {n}" for n in ("x", *PREFIXES)))
            wants = layer.output(x), *layer.gradients(x, g)
            for name, value, want in zip(names, got, wants):
                text = f"{name} is missing at scores in the hundreds{how}"
                require(value is not None, text)
                finite = bool(torch.isfinite(tensor(value)).all())
                if finite and x.dtype == torch.bfloat16 and name != "the output":
                    continue  # differences of large numbers
                what = f"{name} at scores in the hundreds{how} ({str(x.dtype)[6:]})"
                bug = None if finite else "softmax-overflows"
                near(value, want, what=what, dtype=x.dtype, rtol=off, atol=off, bug=bug)


def keeps(kata, heads, values, x):
    module = make(kata, heads, *values)
    for training in (True, False):
        module.train(training)
        module(x), module(x, True)
        with torch.no_grad():
            module(x), module(x, True)
    return module.prefix_k, module.prefix_v, module.q_proj.weight


@part("forward")
def test_input_unchanged(stage, draw):
    """Neither x nor a parameter is changed by a forward."""
    values, x = drawn(draw), draw(2, 4, D)
    for name, got, want in zip((*PREFIXES, "q_proj.weight"), stage(keeps, H, values, x), values):
        same(got, want, f"{name} after a forward")  # the stage itself looks at x


@part("forward")
def test_modes_return_the_module(stage, draw):
    """train() and eval() return the module itself."""
    properties.modes_return_the_layer(stage, (H, *drawn(draw)), make)


@part("forward")
def test_follows_its_values(stage, draw):
    """Each forward uses the prefix and the projections of the moment, in either mode, with and
    without gradients."""
    for plain, other in zip(layers(draw), layers(draw)):
        right = plain.right
        old = [v.double() for v in plain.values[:2]]
        slips = {"prefix-cached": partial(right, own=lambda *_, old=old: old)}
        for put in (fill, fill_data):
            layer, off = replace(plain, fill=put), {"off-in-eval": partial(right, own=without)}
            properties.follows_its_values(stage, draw, layer, other, slips=slips, in_eval=off)
        properties.independent(stage, draw, plain, other, lead=(2, 3))


def in_turn(kata, heads, both, told):
    """One module, called with one input after another, its values others before each call."""
    module, outputs = make(kata, heads, *both[0]), []
    own = module.prefix_k, module.prefix_v
    for turn, (x, causal, mode, how) in enumerate(told):
        fill(getattr(module, mode)(), *both[turn % 2])
        for prefix in own:
            prefix.requires_grad_(how != "a frozen prefix")
        flags, graph = [p.requires_grad for p in own], how in HOWS[:2]
        with torch.inference_mode() if how == HOWS[-1] else torch.set_grad_enabled(graph):
            y = module(x, causal)
            kept = torch.is_grad_enabled() == graph and [p.requires_grad for p in own] == flags
        outputs.append((y, kept))
    return outputs


# What is kept under inference_mode is of no use to a graph: that comes last.
HOWS = ("gradients", "a frozen prefix", "no_grad", "inference_mode")


@part("forward")
def test_calls_are_independent(stage, draw):
    """What a call gives does not depend on the calls before it."""
    both = drawn(draw), drawn(draw)
    wide = [[v.double() for v in values] for values in both]
    sizes = ((3, 6), (2, 9), (3, 1), (3, 1), (1, 4))
    calls = list(zip((draw(*size, D) for size in sizes), (True, False, True, True, False)))
    calls += [(x, not causal) for x, causal in calls[::-1]] + calls[:1]
    told = [(*call, mode, how) for how in HOWS for mode in MODES for call in calls]
    seen = stage(in_turn, H, both, told)
    for turn, ((y, kept), (x, causal, mode, how)) in enumerate(zip(seen, told)):
        require(kept, f"a forward leaves grad mode or requires_grad changed ({mode} mode, {how})")
        want = (causally if causal else attend)(x.double(), *wide[turn % 2])
        what = f"the output of a later call (causal={causal}, {mode} mode, {how})"
        near(y, want, what=what)


# gradient


@part("gradient")
def test_gradients_of_the_prefix(stage, draw):
    """prefix_k and prefix_v get their gradients, causal or not, in training and in eval mode."""
    known = [("prefix_k",), ("prefix_v",), ("prefix_k", "prefix_v")]
    lost = dict.fromkeys(known, "prefix-gets-no-gradient")
    for layer in layers(draw):
        for quiet in (False, True):
            properties.gradients_of(stage, draw, layer, PREFIXES, after_no_grad=quiet, lost=lost)
        properties.gradients_of(stage, draw, layer, PREFIXES, to_input=True)


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to the input through queries, keys and values."""
    cut = "input-gradient-cut"
    for layer in layers(draw):
        cuts = {"content-detached": partial(layer.right, seen=torch.Tensor.detach)}
        properties.gradient_to_the_input(stage, draw, layer, cuts, none=cut)


def of_passes(kata, arguments, x, g, make, call):
    layer, seen = make(kata, *arguments), []
    for mode in (*MODES, "train"):
        y = call(getattr(layer, mode)(), x)
        if y.requires_grad:
            (y * g).sum().backward()
        seen.append([None if p.grad is None else p.grad.clone() for p in _own(layer)])
    return seen


def _own(layer):
    return layer.prefix_k, layer.prefix_v


@part("gradient")
def test_gradients_add_up(stage, draw):
    """The gradients of the prefix add up over passes."""
    for layer in layers(draw):
        x, g = layer.pair(draw, 2, 3)
        want = layer.gradients(x, g)[1:3]
        for passes, grads in enumerate(stage(of_passes, layer.arguments, x, g, **layer.helpers), 1):
            for name, got, once in zip(PREFIXES, grads, want):
                what = f"the gradient of {name} after {passes} passes"
                require(got is not None, f"there is no {what[4:]}")
                near(got, passes * once, what=what)


def of_frozen(kata, arguments, x, g, make, call):
    module, seen = make(kata, *arguments), []
    for off in ((module.prefix_k, module.prefix_v), (module.prefix_k,)):
        module.prefix_v.requires_grad_()
        for prefix in off:
            prefix.requires_grad_(False)
        leaf = x.clone().requires_grad_()
        y = call(module, leaf)
        if y.requires_grad and y.shape == g.shape:
            (y * g).sum().backward()
        seen.append((leaf.grad, module.prefix_k.grad, module.prefix_v.grad))
    return seen


@part("gradient")
def test_gradients_where_a_prefix_is_frozen(stage, draw):
    """The gradient flows to the input where the prefix needs none, and to prefix_v where prefix_k
    needs none."""
    for layer in layers(draw):
        x, g = layer.pair(draw, 2, 3)
        want = layer.gradients(x, g)
        seen = stage(of_frozen, layer.arguments, x, g, **layer.helpers)
        for got, own, _ in seen:
            require(got is not None, "no gradient reaches the input where the prefix is frozen")
            near(got, want[0], what="the gradient to the input where the prefix is frozen")
            require(own is None, "prefix_k gets a gradient though its requires_grad is off")
        other = seen[-1][2]
        require(other is not None, "prefix_v gets no gradient where prefix_k is frozen")
        near(other, want[2], what="the gradient of prefix_v where prefix_k is frozen")


# state


@part("state")
def test_state_names(stage, draw):
    """prefix_k and prefix_v are in the state dict under their names."""
    plain, _ = layers(draw)  # the projections may be properties, registered under another name
    properties.state_names(stage, plain, PREFIXES)


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs."""
    for layer, other in zip(layers(draw), layers(draw)):
        properties.state_round_trip(stage, draw, layer, other, lead=(2, 5))


# dtype and device


def make_called(kata, heads, *values):
    """Called before it is moved: nothing of then may be kept."""
    module = kata.PrefixAttention(D, heads, values[0].shape[1])
    for causal in (False, True):
        module(torch.ones(2, 5, D), causal)
    return fill(module.to(values[0].dtype), *values)


def exact(draw):
    """Two layers where the shares of attention are 0 and 1 in float32 too: one token without a
    prefix, and a prefix of one whose score is 880, those of the content 0."""
    dtype = torch.float64
    alone, values = drawn(draw, length=0, dtype=dtype), [*drawn(draw, length=1, dtype=dtype)]
    values[0], values[2], values[4] = (0 * v for v in values[:5:2])
    values[0], values[3], values[5] = values[0] + 22, 0 * values[3] + 20, 0 * values[5]
    plain, causal = layers(draw)
    return [
        (replace(layer, values=tuple(given), slips={}), tokens)
        for layer in (plain, causal)
        for given, tokens in ((alone, 1), (values, 4))
    ]


@part("dtype")
def test_dtypes(stage, draw):
    """After .to() outputs and parameters are float64 or bfloat16, like x."""
    for layer, tokens in exact(draw):
        properties.in_dtype(stage, draw, layer, lead=(2, tokens))
    for layer in layers(draw, dtype=torch.float64):
        layer = replace(layer, make=make_called)
        off = {"rtol": 1e-5, "atol": 1e-5}  # a softmax in float32 is fine
        properties.in_dtype(stage, draw, layer, lead=(2, 5), **off)
    for layer in layers(draw, dtype=torch.bfloat16):
        layer = replace(layer, make=make_called)
        properties.in_dtype(stage, draw, layer, lead=(2, 5), rtol=6e-2, atol=6e-2)


def of_dtype(kata, heads, values, x):
    module, x = make(kata, heads, *values), x.clone().requires_grad_()
    for causal in (False, True):
        y = module(x, causal)
        if y.requires_grad:
            y.sum().backward()
    return x.grad, module.prefix_k.grad, module.prefix_v.grad


@part("dtype")
def test_gradients_in_other_dtypes(stage, draw):
    """Gradients arrive in float64 and bfloat16 too."""
    for dtype in (torch.float64, torch.bfloat16):
        values, x = drawn(draw, dtype=dtype), draw(2, 4, D, dtype=dtype)
        for name, got in zip(("x", *PREFIXES), stage(of_dtype, H, values, x)):
            text = f"no gradient reaches {name} in {str(dtype)[6:]}"
            require(got is not None and bool(got.any()), text)


@part("device")
def test_meta_device(stage, draw):
    """After .to("meta") parameters and outputs are there, also where it was called before."""
    for layer, bug in zip(layers(draw), (None, "mask-on-cpu")):
        with blame(bug, "same device"):
            properties.meta_device(stage, layer, moved=True)
        properties.meta_device(stage, replace(layer, make=make_called), moved=True)


# errors


def of_heads(kata, width, heads):
    kata.PrefixAttention(width, heads, 5)


@part("errors")
def test_heads_that_do_not_divide(stage):
    """A d_model that is no multiple of num_heads raises ValueError naming either."""
    for width, heads in ((12, 5), (6, 4), (4, 8), (7, 2), (9, 6)):
        outcome = stage.attempt(of_heads, width, heads)
        what = f"d_model={width} with num_heads={heads}"
        names = ("d_model", "num_heads")
        rejects(outcome, "ValueError", names, what=what, bug="heads-unchecked")


# gpu


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU."""
    for layer in layers(draw):
        properties.accelerator(stage, draw, layer, PREFIXES)
