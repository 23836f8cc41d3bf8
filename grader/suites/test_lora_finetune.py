"""What is checked of `lora_finetune`. Contract: AdamW (Loshchilov and Hutter 2019, algorithm 2).

The model is a toy in float64 that notes its parameters at each forward: the examiner walks the
same path with an AdamW of its own, and with each known mistake.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from grader.exam.checks import blame, near, part, require, same

F64 = torch.float64
LEARNED = ("lora_A", "lora_B", "head.weight", "head.bias")
LOSS = {"rtol": 1e-6, "atol": 1e-6}  # the mean of a list may be taken in float32
CLIPPED = {"rtol": 1e-5, "atol": 1e-6}  # with the 1e-6 of clip_grad_norm_, or without


# The model


def net(W, b, A, B, H, h, gain):
    """A frozen layer with LoRA and dropout, a head, and a `gain` that could train but is not
    asked to. Its dropout has draws of its own."""

    class Noise(nn.Module):
        def __init__(self):
            super().__init__()
            self.draws = torch.Generator().manual_seed(5)

        def forward(self, x):
            if not self.training:
                return x
            keep = torch.rand(x.shape, generator=self.draws, dtype=torch.float64) < 0.6
            return x * keep.to(x.device) / 0.6

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = nn.Linear(*W.T.shape)
            self.base.weight, self.base.bias = (nn.Parameter(v.clone(), False) for v in (W, b))
            self.lora_A, self.lora_B, self.gain = (nn.Parameter(v.clone()) for v in (A, B, gain))
            self.head = nn.Linear(*H.T.shape)
            self.head.weight, self.head.bias = nn.Parameter(H.clone()), nn.Parameter(h.clone())
            self.inner = nn.Sequential(nn.Sequential(Noise(), nn.Identity()), nn.Identity())
            self.second = nn.Sequential(self.inner[0][0])  # a parent of the noise too
            self.path, self.inputs, self.modes = [], [], []

        def forward(self, x):
            self.path.append(place(self))
            self.inputs.append(x.detach().clone())
            self.modes.append([module.training for module in self.modules()])
            hidden = self.base(x) + self.inner(x) @ self.lora_A.T @ self.lora_B.T
            return self.head(torch.tanh(hidden)) * self.gain

    return Net()


def learned(model):
    return [model.lora_A, model.lora_B, model.head.weight, model.head.bias]


def place(model):
    """The values of what is learned, in a row."""
    return torch.cat([p.detach().clone().flatten() for p in learned(model)])


def loss_fn(output, target):
    """Where the target is NaN there is nothing to learn."""
    off = nn.functional.softplus(output) - target
    return torch.where(target.isnan(), 0.0, off).square().mean()


# What is right, and what known mistakes do


@dataclass(frozen=True)
class Run:
    """One call: the model's values, the batches, and how they are used."""

    values: tuple[Tensor, ...]
    batches: tuple[tuple[Tensor, Tensor], ...]
    lr: float = 0.03
    weight_decay: float = 0.0
    accumulate: int = 1
    max_grad_norm: float | None = None

    @property
    def options(self):
        names = ("lr", "weight_decay", "accumulate", "max_grad_norm")
        return {name: getattr(self, name) for name in names}

    def groups(self, single=False):
        """The groups and their sizes; `single`: each batch by itself, with the size of its own."""
        starts = range(0, len(self.batches), self.accumulate)
        groups = [self.batches[i : i + self.accumulate] for i in starts]
        if single:
            return [((pair,), len(group)) for group in groups for pair in group]
        return [(group, len(group)) for group in groups]


def run(draw, batches=6, dtype=F64, **options):
    """Batches of several sizes, whose gradients differ in size by far."""
    shapes = ((5, 6), (5,), (2, 6), (5, 2), (3, 5), (3,), (3,))
    values = tuple(draw(*shape, std=0.7, dtype=dtype) for shape in shapes)
    sizes, strengths = (3, 6, 2, 4, 7, 1, 5), (6.0, 8.0, 0.1, 0.2, 8.0, 6.0, 0.1)
    pairs = [
        (draw(n, 6, dtype=dtype), 0.7 + k * draw(n, 3, dtype=dtype))
        for n, k in list(zip(sizes, strengths))[:batches]
    ]
    return Run(values, tuple(pairs), **options)


