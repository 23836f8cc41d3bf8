"""What is checked of `adalora`. Contract: AdaLoRA (Zhang et al. 2023), sections 3.1 and 3.2."""

from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F

from grader.exam.checks import (
    blame,
    described,
    fail,
    near,
    part,
    rejects,
    require,
    same,
    tensor,
)
from grader.exam.kit import CheapMeta, linear, need, nn
from grader.suites.shared import lowrank, wrapped
from grader.suites.shared.lowrank import ALPHA, RANK
from grader.suites.shared.wrapped import MODES, called, loaded, made, take, writing

OUT, IN = 12, 18
LEARNED = ("lora_Q", "lora_E", "lora_P")


def pieces(draw, dtype=torch.float32, rank=RANK, out=OUT, into=IN):
    """weight, bias, Q, E, P: the update is as large as the base, no entry of E is near zero, and
    both signs are among them."""
    E = draw(rank, std=0.5, dtype=torch.float64)
    E = E + E.sign() * 0.5
    E[: rank // 2] = E[: rank // 2].abs()
    E[rank // 2 : rank // 2 + 1] = -E[rank // 2 : rank // 2 + 1].abs()
    return (
        draw(out, into, std=0.5, dtype=dtype),
        draw(out, std=2.0, dtype=dtype),
        draw(rank, into, std=0.4, dtype=dtype),
        E.to(dtype),
        draw(out, rank, std=0.6, dtype=dtype),
    )


def without_e(x, W, b, Q, E, P, **options):
    return SVD.right(x, W, b, Q, torch.ones_like(E), P, **options)


NAMED = ("scale-missing", "scale-is-alpha", "update-missing", "e-missing")
SVD = lowrank.beside(
    lambda x, W, b: F.linear(x, W, b),
    lambda x, Q, E, P: (x @ Q.T * E) @ P.T,
    learned=LEARNED,
    name="SVDLinear",
    values=pieces,
    words=lambda W, b, Q, E, P, alpha=ALPHA: {"rank": len(Q), "alpha": alpha},
    scales={bug: lowrank.SCALES[bug] for bug in NAMED[:2]},
    slips={"e-missing": without_e},
)
SVD = replace(SVD, slips={bug: SVD.slips[bug] for bug in NAMED})


def having(case, **values):
    """The case with other learned values."""
    learned = [values.get(name[-1], value) for name, value in case.learned.items()]
    return replace(case, values=(*case.values[:2], *learned))


def partly(case):
    """The case with one entry of lora_E at zero, as after pruning."""
    E = case.values[3].clone()
    E[len(E) // 2] = 0
    return having(case, E=E)


# shape


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """Inputs are (..., in_features): any number of leading dimensions, batches of one too."""
    leads = (2, 7), (2, 3, 4), (1, 1), (1,), (RANK,), (RANK, RANK), (2, 1, 3, 2)
    wrapped.leading_dimensions(stage, draw, SVD, leads, None)


@part("shape")
def test_single_vector(stage, draw):
    """A single vector (in_features,) gives (out_features,)."""
    wrapped.leading_dimensions(stage, draw, SVD, ((),), None)


@part("shape")
def test_non_contiguous_input(stage, draw):
    """Inputs need not be contiguous."""
    wrapped.non_contiguous(stage, draw, SVD, None)


@part("shape")
def test_shapes_of_the_triplets(stage, draw):
    """lora_P is (out_features, rank), lora_E (rank,), lora_Q (rank, in_features)."""
    wrapped.shapes(stage, SVD.case(draw, 1), None)


# out, in, rank: where two of them are the same, a matrix may be used the wrong way round.
SIZES = (18, 18, 3), (6, 6, 6), (12, 6, 6), (6, 12, 6), (9, 1, 1), (1, 9, 1), (1, 1, 1), (4, 5, 7)


def sizes(draw):
    return [SVD.case(draw, into, out=out, into=into, rank=rank) for out, into, rank in SIZES]


@part("shape")
def test_any_layer_size(stage, draw):
    """Layers are wide, tall or square, of one feature too; the rank may be 1, or a large one."""
    wrapped.all_right(stage, sizes(draw), named=lambda case: False)


# init


def starts(kata, shapes):
    """What trains in two layers of each of these shapes, and how many storages it has; what is
    left in memory must not pass for random, or for zero."""
    seen = []
    for out, into, rank in shapes:
        held = []
        for _ in range(2):
            stale = [torch.full(s, 0.5) for s in ((out, rank), (rank,), (rank, into)) * 4]
            del stale
            layer = kata.SVDLinear(nn.Linear(into, out), rank)
            held.append([need(layer, name) for name in ("lora_P", "lora_E", "lora_Q")])
        places = {t.untyped_storage().data_ptr() for one in held for t in one}
        seen.append((held, len(places)))
    return seen


SHAPES = (40, 64, 8), (30, 64, 1), (32, 32, 16)


@part("init")
def test_e_starts_at_zero(stage, draw):
    """lora_E starts at exactly zero, so that at the start the layer computes what the base does."""
    for held, storages in stage(starts, SHAPES):
        require(
            storages == 6, "two layers share a parameter, or a layer's parameters share storage"
        )
        for _, E, _ in held:
            ones = isinstance(E, torch.Tensor) and bool((E == 1).all())
            bug = "e-starts-at-one" if ones else None
            near(E, torch.zeros(E.shape), what="lora_E at the start", rtol=0, atol=0, bug=bug)
    case = SVD.case(draw, 5)
    wrapped.starts_as(stage, having(case, E=torch.zeros(RANK)))


@part("init")
def test_p_and_q_start_random(stage, draw):
    """lora_P and lora_Q start random, and not the same every time: neither is zero."""
    for held, _ in stage(starts, SHAPES):
        for place, name in ((0, "lora_P"), (2, "lora_Q")):
            one, other = (tensor(of[place], name).double() for of in held)
            require(bool(torch.isfinite(one).all()), f"{name} holds values that are not finite")
            known = {"lora_P": "p-zero", "lora_Q": "q-zero"}
            zero = f"{name} starts at zero: lora_E never gets a gradient"
            require(bool((one != 0).any()), zero, known[name])
            singular = torch.linalg.svdvals(one)
            full = bool(singular[-1] > 1e-4 * singular[0])
            require(full, f"{name} does not start random: its columns or rows depend on each other")
            constant = bool((one == one.reshape(-1)[0]).all())
            require(not constant, f"{name} starts constant")
            text = f"two layers start with the same {name}: it is not random"
            require(not torch.equal(one, other), text)


def settings(kata, weight, bias, x, calls):
    """Ranks and outputs of layers made with these arguments and words, filled with constants."""
    seen = []
    for args, words in calls:
        base = linear(weight, bias)
        layer = kata.SVDLinear(base, *args, **words) if args else kata.SVDLinear(base=base, **words)
        with torch.no_grad():
            for name, value in (("lora_P", 0.5), ("lora_E", 2.0), ("lora_Q", 0.25)):
                need(layer, name).fill_(value)
        seen.append((need(layer, "lora_Q").shape[0], layer(x)))
    return seen


@part("init")
def test_arguments(stage, draw):
    """rank 8 and alpha 16 by default; arguments by place or by name."""
    W, b, x = draw(20, 30, std=0.3), draw(20), draw(5, 30)
    told = (
        ((), {"rank": 4, "alpha": 10.0}, 4, 2.5),
        ((), {"rank": 4, "alpha": 10}, 4, 2.5),
        ((4, 10), {}, 4, 2.5),
        ((), {}, 8, 2.0),
        ((), {"rank": 4}, 4, 4.0),
        ((4,), {"alpha": -3.0}, 4, -0.75),
    )
    seen = stage(settings, W, b, x, [told[k][:2] for k in range(len(told))])
    for (rank, y), (args, words, right, scale) in zip(seen, told, strict=True):
        told_how = [*map(str, args), *(f"{k}={v}" for k, v in words.items())]
        how = f"SVDLinear({', '.join(['base', *told_how])})"
        require(rank == right, f"the rank of {how} is {rank}, expected {right}")
        low = x.double().sum(-1, keepdim=True) * 0.25 * right
        want = F.linear(x.double(), W.double(), b.double())
        near(y, want + scale * low, what=f"the output of {how}, filled with constants")


@part("init")
def test_base_is_the_layer_passed_in(stage, draw):
    """`base` is the very layer passed in, its values untouched."""
    wrapped.keeps_base(stage, SVD.case(draw, 1))


# freeze


@part("freeze")
def test_base_is_frozen(stage, draw):
    """Weight and bias of the base do not require and never receive a gradient."""
    wrapped.base_frozen(stage, SVD.case(draw, 5), thawed={"weight": None})


@part("freeze")
def test_only_the_triplets_train(stage, draw):
    """lora_P, lora_E and lora_Q are registered parameters that train, and no other one does.
    train() and eval() return the layer."""
    got = wrapped.only_learned_train(stage, SVD.case(draw, 5))
    require(got["returned"], "train() and eval() should return the layer")


# forward


@part("forward")
def test_adds_the_scaled_update(stage, draw):
    """forward(x) = base(x) + alpha / rank * ((x @ lora_Q.T) * lora_E) @ lora_P.T."""
    case = SVD.case(draw, 3, 4)
    for mode, y in zip(MODES, stage(wrapped.in_each_mode, *case.call)):
        wrapped.computes(y, case, mode=mode)


@part("forward")
def test_scale_is_fixed(stage, draw):
    """The scale stays alpha / rank when entries of lora_E are zero; with alpha of any size."""
    case = SVD.case(draw, 5, rank=4)
    some = having(case, E=case.values[3] * torch.tensor([1.0, 0.0, 1.0, 1.0]))
    live = {"scale-follows-live-ranks": at_alpha(ALPHA * 4 / 3)}
    for mode, y in zip(MODES, stage(wrapped.in_each_mode, *some.call)):
        what = f"the output where lora_E has a zero ({mode} mode)"
        wrapped.computes(y, some, what, mode=mode, also=live)
    none = having(case, E=torch.zeros(4))
    for y in stage(wrapped.in_each_mode, *none.call):
        near(y, none.output(), what="the output where lora_E is all zero")
    wrapped.any_alpha(stage, SVD.case(draw, 5), (2.0, 3000.0, -7.5, 0.0))


def at_alpha(other):
    """As a formula: the layer with this alpha."""
    return lambda x, *values, alpha=ALPHA: SVD.right(x, *values, alpha=other)


@part("forward")
def test_without_a_bias(stage, draw):
    """A base without bias works."""
    wrapped.without_bias(stage, draw, SVD, None)


@part("forward")
def test_input_unchanged(stage, draw):
    """The input is not changed in place."""
    square = SVD.case(draw, 5, out=IN, rank=IN)
    wrapped.inputs_unchanged(stage, [SVD.case(draw, 5), square, square.at(draw)])


def walked(stage, draw, mode, *lead):
    """A layer in this mode of which all there is changes, in place and in `.data`."""
    first, second, third = (partly(SVD.case(draw, *lead)) for _ in range(3))
    first = having(first, E=first.values[3] + (first.values[3] == 0))
    steps = [called(first, mode)]
    for names, other, verb in (
        (("lora_E",), second, "set"),
        (("lora_P", "lora_Q"), second, "set"),
        (("base.weight", "base.bias"), second, "set"),
        (("lora_E",), first, "data"),
        (("base.weight", "base.bias"), first, "replace"),
        (LEARNED, third, "replace"),
    ):
        words = f"{' and '.join(names)} changed" + f" ({verb})" * (verb != "set")
        steps.append(writing(steps[-1].now, other, *names, verb=verb, words=words))
    steps.append(loaded(steps[-1].now, second))
    return wrapped.walked(stage, first, steps)


@part("forward")
def test_follows_its_parameters(stage, draw):
    """Each forward uses the values that triplets and base have now, in either mode, with and
    without gradients."""

    def stale(step, past):
        return {"weight-cached": past[:1]} if past else {}

    for mode in MODES:
        wrapped.outputs_follow(walked(stage, draw, mode, 5), mode, stale)


# forward: the penalty


def gram(matrix, wanted=1.0):
    return matrix @ matrix.T - wanted * torch.eye(len(matrix), dtype=matrix.dtype)


def squares(matrix):
    return matrix.square().sum()


def penalty(Q, E, P):
    return squares(gram(P.T)) + squares(gram(Q))


PENALTIES = {
    "penalty-not-squared": lambda Q, E, P: gram(P.T).norm() + gram(Q).norm(),
    "penalty-as-in-peft": lambda Q, E, P: (gram(P.T).norm() + gram(Q).norm()) / 2,
    "penalty-without-identity": lambda Q, E, P: squares(gram(P.T, 0)) + squares(gram(Q, 0)),
    "penalty-wrong-side": (
        lambda Q, E, P: squares(gram(P)) + squares(gram(Q.T)),
        lambda Q, E, P: squares(gram(P)) + squares(gram(Q)),
        lambda Q, E, P: squares(gram(P.T)) + squares(gram(Q.T)),
    ),
}


def nearest(got, formula, *values):
    forms = [form(*values) for form in (formula if isinstance(formula, tuple) else (formula,))]
    return wrapped.nearest(got, forms)


def penalties(kata, layers, mode, steps=()):
    """The penalty of each layer, as it is and after each step, and its gradients; under no_grad
    too."""
    seen = []
    for layer in layers:
        layer = made(kata, *layer)
        for step in (("call", mode), *steps):
            take(kata, layer, *step)
            with torch.no_grad():
                silent = layer.orthogonality_penalty()
            learned = [need(layer, name) for name in ("lora_Q", "lora_E", "lora_P")]
            for p in learned:
                p.grad = None
            got = layer.orthogonality_penalty()
            if isinstance(got, torch.Tensor) and got.requires_grad:
                (got * 0.5).sum().backward()
            values = [p.detach().clone() for p in learned]
            seen.append((silent, got, [p.grad for p in learned], values))
    return seen


def wide(case):
    return [v.double() for v in case.values[2:]]


@part("forward")
def test_penalty(stage, draw):
    """orthogonality_penalty() is ||P^T P - I||_F^2 + ||Q Q^T - I||_F^2, sums of squares, a
    0-dimensional tensor, whatever lora_E is."""
    case = SVD.case(draw, 1)
    cases = [case, having(case, E=torch.zeros(RANK)), partly(case), *sizes(draw)]
    for mode in MODES:
        for one, (silent, got, _, after) in zip(
            cases, stage(penalties, [c.layer for c in cases], mode)
        ):
            require(
                not isinstance(got, (int, float)), "the penalty is a number, not a tensor", FLOAT
            )
            for value in (got, silent):
                known = {bug: nearest(value, form, *wide(one)) for bug, form in PENALTIES.items()}
                what = f"the penalty ({mode} mode)"
                known = known if one is case else {}
                wrapped.agrees(value, penalty(*wide(one)), known, what, dtype=None)
            for name, value, was in zip(LEARNED, after, one.values[2:], strict=True):
                same(value, was, f"{name} after orthogonality_penalty()")


FLOAT = "penalty-detached"


@part("forward")
def test_penalty_of_orthonormal_vectors(stage, draw):
    """The penalty is zero where the columns of P and the rows of Q are orthonormal."""
    case = SVD.case(draw, 1)
    case = having(case, P=draw.orthonormal(OUT, RANK), Q=draw.orthonormal(RANK, IN))
    for silent, got, *_ in stage(penalties, [case.layer], "train"):
        for value in (silent, got):
            near(value, 0.0, what="the penalty of orthonormal P and Q", dtype=None)


@part("forward")
def test_penalty_follows_its_parameters(stage, draw):
    """Each call of orthogonality_penalty() uses the values of the moment, and so do its
    gradients."""
    first, second = SVD.case(draw, 1), partly(SVD.case(draw, 1))
    told = second.layer, dict(first.learned), dict(second.learned), dict(first.learned)
    steps = list(zip(("load", "data", "replace", "set"), told, strict=True))
    for mode in MODES:
        seen = stage(penalties, [first.layer], mode, steps)
        for (silent, got, grads, _), case in zip(seen, (first, second) * 2 + (first,), strict=True):
            for value in (silent, got):
                what = f"the penalty of changed parameters ({mode} mode)"
                near(value, penalty(*wide(case)), what=what, dtype=None)
            penalty_gradients(grads, case, f"{mode} mode")


# forward: importance


def mean_score(P, gP, Q, gQ):
    return (P * gP).abs().mean(0) + (Q * gQ).abs().mean(1)


def score(Q, E, P, gQ, gE, gP):
    return (E * gE).abs() + mean_score(P, gP, Q, gQ)


SCORES = {
    "importance-no-abs": (
        lambda Q, E, P, gQ, gE, gP: E * gE + (P * gP).mean(0) + (Q * gQ).mean(1),
        lambda Q, E, P, gQ, gE, gP: (E * gE + (P * gP).mean(0) + (Q * gQ).mean(1)).abs(),
    ),
    "importance-abs-of-mean": lambda Q, E, P, gQ, gE, gP: (
        (E * gE).abs() + (P * gP).mean(0).abs() + (Q * gQ).mean(1).abs()
    ),
    "importance-summed": lambda Q, E, P, gQ, gE, gP: (
        (E * gE).abs() + (P * gP).abs().sum(0) + (Q * gQ).abs().sum(1)
    ),
    "importance-magnitude": (
        lambda Q, E, P, gQ, gE, gP: E.abs() + P.abs().mean(0) + Q.abs().mean(1),
        lambda Q, E, P, gQ, gE, gP: E.abs(),
    ),
}


def scored(kata, layers, mode, graph):
    """The scores of each layer with gradients set by hand, twice and with others; what is left."""
    seen = []
    for layer, *gradients in layers:
        layer = made(kata, *layer)
        getattr(layer, mode)()
        learned, scores = [need(layer, name) for name in ("lora_Q", "lora_E", "lora_P")], []
        flags = [p.requires_grad for p in learned]
        for given in (gradients[0], gradients[0], gradients[1]):
            for p, g in zip(learned, given):
                p.grad = g.clone()
            with torch.set_grad_enabled(graph):
                scores.append(kata.importance(layer))
                kept = torch.is_grad_enabled() == graph
        left = [p.detach() for p in learned], [p.grad for p in learned]
        seen.append((scores, *left, [p.requires_grad for p in learned] == flags and kept))
    return seen


def gradients_by_hand(draw, case):
    return [draw(*value.shape, dtype=value.dtype) for value in case.values[2:]]


@part("forward")
def test_importance(stage, draw):
    """importance(layer) is s(E_i) + mean_j s(P_ji) + mean_j s(Q_ij) with s(w) = |w * w.grad|, one
    value for each triplet; it uses the gradients of the moment."""
    case = SVD.case(draw, 1, rank=5)
    cases = [case, having(case, E=torch.zeros(5)), *sizes(draw)]
    told = [(c.layer, gradients_by_hand(draw, c), gradients_by_hand(draw, c)) for c in cases]
    for mode, graph in (("train", True), ("eval", False)):
        for one, (_, g, other), seen in zip(cases, told, stage(scored, told, mode, graph)):
            values, (first, again, later) = wide(one), seen[0]
            g, other = ([v.double() for v in of] for of in (g, other))
            want, names = score(*values, *g), {}
            if one is case:
                names = {bug: nearest(first, f, *values, *g) for bug, f in SCORES.items()}
            wrapped.agrees(first, want, names, f"the scores ({mode} mode)", dtype=None)
            near(again, want, what="the scores of a second call", dtype=None)
            near(later, score(*values, *other), what="the scores with other gradients", dtype=None)


@part("forward")
def test_importance_changes_nothing(stage, draw):
    """importance() changes neither values nor gradients."""
    case = SVD.case(draw, 1)
    hands = gradients_by_hand(draw, case), gradients_by_hand(draw, case)
    for mode, graph in (("train", True), ("eval", True), ("train", False)):
        for _, values, grads, same_flags in stage(scored, [(case.layer, *hands)], mode, graph):
            for name, value, was in zip(LEARNED, values, case.values[2:], strict=True):
                same(value, was, f"{name} after importance()")
            for name, grad, was in zip(LEARNED, grads, hands[1], strict=True):
                require(grad is not None, f"{name} has no gradient any more after importance()")
                same(grad, was, f"{name}.grad after importance()")
            require(same_flags, "importance() leaves requires_grad or grad mode other than it was")


def scores_after(kata, layer, x, g, backwards):
    layer = made(kata, *layer)
    for _ in range(backwards):
        (layer(x) * g).sum().backward()
    return kata.importance(layer=layer)


@part("forward")
def test_importance_after_a_backward(stage, draw):
    """After a backward pass the scores are those of its gradients."""
    case, what = SVD.case(draw, 4, 3), "the scores after a backward pass"
    for times in (1, 2):
        got = stage(scores_after, case.layer, case.x, case.g, times)
        grads = [times * g for g in case.gradients()[1:]]
        near(got, score(*wide(case), *grads), what=what, rtol=2e-4, dtype=None)


# forward: pruning


def pruned(kata, layers, scores, budget, graph):
    layers, scores = [made(kata, *one).train(graph) for one in layers], [s.clone() for s in scores]
    given = [*layers], [*scores]
    names = ("lora_Q", "lora_E", "lora_P")
    before = [need(layer, name) for layer in layers for name in names]
    flags = [p.requires_grad for p in before]
    with torch.set_grad_enabled(graph):
        count = kata.prune_to_budget(*given, budget)
        kept = torch.is_grad_enabled() == graph
    ids = [[id(one) for one in of] for of in (*given, layers, scores)]
    after = [need(layer, name) for layer in layers for name in names]
    return {
        "count": count,
        "E": [layer.lora_E.detach() for layer in layers],
        "itself": all(one is other for one, other in zip(before, after)),
        "lists": ids[:2] == ids[2:],
        "trains": [p.requires_grad and p.is_leaf for p in after] == flags,
        "scores": scores,
        "kept": kept,
        "others": [p.detach() for layer in layers for p in (layer.lora_Q, layer.lora_P)],
    }


RANKS = 3, 6, 1, 4


def several(draw, ranks=RANKS):
    return [SVD.case(draw, 2, rank=rank, out=5, into=7) for rank in ranks]


def drawn_scores(draw, ranks, order=None):
    """Distinct scores, far apart, those of the second layer the largest on the whole."""
    total = sum(ranks)
    order = torch.randperm(total, generator=draw.generator) if order is None else order
    return list((order.float() + 1).mul(0.37).split(list(ranks)))


def top(scores, n):
    """Which are the n highest of distinct scores."""
    kept = torch.zeros_like(scores, dtype=torch.bool)
    kept[scores.argsort(descending=True)[:n]] = True
    return kept


def per_layer(scores, sizes_):
    return torch.cat([top(s, n) for s, n in zip(scores, sizes_, strict=True)])


def prunes(stage, cases, scores, budget, named=False, graph=True, ties=False):
    """Which entries are kept, what they hold, and how many were dropped."""
    with blame("prune-needs-no-grad", "leaf Variable that requires grad"):
        got = stage(pruned, [case.layer for case in cases], scores, budget, graph)
    before, E = torch.cat([case.values[3] for case in cases]), got["E"]
    words = f"with a budget of {budget} for {len(before)} entries"
    require(got["lists"], f"the list of layers, or that of scores, is changed {words}")
    require(got["itself"], f"a parameter is another object than before {words}", REPLACED)
    flat, total = torch.cat(scores).double(), len(before)
    for value, case in zip(E, cases, strict=True):
        require(tensor(value, "lora_E").shape == case.values[3].shape, "lora_E has another shape")
    now = torch.cat(E)
    kept, n = now != 0, min(budget, total)
    cut = flat.sort(descending=True)[0][n - 1] if n else torch.inf
    right = int(kept.sum()) == n
    right = right and bool(kept[flat > cut].all()) and not bool(kept[flat < cut].any())
    if not right:
        known = slipped(cases, scores, budget, n) if named else {}
        if ties:
            # A tie of zeros alone tells nothing: padding may have been kept in their place.
            known = {"ties-all-pruned": [flat > cut], "ties-all-kept": [flat >= cut]}
            known = known if cut > 0 else {}
        bug = next((b for b, of in known.items() if any(torch.equal(k, kept) for k in of)), None)
        places = [[i for i, e in enumerate(e.tolist()) if e] for e in E]
        fail(f"{words} the entries kept are {places} of the layers, by scores {shown(scores)}", bug)
    same(now[kept], before[kept], f"an entry of lora_E that is kept, {words},")
    others = [v for case in cases for v in (case.values[2], case.values[4])]
    for value, was in zip(got["others"], others, strict=True):
        zeroed = not torch.equal(value, was) and bool(((value == was) | (value == 0)).all())
        text = "lora_P or lora_Q after pruning"
        same(value, was, text, "prune-zeroes-vectors" if zeroed else None)
    for value, was in zip(got["scores"], scores, strict=True):
        same(value, was, "scores after pruning")
    require(got["trains"], "lora_E, lora_P or lora_Q no longer trains after pruning")
    require(got["kept"], "prune_to_budget() leaves grad mode other than it was")
    counts(got["count"], total - n, n, words)


REPLACED = "prune-replaces-parameter"


def shown(scores):
    return [[round(v, 2) for v in s.tolist()] for s in scores]


def slipped(cases, scores, budget, n):
    """Which entries known mistakes keep."""
    flat, layers = torch.cat(scores), len(cases)
    ranks = [len(s) for s in scores]
    even = [budget // layers] * layers
    shares = [budget // layers + (k < budget % layers) for k in range(layers)]
    portions = [round(budget * rank / sum(ranks)) for rank in ranks]
    return {
        "prune-keeps-lowest": [top(-flat, n)],
        "budget-for-each-layer": [per_layer(scores, [budget] * layers)],
        "prune-layer-by-layer": [per_layer(scores, of) for of in (even, shares, portions)],
    }


def counts(count, dropped, kept, words):
    require(count is not None, "prune_to_budget() returns nothing")
    count = count.item() if isinstance(count, np.ndarray) and not count.ndim else count
    whole = isinstance(count, (int, float)) and count == int(count)
    text = f"prune_to_budget() returns {described(count)}, expected a whole number"
    require(whole, text)
    bug = "prune-returns-kept" if count == kept and dropped else None
    text = f"prune_to_budget() returns {count}, expected {dropped}, {words}"
    require(count == dropped, text, bug)


@part("forward")
def test_keeps_the_budget_over_all_layers(stage, draw):
    """prune_to_budget() keeps exactly the `budget` entries of lora_E with the highest scores over
    all layers together, sets the others to zero in place, and returns how many these were."""
    spread = torch.tensor([2, 7, 4, 10, 13, 6, 11, 9, 12, 3, 0, 8, 5, 1])
    cases, scores = several(draw), drawn_scores(draw, RANKS, spread)
    prunes(stage, cases, scores, 5, named=True)
    for factor in (1e-20, 1e-9, 1e9):
        prunes(stage, cases, [s * factor for s in scores], 5)
    prunes(stage, cases, [1 + s / 3700 for s in scores], 5)  # 0.0001 apart
    wide = [SVD.case(draw, 2, rank=rank, out=5, into=7, dtype=torch.float64) for rank in RANKS]
    prunes(stage, wide, [1 + s.double() * 1e-9 for s in scores], 5)
    for budget in (1, 6, 8, 13):
        cases = several(draw)
        prunes(stage, cases, drawn_scores(draw, RANKS), budget, graph=budget % 2 == 0)


@part("forward")
def test_any_number_of_layers(stage, draw):
    """One layer or many, of equal ranks or of different ones, of rank 1 too."""
    several_layers = ((4, 4), 5), ((1, 1, 1), 2), ((2, 8, 3), 9), ((1, 3, 2, 1, 2, 4, 1), 6)
    for ranks, budget in (((5,), 2), ((1,), 1), ((1,), 0), *several_layers):
        prunes(stage, several(draw, ranks), drawn_scores(draw, ranks), budget)


@part("forward")
def test_whole_budget(stage, draw):
    """A budget of all entries or more keeps them all, one of 0 none."""
    cases, scores = several(draw), drawn_scores(draw, RANKS)
    prunes(stage, cases, scores, 5)
    for graph in (True, False):
        for budget, bug in ((14, WHOLE), (15, WHOLE), (1000, WHOLE), (0, None)):
            with blame(bug):
                prunes_or(bug, stage, cases, scores, budget, graph)


WHOLE = "whole-budget-fails"


def prunes_or(bug, stage, cases, scores, budget, graph):
    """`prunes`, with this name where another number of entries is kept."""
    got = stage(pruned, [case.layer for case in cases], scores, budget, graph)
    kept, n = int((torch.cat(got["E"]) != 0).sum()), min(budget, 14)
    text = f"a budget of {budget} for 14 entries keeps {kept}"
    require(kept == n, text, bug)
    prunes(stage, cases, scores, budget, graph=graph)


@part("forward")
def test_ties_at_the_cut(stage, draw):
    """Among equal scores at the cut any may be kept, and exactly `budget` entries are, also where
    all scores are zero, as they are at the start."""
    levels = torch.tensor([1, 2, 1, 3, 2, 2, 3, 1, 2, 0, 0, 2, 3, 0]).float()
    for scores in (levels, levels * 0, levels * 0 + 0.3, levels.clamp(max=2)):
        for budget in (2, 5, 9, 12):
            prunes(stage, several(draw), list(scores.split(list(RANKS))), budget, ties=True)


def chain(kata, layers, gradients, budget):
    layers = [made(kata, *one) for one in layers]
    for layer, given in zip(layers, gradients):
        for name, g in zip(("lora_Q", "lora_E", "lora_P"), given):
            need(layer, name).grad = g.clone()
    count = kata.prune_to_budget(layers, [kata.importance(layer) for layer in layers], budget)
    return count, [layer.lora_E.detach() for layer in layers]


@part("forward")
def test_prunes_by_importance(stage, draw):
    """What importance() gives serves as scores."""
    cases = several(draw)
    while True:
        gradients = [gradients_by_hand(draw, case) for case in cases]
        scores = [score(*wide(c), *(g.double() for g in of)) for c, of in zip(cases, gradients)]
        flat = torch.cat(scores)
        ordered = flat.sort(descending=True)[0]
        if ordered[6] < 0.95 * ordered[5]:
            break
    count, E = stage(chain, [case.layer for case in cases], gradients, 6)
    kept = torch.cat([tensor(e, "lora_E") for e in E]) != 0
    require(torch.equal(kept, top(flat, 6)), "importance() and prune_to_budget() do not fit")
    counts(count, 8, 6, "after importance()")


# gradient


@part("gradient")
def test_gradients_of_the_triplets(stage, draw):
    """lora_P, lora_E and lora_Q get the exact gradients, in training and in eval mode."""
    cases = [
        SVD.case(draw, 2, 3),
        *sizes(draw),
        SVD.case(draw),
        SVD.case(draw, 2, 1, 3, bias=False),
    ]
    wrapped.learned_gradients(stage, cases, None)


@part("gradient")
def test_first_gradient(stage, draw):
    """At the start lora_E gets its gradient, though it is zero and the others get none but zero."""
    case = having(SVD.case(draw, 4), E=torch.zeros(RANK))
    wrapped.all_gradients(stage, [case])


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to the input, through the frozen base and the update."""
    wrapped.input_gradients(
        stage, [SVD.case(draw, 2, 3), SVD.case(draw), SVD.case(draw, 2, 1, 3, bias=False)]
    )


@part("gradient")
def test_gradients_follow_the_parameters(stage, draw):
    """Each gradient is that of the values that triplets and base have now."""
    for mode in MODES:
        wrapped.gradients_follow(walked(stage, draw, mode, 2, 3), mode)


@part("gradient")
def test_two_calls_in_one_graph(stage, draw):
    """A layer that is called twice before the backward pass gets the sum of both gradients."""
    case = SVD.case(draw, 4)
    wrapped.gradients_add_up(stage, case, case.at(draw, 4))


@part("gradient")
def test_gradient_of_the_penalty(stage, draw):
    """The penalty is differentiable: lora_P and lora_Q get its gradients, lora_E none but zero."""
    case = SVD.case(draw, 1)
    cases = [case, partly(case), *sizes(draw)]
    for mode in MODES:
        for case, (_, _, grads, _) in zip(cases, stage(penalties, [c.layer for c in cases], mode)):
            penalty_gradients(grads, case, f"{mode} mode")


def penalty_gradients(grads, case, how, **tolerance):
    leaves = [v.clone().requires_grad_() for v in wide(case)]
    wants = torch.autograd.grad(penalty(*leaves) * 0.5, leaves, materialize_grads=True)
    for name, got, want in zip(LEARNED, grads, wants, strict=True):
        none = got is None and name != "lora_E"
        require(not none, f"{name} gets no gradient from the penalty ({how})", FLOAT)
        if got is not None:
            what = f"the gradient of {name} from the penalty ({how})"
            near(got, want, what=what, dtype=case.dtype, **tolerance)


def trained_on(kata, layers, xs, gs, scores, budget, again):
    """Outputs and gradients of lora_E after pruning; then other values, and other scores."""
    layers = [made(kata, *one) for one in layers]
    for layer, x in zip(layers, xs):
        layer(x)
    kata.prune_to_budget(layers=layers, scores=[s.clone() for s in scores], budget=budget)
    seen = []
    for _ in range(2):
        for layer, x, g in zip(layers, xs, gs):
            layer.lora_E.grad = None
            y = layer(x)
            if y.requires_grad:
                (y * g).sum().backward()
            seen.append((layer.lora_E.detach().clone(), y, layer.lora_E.grad))
        for layer, value in zip(layers, again):
            with torch.no_grad():
                layer.lora_E.copy_(value)
    kata.prune_to_budget(layers, [-s + 9 for s in scores], budget)
    return seen, [layer.lora_E.detach() for layer in layers]


@part("gradient")
def test_pruned_entries_go_on_training(stage, draw):
    """After pruning all of lora_E gets its gradient, so that an entry can come back."""
    below = False
    while not below:  # a gradient without its sign shows on a kept entry below zero
        cases, scores = several(draw), drawn_scores(draw, RANKS)
        E = torch.cat([case.values[3] for case in cases])
        below = bool((E[top(torch.cat(scores), 6)] < 0).any())
    again = [case.values[3] for case in several(draw)]
    layers, xs, gs = [c.layer for c in cases], [c.x for c in cases], [c.g for c in cases]
    seen, last = stage(trained_on, layers, xs, gs, scores, 6, again)
    masks = all(
        wrapped.like(grad, torch.where(E == 0, 0.0, having(case, E=E).gradients()[2]))
        for case, (E, _, grad) in zip(cases, seen)
    )
    for number, (E, y, grad) in enumerate(seen):
        case = cases[number % len(cases)]
        what = "after pruning" if number < len(cases) else "after lora_E was written anew"
        if number >= len(cases):
            same(E, again[number % len(cases)], f"lora_E {what}", "pruned-stays-pruned")
        now = having(case, E=E)
        near(y, now.output(), what=f"the output {what}")
        require(grad is not None, f"lora_E gets no gradient {what}")
        want = now.gradients()[2]
        masked = {"pruned-stays-pruned": torch.where(E == 0, 0.0, want)} if masks else {}
        wrapped.agrees(grad, want, masked, f"the gradient of lora_E {what}")
    kept = torch.cat(last) != 0
    right = torch.equal(kept, top(-torch.cat(scores), 6))
    require(right, "a second pruning with other scores keeps other entries than the highest")


# state


@part("state")
def test_state_names(stage, draw):
    """lora_P, lora_E, lora_Q and the base's tensors are in the state dict under these names."""
    wrapped.state_names(stage, SVD.case(draw, 1), (*LEARNED, "base.weight", "base.bias"))


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs."""
    wrapped.state_round_trip(stage, draw, SVD)


# dtype and device


def right_in_dtype(stage, draw, dtype):
    for mode, lead, bias in (("train", (5,), True), ("eval", (2, 3), False), ("eval", (), True)):
        # A scale that is not exact in any dtype: one kept in a coarser dtype shows.
        case = SVD.case(draw, *lead, dtype=dtype, bias=bias, options={"alpha": 10.0})
        wrapped.learned_are(stage, case, "float32-triplets")
        wrapped.in_dtype(stage, case, mode)
        values, hands = wide(case), [gradients_by_hand(draw, case) for _ in range(2)]
        off = (
            {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 4e-2, "atol": 4e-2}
        )
        ((_, got, grads, _),) = stage(penalties, [case.layer], mode)
        rough = {} if dtype == torch.float64 else {"rtol": 0.15}
        penalty_gradients(grads, case, f"{str(dtype)[6:]}, {mode} mode", **rough)
        (((first, *_), *_),) = stage(scored, [(case.layer, *hands)], mode, True)
        wants = penalty(*values), score(*values, *(g.double() for g in hands[0]))
        for value, want, what in zip(
            (got, first), wants, ("the penalty", "the scores"), strict=True
        ):
            dtype_ = tensor(value, what).dtype
            near(value, want, what=f"{what} in {str(dtype)[6:]}", dtype=dtype_, **off)


@part("dtype")
def test_float64(stage, draw):
    """A float64 base gives float64 triplets and outputs, exact to 1e-9."""
    right_in_dtype(stage, draw, torch.float64)


@part("dtype")
def test_bfloat16(stage, draw):
    """A bfloat16 base gives bfloat16 triplets and outputs."""
    right_in_dtype(stage, draw, torch.bfloat16)


def cast(kata, layer, x):
    layer = made(kata, *layer).to(x.dtype)
    return layer(x), layer.orthogonality_penalty()


@part("dtype")
def test_after_a_cast(stage, draw):
    """A layer that was made in float32 works after .to(float64)."""
    case = SVD.case(draw, 5)
    y, got = stage(cast, case.layer, case.x.double())
    near(y, case.output(), what="the output after .to(float64)", dtype=torch.float64)
    near(got, penalty(*wide(case)), what="the penalty after .to(float64)", dtype=torch.float64)


def penalty_on_meta(kata):
    class Eyes(CheapMeta):  # torch's own eye() on meta first imports for a second
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            eyes, words = torch.ops.aten.eye, kwargs or {}
            if func in (eyes.out, eyes.m_out) and words["out"].device.type == "meta":
                return words["out"]
            if func in (eyes.default, eyes.m) and str(words.get("device")) == "meta":
                return torch.ops.aten.empty.memory_format((args[0], args[-1]), **words)
            return super().__torch_dispatch__(func, types, args, words)

    with Eyes():
        layer = kata.SVDLinear(nn.Linear(7, 5, device="meta"), 3)
        with torch.no_grad():
            layer(torch.empty(4, 7, device="meta"))
        return layer.orthogonality_penalty()


@part("device")
def test_meta_device(stage, draw):
    """A base on the meta device gives triplets, outputs and the penalty there."""
    wrapped.meta_device(stage, SVD.case(draw, 2, 5), bugs=("cpu-triplets", "float32-triplets"))
    got = stage(penalty_on_meta)
    require(tensor(got, "the penalty").device.type == "meta", "the penalty is not on meta")


# errors


def refused(kata, layers, scores, budget):
    layers = [made(kata, *one) for one in layers]
    kata.prune_to_budget(layers, scores, budget)


def left_by(kata, layers, scores, budget):
    layers = [made(kata, *one) for one in layers]
    try:
        kata.prune_to_budget(layers, scores, budget)
    except (ValueError, IndexError, RuntimeError) as error:
        del error
    return [layer.lora_E.detach() for layer in layers]


def leaves_all(stage, cases, scores, budget, what):
    told = [case.layer for case in cases]
    for value, case in zip(stage(left_by, told, scores, budget), cases, strict=True):
        same(value, case.values[3], f"lora_E after {what}", "changed-before-error")


@part("errors")
def test_negative_budget(stage, draw):
    """budget < 0 raises ValueError naming budget, before anything is changed."""
    cases, scores = several(draw), drawn_scores(draw, RANKS)
    for budget, n in ((-1, 4), (-3, 4), (-100, 4), (-1, 1)):
        told, given = [case.layer for case in cases[:n]], scores[:n]
        outcome = stage.attempt(refused, told, given, budget)
        rejects(outcome, "ValueError", "budget", what=f"budget={budget}", bug="budget-unchecked")
        leaves_all(stage, cases[:n], given, budget, f"budget={budget}")


@part("errors")
def test_lengths_that_differ(stage, draw):
    """len(layers) != len(scores) raises ValueError naming one of them, before anything is
    changed."""
    cases, scores = several(draw), drawn_scores(draw, RANKS)
    for layers, given in ((cases, scores[:-1]), (cases[:-1], scores), (cases, scores[:1])):
        for budget in (4, 100):
            told = [case.layer for case in layers]
            what = f"{len(layers)} layers with {len(given)} scores"
            outcome = stage.attempt(refused, told, given, budget)
            either = ("layers", "scores")
            rejects(outcome, "ValueError", either, what=what, bug="lengths-unchecked")
            leaves_all(stage, layers, given, budget, what)


# gpu


def all_on(kata, layers, hands, budget, device):
    layers = [made(kata, *one).to(device) for one in layers]
    for layer, given in zip(layers, hands):
        for name, g in zip(("lora_Q", "lora_E", "lora_P"), given):
            need(layer, name).grad = g.to(device)
    scores = [kata.importance(layer) for layer in layers]
    penalties = [layer.orthogonality_penalty() for layer in layers]
    places = sorted({t.device.type for t in (*scores, *penalties)})
    count = kata.prune_to_budget(layers, scores, budget)
    return scores, penalties, places, count, [layer.lora_E.detach() for layer in layers]


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs, gradients, penalty, scores and pruning on the accelerator are those of the CPU, and
    nothing stays behind."""
    wrapped.accelerator(stage, SVD.case(draw, 4, 5), bug="cpu-triplets")
    cases = several(draw)
    hands = [gradients_by_hand(draw, case) for case in cases]
    told = [case.layer for case in cases], hands, 6, stage.device
    scores, got, places, count, E = stage(all_on, *told)
    off = {"rtol": 1e-3, "atol": 1e-3}
    require(places == [stage.device], f"penalty and scores are on {', '.join(places)}")
    for case, given, s, p in zip(cases, hands, scores, got, strict=True):
        near(s, score(*wide(case), *(g.double() for g in given)), what="the scores", **off)
        near(p, penalty(*wide(case)), what="the penalty", **off)
    kept = sum(int((e != 0).sum()) for e in E)
    require((kept, count) == (6, 8), f"pruning to 6 of 14 keeps {kept} and returns {count}")
