"""What is checked of `lora_linear`. Contract: LoRA (Hu et al. 2021), section 4.1."""

from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from grader.exam.checks import blame, fail, near, part, require, tensor
from grader.exam.kit import Missing, count, linear, need
from grader.suites.shared import lowrank, wrapped
from grader.suites.shared.lowrank import ALPHA, RANK
from grader.suites.shared.wrapped import MODES, base_of, called, like, loaded, made, shown, writing

OUT, IN = 12, 18
WIDE, DROP = 24, 0.25


def pieces(draw, dtype=torch.float32, rank=RANK, out=OUT, into=IN):
    """weight, bias, A, B: the update is as large as the base."""
    return (
        draw(out, into, std=0.5, dtype=dtype),
        draw(out, std=2.0, dtype=dtype),
        draw(rank, into, std=0.4, dtype=dtype),
        draw(out, rank, std=0.6, dtype=dtype),
    )


SCALES = {
    **lowrank.SCALES,
    "scale-one-over-rank": lambda s, r: 1 / r,
    "scale-floored": lambda s, r: float(s * r // r),
}
LORA = lowrank.beside(
    lambda x, W, b, dropout=0.0: F.linear(x, W, b),
    lambda x, A, B: x @ A.T @ B.T,
    scales=SCALES,
    name="LoRALinear",
    values=pieces,
    words=lowrank.called_with,
    on_sum="scale-on-base-too",
)
BENT = {  # not linear, so that it shows in no other check
    "activation-between": lambda x, W, b, A, B: (
        F.linear(x, W, b) + ALPHA / RANK * (x @ A.T).relu() @ B.T
    )
}


def update_of(case):
    """scale * B @ A of a case, float64."""
    A, B = (v.double() for v in case.values[2:])
    return case.options.get("alpha", ALPHA) / len(A) * (B @ A)


def with_dropout(case, p=DROP, **options):
    """The same layer with dropout."""
    return replace(case, options={**case.options, "dropout": p, **options})


# shape


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """Inputs are (..., in_features): two, three and four dimensions, batches of one too."""
    leads = (2, 7), (2, 3, 4), (1, 1), (1,)
    wrapped.leading_dimensions(stage, draw, LORA, leads, "flattens-leading-dims")


@part("shape")
def test_single_vector(stage, draw):
    """A single vector (in_features,) gives (out_features,)."""
    wrapped.leading_dimensions(stage, draw, LORA, ((),), "one-d-input-fails")


@part("shape")
def test_non_contiguous_input(stage, draw):
    """Inputs need not be contiguous."""
    wrapped.non_contiguous(stage, draw, LORA, "needs-contiguous-input")


@part("shape")
def test_factor_shapes(stage, draw):
    """lora_A is (rank, in_features), lora_B is (out_features, rank)."""
    wrapped.shapes(stage, LORA.case(draw, 1))


@part("shape")
def test_rank_one(stage, draw):
    """A rank of 1 is legal, and one above out_features too."""
    lowrank.any_rank(stage, draw, LORA, (1,), "rank-one-refused")
    lowrank.any_rank(stage, draw, LORA, (OUT, OUT + 2), "high-rank-refused")


# init


@part("init")
def test_starts_as_the_base(stage, draw):
    """At the start the layer computes what the base does, with dropout too."""
    case = LORA.case(draw, 5, rank=4, options={"alpha": 6.0})
    case = lowrank.at_start(case)
    wrapped.starts_as(stage, case)
    # lora_B is zero: nothing but the base's part can have moved.
    what, bug = "the output at the start in training, with dropout", "dropout-on-base-too"
    wrapped.starts_as(stage, with_dropout(case, 0.5), what, bug=bug)


@part("init")
def test_b_starts_at_zero(stage, draw):
    """lora_B starts at exactly zero."""
    lowrank.b_starts_at_zero(stage, draw, LORA)


@part("init")
def test_a_starts_random(stage, draw):
    """lora_A starts random: 0 < std < 1.5, full row rank, not the same every time."""
    lowrank.a_starts_random(stage, draw, LORA)


def there(kata, weight, bias):
    layer = kata.LoRALinear(linear(weight, bias))
    wanted = ("base", "lora_A", "lora_B", "scale", "merged")
    places = (vars(layer), layer._parameters, layer._buffers, layer._modules)
    own = {n for place in places for n in place if not n.startswith("_") and n != "training"}
    born = getattr(layer, "merged", None)
    born = "a method" if callable(born) else bool(born)
    return [n for n in wanted if not hasattr(layer, n)], sorted(own), born


def by_default(kata, weight, bias, x):
    """lora_A and the outputs in both modes: with the defaults given, and without."""
    seen = []
    for words in ({"rank": 8, "alpha": 16.0, "dropout": 0.0}, {}):
        layer = kata.LoRALinear(linear(weight, bias), **words)
        with torch.no_grad():
            layer.lora_B.fill_(0.5)
        y = layer(x)
        layer.eval()
        seen.append((layer.lora_A, layer(x), y))
    return seen


def drops_by_place(kata, weight, bias, x):
    layer = kata.LoRALinear(linear(weight, bias).eval(), 4, 10, 0.5)  # a new layer trains
    with torch.no_grad():
        layer.lora_B.fill_(0.5)
    return not torch.equal(layer(x), layer(x))


@part("init")
def test_defaults_and_attributes(stage, draw):
    """rank 8, alpha 16, dropout 0, scale = alpha / rank, not merged; arguments by place or by
    name."""
    case = LORA.case(draw, 5, out=20, into=30)
    (W, b, *_), x = case.values, case.x
    missing, own, born = stage(there, W, b)
    for name in missing:
        text = f"LoRALinear has no `{name}`; it has: {', '.join(own) or 'nothing'}"
        fail(text, "attribute-missing")
    require(born != "a method", "`merged` is a method; it should be an attribute")
    require(not born, "a new layer says that it is merged")
    lowrank.defaults(
        stage,
        case,
        scales=SCALES,
        default="default-differs",
        reordered="arguments-reordered",
        renamed="argument-renamed",
    )
    for (A, still, y), bug in zip(stage(by_default, W, b, x), (None, "default-differs")):
        values = W, b, tensor(A, "lora_A"), torch.full((20, 8), 0.5)
        right = replace(case, values=values, options={"alpha": 16.0}).output()
        words = "without arguments" if bug else "with rank 8, alpha 16, dropout 0"
        near(still, right, what=f"the output in eval mode of a layer made {words}")
        near(y, right, what=f"the output in training of a layer made {words}", bug=bug)
    drops = stage(drops_by_place, W, b, x)
    require(drops, "LoRALinear(base, 4, 10, 0.5) does not drop anything in training")


@part("init")
def test_base_is_the_layer_passed_in(stage, draw):
    """`base` is the very layer passed in, its values untouched."""
    bugs = "base-reinitialised", "base-parameter-replaced", "bias-assumed"
    wrapped.keeps_base(stage, LORA.case(draw, 1), *bugs)


# freeze


@part("freeze")
def test_base_is_frozen(stage, draw):
    """Weight and bias of the base do not require and never receive a gradient."""
    wrapped.base_frozen(stage, LORA.case(draw, 5), tracked="merge-tracks-gradients")


@part("freeze")
def test_only_the_factors_train(stage, draw):
    """lora_A and lora_B are registered parameters, and no other parameter trains."""
    wrapped.only_learned_train(stage, LORA.case(draw, 5), "factor-no-parameter")


# forward


@part("forward")
def test_adds_the_scaled_low_rank_update(stage, draw):
    """forward(x) = base(x) + alpha / rank * (x @ lora_A.T @ lora_B.T)."""
    case = LORA.case(draw, 3, 4)
    for mode, y in zip(MODES, stage(wrapped.in_each_mode, *case.call)):
        wrapped.computes(y, case, mode=mode, also=BENT)


@part("forward")
def test_without_a_bias(stage, draw):
    """A base without bias works."""
    wrapped.without_bias(stage, draw, LORA, "bias-assumed")


@part("forward")
def test_alpha_below_rank(stage, draw):
    """Also where alpha is smaller than rank, negative or zero, or far above it."""
    wrapped.any_alpha(stage, LORA.case(draw, 5), (2.0, 3000.0, -7.5, 0.0))


# out, in, rank: where two of them are the same, a matrix may be used the wrong way round.
SIZES = [(18, 18, 3), (6, 6, 6), (6, 6, 6), (12, 6, 6), (6, 12, 6), (9, 1, 1), (1, 9, 1)]
SIZES += [(1, 1, 1), (12, 18, 3), (12, 18, 3)]


def sizes(draw):
    """Layers of these sizes, with inputs of as many rows as they have features."""
    for number, (out, into, rank) in enumerate(SIZES):
        lead = ((), (2, 2, 3))[number - 8] if number > 7 else (into,) * (1 + number % 2)
        yield LORA.case(draw, *lead, out=out, into=into, rank=rank)


def square(case):
    return len(case.values[0]) == case.values[0].shape[1] > 1


@part("forward")
def test_equal_sizes(stage, draw):
    """Sizes may be equal, or one: a square layer, a rank as large as it, a single feature."""
    turned = {
        "delta-transposed": lambda x, W, b, A, B: F.linear(x, W, b) + ALPHA / len(A) * x @ B @ A
    }
    wrapped.all_right(stage, list(sizes(draw)), named=square, also=turned)


@part("forward")
def test_input_unchanged(stage, draw):
    """The input is not changed in place."""
    case = LORA.case(draw, 5)
    wrapped.inputs_unchanged(stage, [case, with_dropout(case, 0.3)])


def returned(kata, weight, bias):
    layer = kata.LoRALinear(linear(weight, bias), rank=3)
    answers = layer.eval(), layer.train(), layer.train(False), layer.train(mode=True)
    return [a is None for a in answers], [a is layer for a in answers]


@part("forward")
def test_modes_return_the_layer(stage, draw):
    """train() and eval() return the layer itself, as those of nn.Module do."""
    nothing, itself = stage(returned, draw(OUT, IN), draw(OUT))
    calls = ("eval()", "train()", "train(False)", "train(mode=True)")
    for call, none, right in zip(calls, nothing, itself):
        text = f"layer.{call} returns {'None' if none else 'another object'}, expected the layer"
        require(right, text, "train-returns-nothing" if none else None)


def steps(draw, case, text, graph=True):
    """What the words of a text stand for, one after the other, with new values for each."""
    found = []
    for word in text.split():
        if word in ("factors", "base", "load"):
            other = LORA.case(draw, 1, bias=case.values[1] is not None)
        if word == "factors":
            verb = "set" if graph else "data"
            step = writing(case, other, "lora_A", "lora_B", verb=verb, words="new factors")
        elif word == "base":
            step = writing(case, other, "base.weight", "base.bias", words="a new base")
        else:
            step = loaded(case, other) if word == "load" else called(case, word)
        found.append(step)
        case = step.now
    return found


@part("forward")
def test_follows_its_parameters(stage, draw):
    """Each forward uses the values that factors and base have now, in either mode, with and
    without gradients."""
    text = "factors base eval factors base train factors base load eval load factors train base"
    for graph in (True, False):
        case = LORA.case(draw, 4)
        some = steps(draw, case, text, graph)
        walked = wrapped.walked(stage, case, some, graph, bug="weight-cached")
        wrapped.outputs_follow(walked, "train", kept_values, "eval-merges")
        wrapped.gradients_follow(walked, "train", rtol=2e-4)


def kept_values(step, past):
    """What it gives to keep an earlier update, or an earlier weight of the base."""
    if step.verb == "load":
        return {}
    now = step.now
    factors = [old for old in past if old.values[2] is not now.values[2]]
    weights = [old for old in past if old.values[0] is not now.values[0]]
    kept = {
        "weight-cached": [form for old in factors for form in (now.having(old, 2, 3), old)],
        "base-weight-copied": [
            form for old in weights for form in (now.having(old, 0, 1), now.having(old, 0))
        ],
    }
    return {bug: forms for bug, forms in kept.items() if forms}


@part("forward")
def test_dropout_is_off_in_eval(stage, draw):
    """In eval mode, and with dropout 0, the output is exact."""
    for lead in [(6,), (2, 3), ()]:
        case = LORA.case(draw, *lead)
        bare = replace(case, values=(case.values[0], None, *case.values[2:]))
        told = [(*with_dropout(one, 0.4).call, ("eval",)) for one in (case, bare)]
        told.append((*case.call, ("train",)))
        (y,), (plain,), (full,) = stage(wrapped.outputs_of_all, told)
        bug, known = None, case.mistakes(y)
        if like(full, case.output()):  # right in training, so the mode is what matters
            missing = like(y, case.output(LORA.slips["update-missing"]))
            bug, known = "eval-disables-adapter" if missing else "dropout-in-eval", {}
        what = "the output in eval mode, dropout 0.4"
        near(y, case.output(), what=what, unless=known, bug=bug)
        wrapped.computes(full, case, "the output with dropout 0")
        near(plain, bare.output(), what="the output in eval mode without bias, dropout 0.4")


def rotations(draw, *lead, base=1.0, **words):
    """A layer and an input where A and B are rotations: what went into the branch can be read
    from what came out of it. No entry of x is near zero, so that a dropped one shows."""
    case = LORA.case(draw, *lead, out=WIDE, into=WIDE, rank=WIDE, **words)
    W, b, *_ = case.values
    A, B = (draw.orthonormal(WIDE, WIDE, dtype=W.dtype) for _ in range(2))
    x = case.x + case.x.sign() * 0.5
    return with_dropout(replace(case, values=(2 * base * W, b, A, B), x=x))


def branch_of(y, case):
    """The output less the base's part, over the scale."""
    return (y.double() - case.output(LORA.slips["update-missing"])) / (ALPHA / WIDE)


def entered(y, case):
    """What went into the branch, by entries of x: 0 where dropped, 1 / (1 - p) where kept."""
    A, B = (v.double() for v in case.values[2:])
    return branch_of(y, case) @ B @ A / case.x.double()


def is_dropout(ratio, off=0.01):
    kept, gone = (ratio - 1 / (1 - DROP)).abs() < off, ratio.abs() < off
    return bool((kept | gone).all() and kept.any() and gone.any())


def two_valued(ratio, values=(0.0, 1 / (1 - DROP))):
    near_any = torch.stack([(ratio - v).abs() < 0.02 for v in values]).any(0)
    return bool(near_any.double().mean() > 0.97) and bool((ratio.abs() < 0.02).any())


def base_dropped(y, case):
    """Whether y is the layer's output for an input with entries dropped, base and all."""
    W, b, *_ = case.values
    went_in = torch.linalg.solve(W.double() + update_of(case), (y - b.double()).T).T
    return two_valued(went_in / case.x.double())


@part("forward")
def test_dropout_on_the_branch_input(stage, draw):
    """In training, dropout acts on the input of the low-rank branch, and on nothing else."""
    case = rotations(draw, 40)
    told = [(*case.call, calls) for calls in (("eval",), ("train", "train"))]
    (still,), (first, second) = stage(wrapped.outputs_of_all, told)
    near(still, case.output(), what="the output in eval mode")
    right = tensor(first).shape == case.x.shape and not first.is_complex()
    require(right, "the output in training with dropout has the wrong shape or dtype")
    require(first.dtype == case.dtype, f"the output in training is {str(first.dtype)[6:]}")
    if like(first, case.output()):
        fail("dropout 0.25 changes nothing in training", "dropout-ignored")
    ratio = entered(first, case)
    if not is_dropout(ratio):
        fail(*misplaced(first.double(), case, ratio))
    share = float((ratio.abs() < 0.1).double().mean())
    require(0.15 < share < 0.36, f"dropout 0.25 drops {share:.0%} of the input")
    single_entries(ratio, case.x)
    again = torch.equal(first, second)
    require(not again, "each forward must draw anew what dropout drops", "dropout-mask-kept")


def misplaced(y, case, ratio):
    """What dropout does if it does not drop entries of the branch's input, and its name."""
    (A, B), x = (v.double() for v in case.values[2:]), case.x.double()
    branch = branch_of(y, case)
    hidden = branch @ B
    inner = torch.linalg.lstsq(x, hidden).solution.T / A
    if two_valued(hidden / (x @ A.T)):
        return "dropout acts after lora_A", "dropout-on-hidden"
    if two_valued(branch / (x @ A.T @ B.T)):
        return "dropout acts on the branch's output", "dropout-on-output"
    if two_valued(y / case.output()):
        return "dropout acts on the sum of base and branch", "dropout-on-base-too"
    if two_valued(ratio, (0.0, 1.0)):
        return "what dropout keeps must be divided by 1 - p", "dropout-not-rescaled"
    if two_valued(ratio, (0.0, 1 / DROP)):
        text = "dropout 0.25 drops three quarters: p is the share to drop"
        return text, "dropout-is-keep-rate"
    kept = ratio[ratio.abs() > 0.1]
    if kept.numel() and float(kept.min()) > 1 and float(kept.max() - kept.min()) < 0.01:
        return f"dropout 0.25 acts like {1 - 1 / float(kept.mean()):.2g}", "dropout-rate-differs"
    if two_valued(inner):
        return "dropout acts on the entries of lora_A", "dropout-on-factor"
    bug = "dropout-on-base-too" if base_dropped(y, case) else None
    return "in training, the output is not base(x) + the branch of dropout(x)", bug


def single_entries(ratio, x):
    """What is dropped differs along each dimension of x."""
    gone = ratio.abs() < 0.5
    for dim, size in enumerate(gone.shape):
        alike = size > 1 and bool((gone == gone.narrow(dim, 0, 1)).all())
        text = f"dropout must drop single entries of x {tuple(x.shape)}: along dimension {dim} "
        require(not alike, text + "all or none are dropped", "dropout-drops-whole-rows")


@part("forward")
def test_dropout_whatever_the_input(stage, draw):
    """Dropout acts alike on inputs of any number of dimensions, without a bias, and whether
    gradients are recorded or not."""
    ways = ((True, True), (False, True), (True, False))
    for leads in ([(6, 5), (3, 4, 5), (1, 40)], [()]):
        made_of = [(rotations(draw, *lead, bias=bias), g) for lead in leads for bias, g in ways]
        calls = ("train",) if leads[0] else ("train",) * 8
        told = [(*case.call, calls, graph) for case, graph in made_of]
        for got, (case, graph) in zip(stage(wrapped.outputs_of_all, told), made_of, strict=True):
            words = f"for {shown(case)}" + " under no_grad" * (not graph)
            for y in got:
                right = tensor(y).shape == case.x.shape and y.dtype == case.dtype
                require(right, f"the output {words} with dropout has another shape or dtype")
            ratio = torch.stack([entered(y, case) for y in got])
            text = f"{words}, in training with dropout 0.25, the output is"
            exact = bool(((ratio - 1).abs() < 0.01).all())
            require(not exact, f"{text} that without dropout", "dropout-ignored")
            require(is_dropout(ratio), f"{text} not base(x) + the branch of dropout(x)")
            if case.x.ndim > 1:
                single_entries(ratio[0], case.x)


# gradient


@part("gradient")
def test_gradients_of_the_factors(stage, draw):
    """lora_A and lora_B get the exact gradients, in training and in eval mode."""
    none = "factors-get-no-gradient"
    wrapped.learned_gradients(stage, [LORA.case(draw, 2, 3)], none, none)


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to the input, through the frozen base and through the branch."""
    wrapped.input_gradients(stage, [LORA.case(draw, 2, 3)])


@part("gradient")
def test_gradients_at_equal_sizes(stage, draw):
    """The gradients are exact also where sizes are equal, or one."""
    wrapped.all_gradients(stage, list(sizes(draw)), rtol=2e-4)


@part("gradient")
def test_gradients_with_dropout(stage, draw):
    """In training with dropout the gradients are those of what dropout has left."""
    leads = ((9,), True), ((2, 3), True), ((2, 2, 3), True), ((9,), False)
    cases = [rotations(draw, *lead, bias=bias) for lead, bias in leads]
    for case, _, got in wrapped.seen_gradients(stage, cases):
        y, words = got["y"], f"in training with dropout, for {shown(case)}"
        right = tensor(y).shape == case.x.shape and y.dtype == case.dtype
        ratio = entered(y, case) if right else case.x
        require(right and is_dropout(ratio), f"the output is not what it should be {words}")
        kept = (ratio > 0.5).double() / (1 - DROP)
        _, *wanted = replace(case, x=kept * case.x.double()).gradients()
        for name, value, want in zip(lowrank.FACTORS, got["learned"], wanted, strict=True):
            off = "factors-get-no-gradient" if got["trains"] else None
            require(value is not None, f"{name} gets no gradient {words}", off)
            near(value, want, what=f"the gradient of {name} {words}")
        require(got["x"] is not None, f"no gradient reaches the input {words}", CUT)
        branch, base = (case.gradients(LORA.cuts[cut])[0] for cut in (CUT, DETACHED))
        known = {CUT: branch * kept, DETACHED: base}
        what = f"the gradient to the input {words}"
        near(got["x"], base + branch * kept, what=what, unless=known)


CUT, DETACHED = LORA.cuts


@part("gradient")
def test_b_learns_from_the_start(stage, draw):
    """While lora_B is still zero it gets its gradient all the same, whether or not the base was
    frozen beforehand."""
    lowrank.b_learns_from_the_start(stage, LORA.case(draw, 6))


# merge


def deltas(kata, cases):
    return [made(kata, *layer).delta_weight() for layer in cases]


@part("merge")
def test_delta_weight(stage, draw):
    """delta_weight() is scale * lora_B @ lora_A, of shape (out, in)."""
    cases = [LORA.case(draw, 1), LORA.case(draw, 1, out=IN)]
    for got, case in zip(stage(deltas, [case.layer for case in cases]), cases, strict=True):
        want, scale = update_of(case), ALPHA / RANK
        known = {bug: want * (slip(scale, RANK) / scale) for bug, slip in SCALES.items()}
        known["delta-scale-missing"] = known.pop("scale-missing")
        if square(case):
            known["delta-transposed"] = want.T
        what = "delta_weight() of a square layer" if square(case) else "delta_weight()"
        turned = "delta-transposed" if like(got, want.T) else None
        near(got, want, what=what, unless=known, bug=turned)


def merging(kata, layer, x, calls):
    layer = made(kata, *layer)
    base = base_of(layer)
    kept = base.weight
    factors = layer.lora_A, layer.lora_B
    for p in factors:
        p.grad = torch.ones_like(p)
    if need(layer, "merged"):
        raise Missing("A new layer says that it is merged, after others have been")
    seen = []
    for call in calls:
        getattr(layer, call)()
        seen.append(
            {
                "weight": base.weight.detach().clone(),
                "bias": base.bias,
                "merged": bool(need(layer, "merged")),
                "same": base.weight is kept,
                "base": layer.base is base,
                "factors": layer.lora_A is factors[0] and layer.lora_B is factors[1],
                "trains": layer.lora_A.requires_grad and layer.lora_B.requires_grad,
                "grads": all(p.grad is not None and bool((p.grad == 1).all()) for p in factors),
                "y": layer(x),
                "delta": layer.delta_weight(),
                "values": [p.detach().clone() for p in factors],
                "leaf": base.weight.is_leaf,
                "frozen": not base.weight.requires_grad,
            }
        )
    return seen


# How torch says that a weight which autograd follows was changed.
RECORDED = ("in-place operation", "assign non-leaf Tensor to parameter")


def after_calls(stage, draw, text, bug=None):
    """The case, its weight, its update, and what is seen after each of the calls in a text; bug:
    what it is if a call raises."""
    case = LORA.case(draw, 5)
    with blame(bug), blame("merge-tracks-gradients", *RECORDED):
        seen = stage(merging, case.layer, case.x, text.split())
    return case, case.values[0].double(), update_of(case), seen


@part("merge")
def test_merge_folds_the_update_into_the_weight(stage, draw):
    """merge() adds delta_weight() to base.weight; the output stays the same."""
    case, plain, update, (got,) = after_calls(stage, draw, "merge")
    # Another layer or Parameter in the place of the base is another mistake.
    in_place = got["same"] and got["base"]
    unscaled = update / (ALPHA / RANK)
    known = {"merge-scale-missing": plain + unscaled, "merge-missing": plain} if in_place else {}
    near(got["weight"], plain + update, what="base.weight after merge()", unless=known)
    _, b, A, B = case.values
    near(got["bias"], b, what="base.bias after merge()")
    right, base = case.output(), case.output(LORA.slips["update-missing"])
    known = {
        "merge-without-flag": 2 * right - base,
        "merge-missing": base,
        "bias-dropped": right - b,
    }
    near(got["y"], right, what="the output after merge()", unless=known, rtol=2e-4)
    near(got["values"][0], A.double(), what="lora_A after merge()")
    cleared = {"merge-clears-b": torch.zeros_like(B)}
    near(got["values"][1], B.double(), what="lora_B after merge()", unless=cleared)
    near(got["delta"], update, what="delta_weight() while merged")
    require(got["merged"], "`merged` should be true after merge()")


@part("merge")
def test_merge_keeps_the_parameter(stage, draw):
    """In place: base.weight is the same Parameter afterwards, a leaf, and still frozen;
    after unmerge() lora_A and lora_B are the same as before."""
    for mode in MODES:
        *_, (_, folded, back) = after_calls(stage, draw, f"{mode} merge unmerge")
        for got, call in ((folded, "merge()"), (back, "unmerge()")):
            text = f"base.weight carries a gradient graph after {call}"
            require(got["leaf"], text, "merge-tracks-gradients")
            text = f"base.weight is another object after {call}"
            require(got["same"], text, "merge-new-parameter")
            text = f"`base` is another layer after {call}, with another weight"
            require(got["base"], text, "merge-new-parameter")
            require(got["grads"], f"{call} changes the gradients of lora_A or lora_B")
        require(folded["frozen"], "base.weight is no longer frozen after merge()")
        lost = "lora_A or lora_B is another object after unmerge(): an optimizer would lose it"
        require(back["factors"], lost)
        require(back["trains"], "after merge() and unmerge() lora_A or lora_B is frozen")


@part("merge")
def test_merging_twice_changes_nothing(stage, draw):
    """A second merge() changes nothing."""
    after_calls(stage, draw, "merge")
    _, _, update, (first, second) = after_calls(stage, draw, "merge merge", "second-call-raises")
    once = first["weight"].double()
    known = {"merge-not-idempotent": once + update}
    near(second["weight"], once, what="base.weight after a second merge()", unless=known)
    require(second["merged"], "`merged` should still be true after a second merge()")


@part("merge")
def test_unmerge_takes_the_update_out(stage, draw):
    """unmerge() restores weight and output; unmerging an unmerged layer changes nothing."""
    after_calls(stage, draw, "merge unmerge merge unmerge")
    text = "unmerge merge unmerge unmerge merge unmerge"
    case, plain, update, seen = after_calls(stage, draw, text, "second-call-raises")
    twice = {"unmerge-not-idempotent": plain - update}
    once = {
        "unmerge-missing": plain + update,
        "unmerge-adds": plain + 2 * update,
        "unmerge-scale-missing": plain + update - update / (ALPHA / RANK),
    }
    told = (
        ("an unmerge() of an unmerged layer", twice),
        None,
        ("merge() and unmerge()", once),
        ("a second unmerge()", twice),
        None,
        ("merging and unmerging again", {}),
    )
    for got, words in zip(seen, told, strict=True):
        if words is None:
            bug = "merge-missing" if like(got["weight"], plain) else None
            require(got["merged"], "`merged` should be true after merge()", bug)
            continue
        name, known = words
        what = f"base.weight after {name}"
        near(got["weight"], plain, what=what, unless=known, rtol=2e-4)
        require(not got["merged"], f"`merged` is true after {name}", "unmerge-flag-stays")
        near(got["y"], case.output(), what=f"the output after {name}", rtol=2e-4)


def modes(kata, layer, x):
    layer = made(kata, *layer)
    base = base_of(layer)
    states, training = [], True
    for step in ("", "eval", "train", "merge", "train", "eval", "unmerge", "eval"):
        if step:
            getattr(layer, step)()
        training = step == "train" if step in ("train", "eval") else training
        if layer.training != training:
            raise Missing(f"{step}() switches the layer between train() and eval()")
        states.append((bool(layer.merged), base.weight.detach().clone()))
    layer.train()
    layer.merge()
    layer.unmerge()
    dropping = layer(x)
    layer.merge()
    layer.eval()
    return states, dropping, layer(x)


@part("merge")
def test_modes_do_not_merge(stage, draw):
    """train() and eval() neither merge nor unmerge; merging works in both modes."""
    case = with_dropout(LORA.case(draw, 5), 0.5)
    states, y, still = stage(modes, case.layer, case.x)
    plain = case.values[0].double()
    folded, exact = plain + update_of(case), case.output()
    # The call, whether the layer is merged after it, and what it is if the other holds.
    told = (
        ("__init__", False, None),
        ("eval()", False, "eval-merges"),
        ("train()", False, None),
        ("merge()", True, None),
        ("train()", True, "train-unmerges"),
        ("eval()", True, None),
        ("unmerge()", False, None),
        ("eval()", False, "eval-merges"),
    )
    for (now, weight), (call, inside, bug) in zip(states, told, strict=True):
        right, other = (folded, plain) if inside else (plain, folded)
        what = f"base.weight after {call} of a layer that is {'' if inside else 'not '}merged"
        near(weight, right, what=what, unless={bug: other} if bug else {}, rtol=2e-4)
        require(now == inside, f"`merged` should be {inside} after {call}")
    if like(y, exact):  # dropout that never acts is another mistake than one that merge() ends
        (never,) = stage(wrapped.outputs, *case.call, ("train",))
        bug = "dropout-ignored" if like(never, exact) else None
        fail("after merge() and unmerge() dropout stays off in training", bug)
    near(still, exact, what="the output merged in eval mode", rtol=2e-4)


@part("merge")
def test_no_dropout_while_merged(stage, draw):
    """While merged the output is the base matmul alone, in training with dropout too, whatever
    the input's dimensions."""
    leads = ((20,), True), ((20,), False), ((2, 3), True), ((2, 2, 3), True), ((), True)
    cases = [rotations(draw, *lead, bias=bias) for lead, bias in leads]
    told = [(*case.call, ("merge", "eval")) for case in cases]
    for (_, still), case in zip(stage(wrapped.outputs_of_all, told), cases, strict=True):
        what = f"the output merged in eval mode for {shown(case)}"
        near(still, case.output(), what=what, rtol=2e-4)
    for case, _, got in wrapped.seen_gradients(stage, cases, MERGED):
        y, right, bug = got["y"], case.output(), None
        if case.x.ndim == 2 and case.values[1] is not None and tensor(y).shape == right.shape:
            again = y.double() - right + case.output(LORA.slips["update-missing"])
            if not y.is_complex() and is_dropout(entered(again, case)):
                bug = "merge-without-flag"
            elif not y.is_complex() and base_dropped(y.double(), case):
                bug = "dropout-on-base-too"
        words = f"merged, in training with dropout, for {shown(case)}"
        near(y, right, what=f"the output {words}", rtol=2e-4, bug=bug)
        require(got["x"] is not None, f"no gradient reaches the input {words}")
        want = case.gradients()[0]
        near(got["x"], want, what=f"the gradient to the input {words}", rtol=2e-4)


MERGED = ((("train", "merge"), True, True),)


def sized(kata, cases):
    return [
        [made(kata, *layer).delta_weight(), *merging(kata, layer, x, CALLS)] for layer, x in cases
    ]


CALLS = ("merge", "unmerge")


@part("merge")
def test_merging_at_equal_sizes(stage, draw):
    """merge(), unmerge() and delta_weight() are exact also where sizes are equal, or one."""
    cases = list(sizes(draw))
    seen = stage(sized, [(case.layer, case.x) for case in cases])
    for (change, folded, back), case in zip(seen, cases, strict=True):
        want, plain, words = update_of(case), case.values[0].double(), f"for {shown(case)}"
        turned = want.T if square(case) else None
        known = {} if turned is None else {"delta-transposed": turned}
        near(change, want, what=f"delta_weight() {words}", unless=known)
        known = {} if turned is None else {"merge-transposed": plain + turned}
        what = f"base.weight after merge() {words}"
        near(folded["weight"], plain + want, what=what, unless=known)
        known = {} if turned is None else {"merge-transposed": plain + want - turned}
        what = f"base.weight after unmerge() {words}"
        near(back["weight"], plain, what=what, unless=known, rtol=2e-4)
        for got, call in ((folded, "merge()"), (back, "unmerge()")):
            near(got["y"], case.output(), what=f"the output after {call} {words}", rtol=2e-4)


def merges(stage, case, some, graph=True, known=None):
    """Weight, flag, outputs and gradients are right after each of some steps; known: what mistakes
    make of the weight."""
    inside = False
    for step, got in wrapped.walked(stage, case, some, graph, flag="merged"):
        case, after = step.now, f"after {step.words}"
        inside = {"merge": True, "unmerge": False}.get(
            step.detail if step.verb == "call" else "", inside
        )
        require(got["flag"] == inside, f"`merged` should be {inside} {after}")
        require(got["frozen"], f"the base is no longer frozen {after}")
        want = case.values[0].double() + update_of(case) * inside
        what = f"base.weight {after}"
        wrapped.agrees(got["weights"][0], want, known or {}, what, rtol=2e-4)
        ys = got["silent"] if "y" not in got else [*got["silent"], got["y"]]
        for y in ys:
            near(y, case.output(), what=f"the output {after}", rtol=2e-4)
        if inside and "grads" in got:
            near(got["grads"][0], case.gradients()[0], what=f"the gradient of x {after}", rtol=2e-4)
        elif "grads" in got:
            wrapped.right_gradients(got["grads"], case, after, rtol=2e-4)


@part("merge")
def test_merges_the_factors_of_the_moment(stage, draw):
    """After the factors have changed, merge() uses the new ones."""
    case = LORA.case(draw, 5)
    start = lowrank.at_start(case)
    merges(stage, start, steps(draw, start, "merge unmerge"))
    first = {"weight-cached": case.values[0].double() + update_of(case)}
    some = steps(draw, case, "merge unmerge factors merge unmerge")
    merges(stage, case, some, False, first)


@part("merge")
def test_unmerge_restores_the_weight_of_the_merge(stage, draw):
    """unmerge() gives back the weight that was there when merge() was called."""
    case = LORA.case(draw, 5)
    first = {"unmerge-to-initial": case.values[0].double()}
    some = steps(draw, case, "base merge unmerge")
    merges(stage, case, some, True, first)


@part("merge")
def test_merging_in_any_order(stage, draw):
    """Output and gradients are right after every step, in whatever order the layer is merged,
    unmerged, trained, loaded and switched between its modes."""
    text = (
        "eval merge train eval unmerge factors merge merge eval unmerge unmerge train base merge "
    )
    text += "eval train unmerge load eval merge unmerge factors train base unmerge merge unmerge"
    for graph in (True, False):
        case = LORA.case(draw, 4, bias=graph)
        merges(stage, case, steps(draw, case, text, graph), graph)


@part("merge")
def test_base_stays_frozen_after_unmerge(stage, draw):
    """The base is still frozen after merge() and unmerge()."""
    wrapped.base_frozen(
        stage,
        LORA.case(draw, 5),
        CALLS,
        tracked="merge-tracks-gradients",
        thawed={"weight": "base-weight-trains-after-unmerge"},
    )


@part("merge")
def test_training_goes_on_after_unmerge(stage, draw):
    """After unmerge() factors and input get the same gradients as before."""
    cases, calls = [LORA.case(draw, 2, 3)], ("train", "merge", "unmerge")
    for case, _, got in wrapped.seen_gradients(stage, cases, ((calls, True, True),)):
        grads = got["x"], *got["learned"]
        wrapped.right_gradients(grads, case, "after unmerge()", rtol=2e-4)


@part("merge")
def test_gradient_to_the_input_while_merged(stage, draw):
    """While merged the gradient still flows to the input."""
    for case, _, got in wrapped.seen_gradients(stage, [LORA.case(draw, 2, 3)], MERGED):
        require(got["x"] is not None, "no gradient reaches the input while merged", CUT)
        what = "the gradient to the input while merged"
        near(got["x"], case.gradients()[0], what=what, rtol=2e-4)


# state


@part("state")
def test_state_names(stage, draw):
    """lora_A, lora_B and the base's tensors are in the state dict under these names."""
    names = ("lora_A", "lora_B", "base.weight", "base.bias")
    wrapped.state_names(stage, LORA.case(draw, 1), names)


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs."""
    wrapped.state_round_trip(stage, draw, LORA)


# dtype and device


def merged_in_dtype(kata, layer, x):
    layer = made(kata, *layer)
    if need(layer, "merged"):
        raise Missing("A new layer says that it is merged, after others have been")
    seen = [layer.delta_weight()]
    for call in ("merge", "unmerge"):
        getattr(layer, call)()
        seen += [layer.base.weight.detach().clone(), layer(x)]
    return seen


def right_in_dtype(stage, draw, dtype):
    output, coarse = "output-in-another-dtype", "float32-inside"
    for bias in (True, False):
        wrapped.learned_are(stage, LORA.case(draw, 1, dtype=dtype, bias=bias))
    ways = ("train", (5,), True), ("eval", (5,), True), ("eval", (1,), False)
    ways += ("train", (2, 3), False), ("eval", (), True)
    for mode, lead, bias in ways:
        # A scale that is not exact in any dtype: one kept in a coarser dtype shows.
        case = LORA.case(draw, *lead, dtype=dtype, bias=bias, options={"alpha": 10.0})
        seen = stage(merged_in_dtype, case.layer, case.x)
        wrapped.in_dtype(stage, case, mode, output, coarse, coarse)
        plain, update = case.values[0].double(), update_of(case)
        wanted = (
            ("delta_weight()", update),
            ("base.weight after merge()", plain + update),
            ("the output after merge()", case.output()),
            ("base.weight after unmerge()", plain),
            ("the output after unmerge()", case.output()),
        )
        for got, (what, want) in zip(seen, wanted, strict=True):
            other = output if "output" in what else None
            wrapped.exact(got, want, what, case, other, coarse)


@part("dtype")
def test_float64(stage, draw):
    """A float64 base gives float64 factors and outputs, exact to 1e-9."""
    right_in_dtype(stage, draw, torch.float64)


@part("dtype")
def test_bfloat16(stage, draw):
    """A bfloat16 base gives bfloat16 factors and outputs."""
    right_in_dtype(stage, draw, torch.bfloat16)


@part("dtype")
def test_dropout_keeps_the_dtype(stage, draw):
    """In training with dropout the output has the base's dtype too."""
    for dtype, off in ((torch.float64, 1e-8), (torch.bfloat16, 0.4)):
        # A zero base: what came out of the branch is not rounded away in its output.
        case = rotations(draw, 20, bias=False, dtype=dtype, base=0.0)
        wrapped.learned_are(stage, case)
        (y,) = stage(wrapped.outputs, *case.call, ("train",))
        got, want = str(tensor(y).dtype)[6:], str(dtype)[6:]
        text = f"the output in training with dropout is {got}, expected {want}"
        require(y.dtype == dtype, text, "output-in-another-dtype")
        right = y.shape == case.x.shape and is_dropout(entered(y, case), off)
        require(right, f"the output in training with dropout is not what it should be in {want}")


@part("device")
def test_meta_device(stage, draw):
    """A base on the meta device gives factors and outputs there."""
    wrapped.meta_device(stage, LORA.case(draw, 2, 5), bugs=("cpu-factors", "float32-factors"))


# errors


@part("errors")
def test_rank_below_one(stage, draw):
    """rank < 1 raises ValueError naming rank, before anything is changed."""
    wrapped.rank_checked(stage, LORA.case(draw, 1), "rank-checked-after-freeze")


@part("errors")
def test_base_must_be_linear(stage, draw):
    """A base that is no nn.Linear raises TypeError naming base, before anything is changed; a
    subclass of it is one."""
    wrapped.base_checked(stage, LORA.case(draw, 5), "rank-checked-after-freeze")


# cost


def merged_cost(kata, layer, x, mode):
    _, weight, bias, *_ = layer
    layer = made(kata, *layer)
    getattr(layer, mode)()
    layer.merge()
    with torch.no_grad():
        return count(lambda: layer(x)), count(lambda: nn.functional.linear(x, weight, bias))


@part("cost")
def test_merged_forward_is_the_base_matmul_alone(stage, draw):
    """While merged, forward does the base matmul and no other."""
    for mode in MODES:
        case = with_dropout(LORA.case(draw, 40), 0.3)
        got, plain = stage(merged_cost, case.layer, case.x, mode)
        text = f"a forward merged takes {got['flops']} FLOPs in {mode} mode"
        text += f"; the base matmul takes {plain['flops']}"
        require(got["flops"] <= plain["flops"], text, "merged-runs-branch-anyway")
        # Products of other names: sums of products, vectors one by one.
        text = f"a forward merged, in {mode} mode, computes more than the base matmul"
        largest, most = got["largest"], max(plain["largest"], case.x.numel())
        require(largest <= most, f"{text}: {largest} values at once")
        require(got["ops"] <= plain["ops"] + 20, f"{text}: {got['ops']} operators")
        require(not got["elsewhere"], f"{text}: something outside of torch")


# gpu


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU, and nothing stays behind."""
    wrapped.accelerator(stage, LORA.case(draw, 4, 5), method="merge")