def clipping(run, spared=1):
    """The run with a limit that all of its steps but some exceed."""
    norms = sorted(follow(run)[2])
    between = (norms[spared - 1] * norms[spared]) ** 0.5
    return replace(run, max_grad_norm=min(between, 1.2 * norms[spared - 1]))


@lru_cache(64)
def follow(
    run,
    decay="decoupled",
    fresh=False,
    mean="own",
    clip="step",
    drop=False,
    kept=False,
    stale=0.0,
    asleep=False,
    single=False,
):
    """The path of what is learned, from forward to forward and to the end, the losses of each
    group, and the norms of its mean gradients."""
    model = net(*run.values).train(not asleep)
    params, losses, norms = learned(model), [], []
    state, t = [(torch.zeros_like(p), torch.zeros_like(p)) for p in params], 0
    total = [torch.full_like(p, stale) for p in [*params, model.gain]]
    for group, size in run.groups(single):
        if drop and len(group) < run.accumulate:
            for x, _ in group:
                model(x)
            break
        found = [loss_fn(model(x), y) for x, y in group]
        losses.append([float(loss.detach()) for loss in found])
        shares = {
            "own": [1 / len(group)] * len(group),
            "group": [1 / size] * len(group),
            "accumulate": [1 / run.accumulate] * len(group),
            "sum": [1.0] * len(group),
            "size": [len(x) / sum(len(x) for x, _ in group) for x, _ in group],
        }[mean]
        for loss, share in zip(found, shares):
            own = torch.autograd.grad(loss, [*params, model.gain])
            if clip == "each batch":
                own = clipped(own, run.max_grad_norm)
            total = [g + share * one for g, one in zip(total, own)]
            if clip == "each backward":
                total = clipped(total, run.max_grad_norm)
        if clip == "the sum":
            total = clipped([len(group) * g for g in total], run.max_grad_norm)
            total = [g / len(group) for g in total]
        norms.append(norm_of(total[:-1]))
        total = clipped(total, run.max_grad_norm, clip)
        t += 1
        if fresh:
            state, t = [(torch.zeros_like(p), torch.zeros_like(p)) for p in params], 1
        with torch.no_grad():
            for i, (p, g) in enumerate(zip(params, total)):
                if decay == "l2":
                    g = g + run.weight_decay * p
                elif decay == "decoupled" or (decay == "matrices" and p.ndim > 1):
                    p.mul_(1 - run.lr * run.weight_decay)
                m, v = state[i]
                m, v = state[i] = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
                m, v = m / (1 - 0.9**t), v / (1 - 0.999**t)
                p.sub_(run.lr * m / (v.sqrt() + 1e-8))
        total = [g * kept for g in total]
    return torch.stack([*model.path, place(model)]), losses, norms


def norm_of(gradients):
    return float(torch.cat([g.flatten() for g in gradients]).norm())


def clipped(gradients, limit, way="step"):
    """Gradients (that of `gain` last) after clipping."""
    if limit is None or way in ("none", "each batch", "each backward", "the sum"):
        return gradients
    norm = norm_of(gradients[: None if way == "all" else -1])
    if way == "value":
        return [g.clamp(-limit, limit) for g in gradients]
    if way == "each":
        return [g * (limit / g.norm()).clamp(max=1) for g in gradients]
    return [g * min(1.0, limit / norm) for g in gradients]


SLIPS = {  # by what follow() does otherwise, a mistake in several forms
    "decay-as-l2": [{"decay": "l2"}],
    "decay-on-matrices-only": [{"decay": "matrices"}],
    "optimizer-made-anew": [{"fresh": True}],
    "never-zeroed": [{"kept": True}],
    "stale-gradients": [{"stale": 3.0}],
    "eval-mode": [{"asleep": True}],
    "sum-not-mean": [{"mean": "sum"}],
    "short-group-by-accumulate": [{"mean": "accumulate"}],
    "weighted-by-size": [{"mean": "size"}],
    "last-group-dropped": [{"drop": True}],
    "step-per-batch": [{"single": True}, {"single": True, "mean": "group"}],
    "clip-missing": [{"clip": "none"}],
    "clip-per-batch": [{"clip": "each backward"}, {"clip": "each batch"}],
    "clip-before-mean": [{"clip": "the sum"}],
    "clip-per-parameter": [{"clip": "each"}],
    "clip-whole-model": [{"clip": "all"}],
}
STEPS = list(SLIPS)[:4]
GROUPS = ["sum-not-mean", "short-group-by-accumulate", "weighted-by-size", "last-group-dropped"]
CLIPS = list(SLIPS)[-5:]


def agrees(got, run, bugs, what, more=None, **tolerance):
    """The path that came is the right one. more: further mistakes, as runs."""

    def known():
        paths = {bug: [follow(run, **form)[0] for form in SLIPS[bug]] for bug in bugs}
        paths |= {bug: [follow(one)[0]] for bug, one in (more or {}).items()}
        return {bug: min(forms, key=lambda v: distance(got, v)) for bug, forms in paths.items()}

    near(got, follow(run)[0], what=what, dtype=run.values[0].dtype, unless=known, **tolerance)


def distance(got, want):
    if not isinstance(got, Tensor) or got.shape != want.shape:
        return float("inf")
    return float((got.double() - want.double()).abs().sum())


# On the stage


def lightly(call, *given, **options):
    """The call, in which torch.optim does not import torch's compiler: that takes it seconds, and
    it only asks it to look away."""
    import importlib
    import sys
    import types

    if "torch._dynamo" in sys.modules:
        return call(*given, **options)

    def load(name):
        if sys.modules["torch._dynamo"] is stand_in:
            del sys.modules["torch._dynamo"], torch._dynamo
        return getattr(importlib.import_module("torch._dynamo"), name)

    stand_in = types.ModuleType("torch._dynamo")
    stand_in.__getattr__ = load  # who asks for more gets the real one
    stand_in.graph_break = lambda *_, **__: None
    stand_in.disable = lambda fn=None, *_, **__: fn
    sys.modules["torch._dynamo"] = torch._dynamo = stand_in
    try:
        return call(*given, **options)
    finally:
        if sys.modules.get("torch._dynamo") is stand_in:
            del sys.modules["torch._dynamo"], torch._dynamo


def tuned(kata, values, batches, given, options, model=None):
    """What comes of one call. given: the options by position."""
    model = model or net(*values)
    objects, before = list(model.parameters()), [p.detach().clone() for p in model.parameters()]
    trains = [p.requires_grad for p in objects]
    losses = lightly(kata.finetune, model, learned(model), batches, loss_fn, *given, **options)
    names = [name for name, _ in model.named_parameters()]
    now = list(model.parameters())
    moved = [not torch.equal(p, was) for p, was in zip(now, before)]
    kinds = []
    for loss in losses if isinstance(losses, list) else []:
        kinds.append("float" if isinstance(loss, float) else type(loss).__name__)
    return {
        "path": torch.stack([*model.path, place(model)]),
        "inputs": model.inputs,
        "modes": model.modes,
        "kind": type(losses).__name__,
        "kinds": kinds,
        "losses": [float(loss) for loss in losses] if set(kinds) <= {"float", "Tensor"} else [],
        "other objects": [n for n, p, q in zip(names, objects, now) if p is not q],
        "moved": [n for n, other in zip(names, moved) if other],
        "turned": [n for n, p, was in zip(names, now, trains) if p.requires_grad != was],
        "left": [n for n, p in zip(names, now) if p.grad is not None and bool(p.grad.any())],
    }


def tune(stage, run):
    return stage(tuned, run.values, run.batches, [], run.options)


# forward


@part("forward")
def test_steps_of_adamw(stage, draw):
    """Each step is AdamW's: bias correction, decoupled decay on all of `params`, betas 0.9 and
    0.999, eps 1e-8, moments kept from step to step; dropout acts."""
    one = run(draw, weight_decay=0.2)
    got = tune(stage, one)["path"]
    unsaid = {
        "lr-ignored": replace(one, lr=1e-3),
        "decay-by-default": replace(one, weight_decay=0.01),
    }
    agrees(got, one, [*STEPS, "eval-mode"], "the path of the parameters", unsaid)


@part("forward")
def test_defaults_and_positions(stage, draw):
    """lr is 1e-3, weight_decay 0, accumulate 1 and there is no clipping where nothing is said; the
    four may be given by position."""
    plain = run(draw, lr=1e-3)
    got = stage(tuned, plain.values, plain.batches, [], {})["path"]
    decays = {"decay-by-default": replace(plain, weight_decay=0.01)}
    agrees(got, plain, [], "the path of the parameters with no option given", decays)
    full = clipping(run(draw, 7, weight_decay=0.2, accumulate=3))
    got = stage(tuned, full.values, full.batches, list(full.options.values()), {})["path"]
    agrees(got, full, [], "the path with all options by position", **CLIPPED)


@part("forward")
def test_batches_of_any_weight(stage, draw):
    """A batch that gives no loss and no gradient makes its step too, and is forgotten like any
    other; where max_grad_norm is None the largest gradient counts as it is; lr may be 0."""
    one = run(draw, weight_decay=0.2)
    (x, y), (u, v), (p, q), *rest = one.batches
    nothing, large = (torch.full_like(y, float("nan")), torch.full_like(q, float("nan"))), 300 * v
    light = replace(one, batches=((x, nothing[0]), (u, v), (p, nothing[1]), *rest))
    heavy = replace(one, batches=((x, y), (u, large), (p, q), *rest))
    for given, what in (
        (light, "where two batches give no gradient"),
        (heavy, "where one batch gives a large gradient"),
        (replace(light, lr=0.0), "with lr=0"),
    ):
        got = tune(stage, given)
        agrees(got["path"], given, [], f"the path {what}")
        wanted = torch.tensor([sum(group) for group in follow(given)[1]], dtype=F64)
        losses = torch.tensor(got["losses"], dtype=F64)
        near(losses, wanted, what=f"the losses {what}", dtype=F64, **LOSS)


def again(kata, values, batches, options, then):
    """The path of a second call on one model, with the draws of the first; and whether the list of
    the first is as it was."""
    model = net(*values)
    losses = lightly(kata.finetune, model, learned(model), batches, loss_fn, **options)
    were = losses[:] if isinstance(losses, list) else losses
    model.path.clear()
    model.inner[0][0].draws.manual_seed(5)
    lightly(kata.finetune, model, learned(model), batches, loss_fn, **then)
    return torch.stack([*model.path, place(model)]), losses == were


@part("forward")
def test_each_call_begins_anew(stage, draw):
    """Another call goes on from the values, with moments of its own, and finds nothing of the
    first that acts on its gradients; the losses of the first stay."""
    one = run(draw, 6, accumulate=2)
    W, b, *now, gain = one.values
    ends = follow(one)[0][-1].split([v.numel() for v in now])
    now = [end.view_as(v) for end, v in zip(ends, now)]
    then = clipping(replace(one, values=(W, b, *now, gain)))
    got, stays = stage(again, one.values, one.batches, one.options, then.options)
    agrees(got, then, [], "the path of a second call", **CLIPPED)
    require(stays, "a second call changes the list of losses that the first has returned")


@part("forward")
def test_accumulates(stage, draw):
    """One step for each `accumulate` batches, with the unweighted mean of their gradients; a last
    short group steps too, divided by its own size, also where it is the only one."""
    weighted = ["weighted-by-size"]
    for batches, size, bugs in ((7, 3, GROUPS), (4, 2, weighted), (2, 5, []), (6, 5, [])):
        one = run(draw, batches, accumulate=size)
        one = clipping(one, 2) if batches == 7 else one
        while batches == 7 and distance(follow(one, mean="sum")[0], follow(one)[0]) < 0.01:
            one = clipping(run(draw, batches, accumulate=size), 2)  # where the sum shows
        what = f"the path over {batches} batches with accumulate={size}"
        agrees(tune(stage, one)["path"], one, ["step-per-batch", *bugs], what, **CLIPPED)


@part("forward")
def test_clips(stage, draw):
    """The mean gradient is clipped once per step, to the global norm max_grad_norm over `params`;
    one that is smaller stays as it is."""
    one = clipping(run(draw, 7, accumulate=2))
    while distance(*(follow(one, clip=way)[0] for way in ("value", "none"))) < 0.1:
        one = clipping(run(draw, 7, accumulate=2))  # a single entry exceeds the limit somewhere
    what = "the path with max_grad_norm and accumulate=2"
    agrees(tune(stage, one)["path"], one, CLIPS, what, **CLIPPED)
    loose = replace(one, max_grad_norm=1e6, accumulate=1)
    agrees(tune(stage, loose)["path"], loose, [], "the path with max_grad_norm=1e6")


@part("forward")
def test_losses(stage, draw):
    """Returns a list: for each step the mean of its batches' losses before the step, as float."""
    for batches, size in ((7, 3), (6, 1)):
        one = run(draw, batches, accumulate=size, lr=0.1)
        got = tune(stage, one)
        require(got["kind"] == "list", f"finetune returns a {got['kind']}, expected a list")
        tensors = "Tensor" in got["kinds"]
        text = f"the losses are of type {', '.join(sorted(set(got['kinds'])))}, expected float"
        require(set(got["kinds"]) == {"float"}, text, "loss-as-tensor" if tensors else None)
        groups = follow(one)[1]

        def listed(what, groups=groups):
            return torch.tensor([what(group) for group in groups], dtype=F64)

        slips = {
            "losses-summed": listed(sum),
            "loss-of-the-last": listed(lambda group: group[-1]),
            "short-group-by-accumulate": listed(lambda group, n=size: sum(group) / n),
            "loss-per-batch": torch.tensor([v for group in groups for v in group], dtype=F64),
        }
        near(
            torch.tensor(got["losses"], dtype=F64),
            listed(lambda group: sum(group) / len(group)),
            what=f"the losses over {batches} batches with accumulate={size}",
            dtype=F64,
            **LOSS,
            unless=slips if size > 1 else {},
        )


def drawn(kata, values, batches):
    """The path where dropout takes its draws from torch's own generator, and the next of them."""
    model = net(*values)
    model.inner[0][0].draws = None
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        lightly(kata.finetune, model, learned(model), batches, loss_fn)
        return torch.stack([*model.path, place(model)]), torch.rand(4)


@part("forward")
def test_each_batch_runs_once(stage, draw):
    """Each batch runs forward once, in order, so that dropout draws the same numbers; nothing else
    draws from torch's generator, or sets it."""
    one = run(draw, 7, accumulate=3)
    inputs = tune(stage, one)["inputs"]
    times = f"{len(one.batches)} batches ran forward {len(inputs)} times"
    known = "forward-twice" if len(inputs) > len(one.batches) else None
    require(len(inputs) == len(one.batches), times, known)
    for i, (got, (x, _)) in enumerate(zip(inputs, one.batches)):
        same(got, x, f"the input of forward {i + 1}, which should be that of batch {i + 1},")
    path, after = stage(drawn, one.values, one.batches)
    plain, draws = replace(one, lr=1e-3, accumulate=1), torch.Generator().manual_seed(5)
    agrees(path, plain, [], "the path where dropout draws from torch's generator")
    for x, _ in one.batches:
        torch.rand(x.shape, generator=draws, dtype=F64)
    text = "finetune itself draws from torch's generator, or sets it"
    require(torch.equal(after, torch.rand(4, generator=draws)), text)


def in_modes(kata, values, batches, marks):
    """The modes of all modules, which were as marked: at each forward, and afterwards."""
    model = net(*values)
    modules = list(model.modules())
    for module, mark in zip(modules, marks):
        module.training = mark
    lightly(kata.finetune, model, learned(model), batches, loss_fn)
    return model.modes, [module.training for module in modules]


MARKS = (  # of the model's nine modules, root first; the last is a parent of the sixth
    [False] * 9,
    [True] * 9,
    [True, True, True, False, True, False, True, False, True],
    [False, False, True, True, False, True, True, True, False],
)


@part("forward")
def test_train_mode_and_back(stage, draw):
    """The model runs in train mode throughout; afterwards each module is in the mode it was in,
    whatever the others are in (one with two parents too), also where there are no batches."""
    one = run(draw, 3)
    for batches in (one.batches, ()):
        for marks in MARKS:
            during, after = stage(in_modes, one.values, batches, marks)
            asleep = bool(during) and all(modes == marks for modes in during)
            known = "eval-mode" if asleep or not any(map(any, during)) else None
            require(all(map(all, during)), "a forward ran with modules in eval mode", known)
            slip = "mode-not-restored" if len(set(marks)) == 1 else "mode-restored-at-root"
            alike = after == [marks[0]] * 9 or slip == "mode-not-restored"
            known = slip if alike and len(set(after)) == 1 else None
            require(after == marks, f"modes were {marks}, afterwards they are {after}", known)


@part("forward")
def test_input_unchanged(stage, draw):
    """Batches and `params` are not changed in place, their lists neither, and the parameters stay
    the same objects."""
    one = run(draw, 3)
    got, listed = stage(kept, one.values, one.batches)
    count = f"the list of 3 batches holds {len(got)} afterwards"
    require(len(got) == len(one.batches), count)
    require(listed, "the list `params` holds other parameters afterwards, or in another order")
    for (x, y), (was_x, was_y) in zip(got, one.batches):
        same(x, was_x, "an x of the batches")
        same(y, was_y, "a y of the batches")
    others = tune(stage, one)["other objects"]
    require(not others, f"these are other Parameter objects now: {', '.join(others)}")


def kept(kata, values, batches):
    batches = [(x.clone(), y.clone()) for x, y in batches]
    model = net(*values)
    params = learned(model)
    lightly(kata.finetune, model, params, batches, loss_fn, accumulate=2, max_grad_norm=0.5)
    return batches, list(map(id, params)) == list(map(id, learned(model)))


# shape


def from_iterables(kata, values, batches, options, way):
    """The path of the parameters where batches or parameters come in another kind of iterable."""

    class Stream:  # one pass is all that there is
        left = iter(batches)

        def __iter__(self):
            return self.left

    class Loader:  # as a DataLoader has it
        def __iter__(self):
            return iter(batches)

        def __len__(self):
            return len(batches)

    model = net(*values)
    kinds = {
        "a generator": lambda: (pair for pair in batches),
        "an iterator": lambda: iter(batches),
        "an object with __iter__ alone": Stream,
        "an object with __iter__ and __len__": Loader,
        "a list of lists": lambda: [list(pair) for pair in batches],
    }
    params = learned(model)
    named = {
        "a generator": lambda: (p for p in params),
        "an iterator": lambda: iter(params),
        "a dict's values": dict(enumerate(params)).values,
        "a tuple": lambda: tuple(params),
    }
    what, kind = way
    given = (params, kinds[kind]()) if what == "batches" else (named[kind](), batches)
    lightly(kata.finetune, model, *given, loss_fn, **options)
    return torch.stack([*model.path, place(model)])


def asked(kata, values, batches, options):
    """The path of a model whose output is a dict, and how often its hooks ran."""

    class Asking(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net(*values)

        def forward(self, x):
            return {"logits": self.net(x)}

    def loss(output, y):
        return loss_fn(output["logits"], y)

    asking, ran = Asking(), []
    asking.register_forward_hook(lambda *_: ran.append(1))
    lightly(kata.finetune, asking, learned(asking.net), batches, loss, **options)
    return torch.stack([*asking.net.path, place(asking.net)]), len(ran)


@part("shape")
def test_batches_of_any_iterable(stage, draw):
    """`batches` may be any iterable of pairs, gone through once: a generator, an iterator, an
    object without len(), or with it and no indices, as a DataLoader; without any batch the losses
    are []. loss_fn gets what model(x) gives, of whatever kind, and the model's hooks run."""
    one = clipping(run(draw, 5, accumulate=2))
    agrees(tune(stage, one)["path"], one, [], "the path with a list of batches", **CLIPPED)
    alone, counted = "an object with __iter__ alone", "an object with __iter__ and __len__"
    for kind in ("a list of lists", counted, alone, "an iterator", "a generator"):
        with blame("batches-counted", "has no len()", "not subscriptable"):
            got = stage(from_iterables, one.values, one.batches, one.options, ("batches", kind))
        lost = isinstance(got, Tensor) and len(got) < len(one.batches) + 1
        what = f"the path with {kind} of batches"
        require(not lost, f"{what}: only {len(got) - 1} ran", "batches-counted" if lost else None)
        agrees(got, one, [], what, **CLIPPED)
    got, hooked = stage(asked, one.values, one.batches, one.options)
    agrees(got, one, [], "the path where the model gives a dict", **CLIPPED)
    times = f"a hook of the model ran {hooked} times in {len(one.batches)} calls of model(x)"
    require(hooked == len(one.batches), times)
    got = stage(tuned, one.values, [], [], {"accumulate": 2, "max_grad_norm": 1.0})
    require(got["kind"] == "list", f"without batches it returns a {got['kind']}, expected []")
    require(not got["kinds"], "without batches the losses should be []")
    require(not got["moved"], f"without batches these have changed: {', '.join(got['moved'])}")


@part("shape")
def test_params_of_any_iterable(stage, draw):
    """`params` may be any iterable of parameters: a tuple, a generator, a dict's values."""
    one = clipping(run(draw, 5, accumulate=2))
    agrees(tune(stage, one)["path"], one, [], "the path with a list of parameters", **CLIPPED)
    for kind in ("a tuple", "a dict's values", "an iterator", "a generator"):
        with blame("params-used-up", "empty parameter list", "has no len()"):
            got = stage(from_iterables, one.values, one.batches, one.options, ("params", kind))
        used = isinstance(got, Tensor) and any(
            distance(got, path) < 1e-6
            for path in (
                follow(replace(one, max_grad_norm=None))[0],
                follow(one)[0][:1].expand(6, -1),
            )
        )
        want, what = follow(one)[0], f"the path with {kind} of parameters"
        near(got, want, what=what, dtype=F64, bug="params-used-up" if used else None, **CLIPPED)


# freeze


@part("freeze")
def test_others_stay(stage, draw):
    """Every parameter that is not in `params` stays bit-identical, such as require a gradient
    too."""
    one = run(draw, weight_decay=0.2, accumulate=2)
    moved = set(tune(stage, one)["moved"])
    others = sorted(moved - set(LEARNED))
    known = "trains-all" if others == ["gain"] or len(others) == 3 else None
    require(not others, f"these are not among params and have changed: {', '.join(others)}", known)


@part("freeze")
def test_requires_grad_stays(stage, draw):
    """Every requires_grad is as it was."""
    turned = tune(stage, run(draw))["turned"]
    text = f"requires_grad has changed: {', '.join(turned)}"
    require(not turned, text, "requires-grad-changed")


# gradient


def stale(kata, values, batches, options, level):
    model = net(*values)
    for p in model.parameters():
        p.grad = torch.full_like(p, level)
    lightly(kata.finetune, model, learned(model), batches, loss_fn, **options)
    left = [n for n, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())]
    return torch.stack([*model.path, place(model)]), left


@part("gradient")
def test_earlier_gradients_do_not_count(stage, draw):
    """Gradients present before the call count for nothing, whatever parameter they are of."""
    for limit in (None, 0.4):
        one = run(draw, 5, max_grad_norm=limit)
        got, _ = stage(stale, one.values, one.batches, one.options, 3.0)
        what = "the path where each .grad was 3 before the call"
        tolerance = CLIPPED if limit else {}
        agrees(got, one, ["stale-gradients"], what, **tolerance)


@part("gradient")
def test_no_gradients_are_left(stage, draw):
    """Afterwards every .grad in the model is None or zero, of parameters that are not in `params`
    too, also where there were no batches."""
    for one in (run(draw), run(draw, 5, accumulate=2), run(draw, 0)):
        left = tune(stage, one)["left"]
        require(not left, f"gradients are left: {', '.join(left)}", "gradients-left")
        _, left = stage(stale, one.values, one.batches, one.options, 3.0)
        text = f"gradients that were there before are left: {', '.join(left)}"
        require(not left, text, "gradients-left")


# dtype


@part("dtype")
def test_float32(stage, draw):
    """A float32 model is trained in float32."""
    one = run(draw, 5, torch.float32, weight_decay=0.2, accumulate=2)
    wide = replace(
        one,
        values=tuple(v.double() for v in one.values),
        batches=tuple((x.double(), y.double()) for x, y in one.batches),
    )
    got = tune(stage, one)["path"]
    near(got, follow(wide)[0], what="the path of a float32 model", rtol=1e-3, atol=1e-3)


# gpu


def on_device(kata, values, batches, options, device):
    model = net(*values).to(device)
    batches = [(x.to(device), y.to(device)) for x, y in batches]
    losses = lightly(kata.finetune, model, learned(model), batches, loss_fn, **options)
    return torch.stack([*model.path, place(model)]).cpu(), losses


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """The path and the losses on the accelerator are those of the CPU."""
    one = run(draw, 5, weight_decay=0.2, accumulate=2, max_grad_norm=0.5)
    got, losses = stage(on_device, one.values, one.batches, one.options, stage.device)
    path, groups, _ = follow(one)
    near(got, path, what="the path", dtype=F64, rtol=1e-3, atol=1e-3)
    want = torch.tensor([sum(group) / len(group) for group in groups], dtype=F64)
    near(torch.tensor(losses, dtype=F64), want, what="the losses", dtype=F64, rtol=1e-3, atol=1e-3)
