"""What is checked of `numpy_two_tasks`. Contract: LoRA (Hu et al. 2021), section 4.1."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from grader.exam.checks import blame, close, fail, part, require
from grader.exam.kit import need
from grader.suites.shared.arrays import F64, array, equals, numpy_only, sent, written

LR = 0.1
LOSS = {"rtol": 0, "atol": 5e-6}  # a logarithm may be kept from 0 in its own way
LAYERS = ("W1", "b1", "W2", "b2")


@dataclass(frozen=True)
class Case:
    """A network, an adapter and a head, with a batch; what they give by the definition."""

    W1: Tensor
    b1: Tensor
    W2: Tensor
    b2: Tensor
    A: Tensor
    B: Tensor
    W: Tensor
    b: Tensor
    X: Tensor
    y: Tensor
    alpha: float = 4.5

    @property
    def network(self):
        return self.W1, self.b1, self.W2, self.b2

    @property
    def learned(self):
        return self.A, self.B, self.W, self.b

    @property
    def task(self):
        return self.A, self.B, self.alpha, self.W, self.b

    @property
    def scale(self):
        return self.alpha / len(self.A)

    @property
    def update(self):
        """As W2 has it: (hidden, out)."""
        return self.scale * (self.B @ self.A).T

    def with_(self, learned):
        return replace(self, **dict(zip(("A", "B", "W", "b"), learned)))

    def hidden(self):
        return (self.X @ self.W1 + self.b1).relu()

    def out(self):
        return self.hidden() @ (self.W2 + self.update) + self.b2

    def loss(self):
        """The mean cross-entropy, of the logits."""
        return F.binary_cross_entropy_with_logits(self.out() @ self.W + self.b, self.y)

    def gradients(self):
        """Of the mean cross-entropy, to A, B, W and b, by autograd."""
        leaves = [t.clone().requires_grad_() for t in self.learned]
        return torch.autograd.grad(self.with_(leaves).loss(), leaves)

    def moved(self, gradients, lr=LR):
        return tuple(t - lr * g for t, g in zip(self.learned, gradients))

    def trained(self, epochs, lr=LR):
        """The losses before each epoch, and what is learned after the last."""
        now, losses = self, []
        for _ in range(epochs):
            losses.append(now.loss())
            now = now.with_(now.moved(now.gradients(), lr))
        return losses, now

    def by_hand(self, hidden=None, low=None, error=None, W=None, out=None):
        """The gradients again, written out, with any of what they are made of replaced."""
        hidden = self.hidden() if hidden is None else hidden
        low = hidden if low is None else low  # what the adapter gets
        made = hidden @ self.W2 + self.b2 + self.scale * low @ self.A.T @ self.B.T
        out = made if out is None else out
        if error is None:
            error = (torch.sigmoid(made @ self.W + self.b) - self.y) / len(self.y)
        back = self.scale * error[:, None] * (self.W if W is None else W)
        return (back @ self.B).T @ low, back.T @ (low @ self.A.T), out.T @ error, error.sum()[None]

    def sure(self, size, right):
        """The third of the samples with the largest logits, made as large as this, and on the
        right side or the wrong one."""
        logits = self.out() @ self.W + self.b
        far = logits.abs().topk(len(logits) // 3).indices
        k, y = size / logits.abs().max(), ((logits[far] > 0) == right).double()
        return replace(self, X=self.X[far], y=y, W=k * self.W, b=k * self.b)

    def slips(self):
        """What one epoch makes of A, B, W and b by known mistakes, each with its forms."""
        n, right = len(self.y), self.gradients()
        after = self.with_(self.moved(right))
        error = (torch.sigmoid(self.out() @ self.W + self.b) - self.y) / n
        new_head = self.with_((self.A, self.B, after.W, after.b))
        new_lora = self.with_((after.A, after.B, self.W, self.b))
        raw = self.X @ self.W1 + self.b1
        ones = {
            "lora-mean-twice": (1 / n, 1 / n, 1, 1),
            "lora-mean-missing": (n, n, 1, 1),
            "mean-missing": (n,) * 4,
            "lora-not-trained": (0, 0, 1, 1),
            "head-not-trained": (1, 1, 0, 0),
            "bias-not-trained": (1, 1, 1, 0),
        }
        forms = [(bug, [k * g for k, g in zip(ks, right)]) for bug, ks in ones.items()]
        dA, dB, dW, db = right
        forms += [
            ("head-updated-first", [*self.by_hand(W=after.W)[:2], dW, db]),
            ("head-updated-first", [*new_head.gradients()[:2], dW, db]),
            ("lora-updated-first", [dA, dB, *new_lora.gradients()[2:]]),
            ("lora-updated-first", [dA, dB, *self.by_hand(error=error, out=new_lora.out())[2:]]),
            ("head-weight-left-out", [*self.by_hand(W=torch.ones_like(self.W))[:2], dW, db]),
            ("relu-forgotten", self.by_hand(hidden=raw)),
            ("relu-forgotten", self.by_hand(low=raw)),
            ("relu-forgotten", self.by_hand(low=raw, error=error, out=self.out())),
        ]
        again = replace(self, B=torch.zeros_like(self.B))
        begun = ("starts-over", again.moved(again.gradients()))
        return [begun, *((bug, self.moved(gradients)) for bug, gradients in forms)]


def case(draw, d=6, hidden=9, out=5, r=3, n=12, alpha=4.5):
    def some(*shape, std=1.0):
        return draw(*shape, std=std, dtype=F64)

    y = (torch.arange(n) % 3 == 0).double()[torch.argsort(draw(n))]
    network = some(d, hidden, std=0.5), some(hidden, std=0.3), some(hidden, out, std=0.3)
    factors = some(r, hidden, std=0.3), some(out, r, std=0.4)
    head = some(out, std=0.5), some(1, std=0.3)
    return Case(*network, some(out, std=0.3), *factors, *head, some(n, d), y, alpha)


# On the stage


def own(*values):
    """Arrays with memory of their own, which may be made read-only and writable again."""
    import numpy as np

    return [np.array(v.numpy()) for v in values]


def network_of(kata, values):
    return need(kata, "Frozen")(*own(*values))


def adapter(kata, A, B, alpha):
    lora = need(kata, "LoRA")(A.shape[1], B.shape[0], A.shape[0], alpha)
    written(lora, A=A, B=B)
    return lora


def task_of(kata, A, B, alpha, W, b):
    head = need(kata, "Head")(len(W))
    written(head, W=W, b=b)
    return adapter(kata, A, B, alpha), head


def learned(lora, head):
    return sent(lora.A), sent(lora.B), sent(head.W), sent(head.b)


def layers(frozen):
    return [sent(need(frozen, name)) for name in LAYERS]


def plainly(losses):
    """Losses as they are; what is no list, or holds no floats, by its kind."""
    if not isinstance(losses, list):
        return type(losses).__name__
    return [float(v) if isinstance(v, float) else None for v in losses]


def training(kata, network, task, X, y, epochs, lr):
    """One call for each number of epochs: losses, and what was learned."""
    frozen, (X, y) = network_of(kata, network), own(X, y)
    (lora, head), seen = task_of(kata, *task), []
    for count in epochs:
        losses = kata.train_task(X, y, frozen, lora, head, count, lr)
        seen.append((plainly(losses), learned(lora, head)))
    return seen


# Judging


def trained(case, got, start=None, what=""):
    """A, B, W and b are right. A mistake is told from all four together. start: the case before
    a single epoch, whose mistakes are known."""
    named = None
    if start is not None and all(isinstance(v, Tensor) for v in got):
        found = {
            bug
            for bug, form in start.slips()
            if all(close(v, w, 1e-9, 1e-9) for v, w in zip(got, form))
        }
        named = found.pop() if len(found) == 1 else None
    names = ("lora.A", "lora.B", "head.W", "head.b")
    for name, value, want in zip(names, got, case.learned):
        equals(value, want, f"{name}{what}", bug=named)


def listed(losses, count):
    """The losses, if they are a list of as many numbers."""
    if isinstance(losses, str):
        bug = "losses-not-returned" if losses == "NoneType" else "losses-not-a-list"
        fail(f"train_task() returns an object of type {losses}, expected a list of floats", bug)
    require(all(v is not None for v in losses), "The list of losses holds what is no float")
    text = f"train_task() returns {len(losses)} losses for {count} epochs"
    require(len(losses) == count, text, "losses-of-other-epochs")
    return torch.tensor(losses, dtype=F64)


# init


def begun(kata):
    import numpy as np

    X, y, *layers = (np.ones(shape) for shape in ((1, 1), 1, (1, 1), 1, (1, 1), 1))
    kata.train_task(X, y, kata.Frozen(*layers), kata.LoRA(1, 1, 1), kata.Head(1), 0, 0.1)


@part("init")
def test_numpy_and_the_standard_library_only(stage):
    """The file imports nothing beyond NumPy and the standard library, inside functions neither."""
    numpy_only(stage, begun)


# shape


SIZES = ((6, 9, 5, 3, 1), (1, 1, 1, 1, 4), (4, 4, 4, 4, 4), (3, 2, 5, 7, 6), (4, 3, 2, 2, 300))


@part("shape")
def test_any_sizes(stage, draw):
    """One sample or many, one feature, one hidden or output unit, rank 1 and equal sizes train and
    merge like any other."""
    for d, hidden, out, r, n in SIZES:
        start = case(draw, d, hidden, out, r, n)
        ((_, got),) = stage(training, start.network, start.task, start.X, start.y, (1,), 5.0)
        sizes = f"d={d}, hidden={hidden}, out={out}, r={r}, N={n}"
        trained(start.trained(1, 5.0)[1], got, None, f" after an epoch at {sizes}")
        W2 = _layers(stage(merging, start.network, start.task[:3]), "merge()")[2]
        equals(W2, start.W2 + start.update, f"W2 after merge() at {sizes}")


# gradient


@part("gradient")
def test_one_epoch(stage, draw):
    """An epoch moves lora.A, lora.B, head.W and head.b by -lr times the gradient of the mean
    cross-entropy, all taken at one point."""
    for alpha in (4.5, 1.2):
        start = case(draw, alpha=alpha)
        ((_, got),) = stage(training, start.network, start.task, start.X, start.y, (1,), LR)
        trained(start.trained(1)[1], got, start, " after an epoch")


@part("gradient")
def test_many_epochs(stage, draw):
    """Each epoch starts where the last one has led."""
    start = case(draw)
    ((losses, got),) = stage(training, start.network, start.task, start.X, start.y, (6,), LR)
    _, end = start.trained(6)
    first = start.gradients()
    # All steps along the first gradient.
    old = all(
        isinstance(v, Tensor) and close(v, w, 1e-9, 1e-9)
        for v, w in zip(got, start.moved(first, 6 * LR))
    )
    same = isinstance(losses, list) and len(losses) == 6 and len({*losses, None}) == 2
    for name, value, want in zip(("lora.A", "lora.B", "head.W", "head.b"), got, end.learned):
        bug = "forward-once" if old or same else None
        equals(value, want, f"{name} after 6 epochs", bug=bug)


def judged(start, epochs, lr, losses, got, what, loose=False):
    """Losses and what was learned are right; loose: a logarithm may blur what comes out."""
    want, end = start.trained(epochs, lr)
    losses, tight = listed(losses, epochs), {"rtol": 1e-6, "atol": 1e-6} if loose else {}
    if not loose:
        equals(losses, torch.stack(want), f"the losses{what}", **LOSS)
    for name, value, right in zip(("lora.A", "lora.B", "head.W", "head.b"), got, end.learned):
        equals(value, right, f"{name}{what}", **tight)


@part("gradient")
def test_any_scale_and_rate(stage, draw):
    """alpha may be 0 or negative, and lr any number: every epoch is one step and has its loss."""
    for alpha, lr, n in (
        (0.0, LR, 3),
        (-4.5, LR, 3),
        (4.5, 0.0, 3),
        (4.5, -0.02, 3),
        (4.5, 2.5, 1),
    ):
        start = case(draw, alpha=alpha)
        ((losses, got),) = stage(training, start.network, start.task, start.X, start.y, (n,), lr)
        listed(losses, n)  # no more: where training climbs, a logarithm kept from 0 shows
        what = f" after {n} epochs at alpha={alpha}, lr={lr}"
        trained(start.trained(n, lr)[1], got, None, what)


@part("gradient")
def test_sure_predictions(stage, draw):
    """Training goes on where every prediction is right, or sure, or both; losses stay numbers."""
    for size, right in ((2.0, True), (30.0, True), (60.0, True), (25.0, False)):
        start = case(draw, n=36).sure(size, right)
        ((losses, got),) = stage(training, start.network, start.task, start.X, start.y, (2,), LR)
        what = f" where predictions are {'right' if right else 'wrong'}, with logits up to {size}"
        if size == 60:
            want = torch.stack(start.trained(2, LR)[0])  # next to nothing, not always 0
            equals(listed(losses, 2), want, f"the losses{what}", **LOSS)
        judged(start, 2, LR, losses, got, what, loose=size not in (2, 30))


def going_on(kata, networks, moments, task, lr):
    """A call for each moment: one of the networks, X and y written over, and epochs."""
    frozen, (X, y) = [network_of(kata, layers) for layers in networks], own(*moments[0][1:3])
    (lora, head), seen = task_of(kata, *task), []
    for which, *data, epochs in moments:
        X[...], y[...] = (v.numpy() for v in data)
        losses = kata.train_task(X, y, frozen[which], lora, head, epochs, lr)
        seen.append((plainly(losses), learned(lora, head)))
    return seen


@part("gradient")
def test_training_goes_on(stage, draw):
    """A second call goes on from where lora and head are, on what it gets; without epochs nothing
    moves."""
    now, other = case(draw), case(draw)
    networks, one, two = (now.network, other.network), (now.X, now.y), (other.X, other.y)
    moments = [(0, *one, 2), (0, *one, 0), (0, *one, 3), (1, *one, 2), (1, *two, 1)]
    seen = stage(going_on, networks, moments, now.task, LR)
    for number, ((which, X, y, epochs), (losses, got)) in enumerate(zip(moments, seen), 1):
        what = f" after call {number}, of {epochs} epochs,"
        now = replace(now, X=X, y=y, **dict(zip(LAYERS, networks[which])))
        want, now = now.trained(epochs)
        trained(now, got, None, what)
        if epochs:
            equals(listed(losses, epochs), torch.stack(want), f"the losses{what}", **LOSS)


def fresh(kata, network, X, y, epochs, lr):
    import numpy as np

    frozen, (X, y), (hidden, out) = network_of(kata, network), own(X, y), network[2].shape
    lora = kata.LoRA(hidden, out, 2, rng=np.random.default_rng(3))
    head = kata.Head(out, np.random.default_rng(4))
    before = learned(lora, head)
    losses = kata.train_task(X=X, y=y, frozen=frozen, lora=lora, head=head, epochs=epochs, lr=lr)
    return before, plainly(losses), learned(lora, head)


@part("gradient")
def test_from_the_start(stage, draw):
    """A new adapter and a new head learn as well, with arguments by keyword."""
    start = case(draw, r=2, alpha=2.0)
    before, losses, got = stage(fresh, start.network, start.X, start.y, 110, LR)
    start = start.with_([array(v, "what LoRA and Head start with") for v in before])
    require(not start.B.any(), "B of a new LoRA is not zero")
    want, end = start.trained(110)
    equals(listed(losses, 110), torch.stack(want), "the losses of 110 epochs", rtol=0, atol=4e-7)
    for name, value, right in zip(("lora.A", "lora.B", "head.W", "head.b"), got, end.learned):
        equals(value, right, f"{name} after 110 epochs", rtol=1e-7, atol=1e-8)


# forward


@part("forward")
def test_losses(stage, draw):
    """train_task() returns the mean cross-entropy before each epoch's update, as a list of floats;
    [] for no epochs."""
    start, n = case(draw), 5
    ((losses, _), (none, _)) = stage(
        training, start.network, start.task, start.X, start.y, (n, 0), LR
    )
    want, end = start.trained(n)
    size, right = len(start.y), torch.stack(want)
    known = {
        "loss-after-the-update": torch.stack([*want[1:], end.loss()]),
        "loss-is-a-sum": right * size,
    }
    equals(listed(losses, n), right, f"the losses of {n} epochs", unless=known, **LOSS)
    listed(none, 0)


# freeze


def kept(kata, network, task, X, y, epochs, lr, fixed):
    """What training does to what it is given, arrays of which some are read-only."""
    frozen, (X, y) = network_of(kata, network), own(X, y)
    lora, head = task_of(kata, *task)
    arrays = {name: getattr(frozen, name) for name in LAYERS} | {"X": X, "y": y}
    for name in fixed:
        arrays[name].setflags(write=False)
    kata.train_task(X, y, frozen, lora, head, epochs, lr)
    held = {name: getattr(frozen, name) for name in LAYERS}
    return {
        "layers": [sent(v) for v in held.values()],
        "given": [sent(v) for v in arrays.values()],
        "writable": [(n, bool(v.flags.writeable)) for n, v in (*arrays.items(), *held.items())],
        "learned": learned(lora, head),
    }


CHANGES = dict.fromkeys(LAYERS, "frozen-changed") | {"X": "X-changed-in-place", "y": None}


@part("freeze")
def test_the_network_stays_frozen(stage, draw):
    """Training changes neither W1, b1, W2, b2 nor X and y, and leaves them as writable as they
    were; it works where they are read-only."""
    start = case(draw)
    for fixed in ((), LAYERS, ("X",), ("y",)):
        with blame(CHANGES[fixed[0]] if fixed else None, "read-only"):
            got = stage(kept, start.network, start.task, start.X, start.y, 3, LR, fixed)
        wants = (*start.network, start.X, start.y)
        for (name, bug), value, want in zip(CHANGES.items(), got["given"], wants):
            require(torch.equal(value, want), f"Training changes {name} in place", bug)
        for name, value, want in zip(LAYERS, got["layers"], start.network):
            same = torch.equal(array(value, f"frozen.{name}"), want)
            require(same, f"Training puts another {name} into frozen", "frozen-changed")
        for name, flag in got["writable"]:
            require(
                flag or name in fixed, f"Training makes {name} read-only", "frozen-made-read-only"
            )
            require(not flag or name not in fixed, f"Training makes {name} writable that was not")
        trained(start.trained(3)[1], got["learned"], None, " after 3 epochs")


def two_tasks(kata, network, one, other, X, y, z, lr):
    """Predictions of the first task, what it has learned and its losses, before and after the
    second is trained."""
    frozen = network_of(kata, network)
    (lora, head), (lora2, head2) = task_of(kata, *one), task_of(kata, *other)
    X, y, z = own(X, y, z)
    losses = kata.train_task(X, y, frozen, lora, head, 2, lr)
    before = sent(kata.forward(X, frozen, lora, head)[0]), learned(lora, head)
    first = plainly(losses)
    kata.train_task(X, z, frozen, lora2, head2, 3, lr)
    after = sent(kata.forward(X, frozen, lora, head)[0]), learned(lora, head)
    return before, after, learned(lora2, head2), (first, plainly(losses))


@part("freeze")
def test_tasks_do_not_disturb_each_other(stage, draw):
    """Training a second task changes nothing of the first, nor the first of the second."""
    one, more = case(draw), case(draw)
    other = replace(one, A=more.A, B=more.B, W=more.W, b=more.b, y=1 - one.y.roll(1))
    before, after, second, losses = stage(
        two_tasks, one.network, one.task, other.task, one.X, one.y, other.y, LR
    )
    trained(one.trained(2)[1], before[1], None, " of the first task")
    pairs = zip((before[0], *before[1]), (after[0], *after[1]))
    same = all(torch.equal(array(a, "what task A has"), b) for a, b in pairs)
    require(same, "What the first task predicts or has learned changes with the second")
    trained(other.trained(3)[1], second, None, " of the second task")
    require(losses[0] == losses[1], "The list of task A's losses changes with the second")


# merge


def made(kata, result):
    """The layers of a network that merge or switch has made, or what it is instead."""
    return layers(result) if isinstance(result, kata.Frozen) else type(result).__name__


def merging(kata, network, old):
    frozen, lora = network_of(kata, network), adapter(kata, *old)
    return made(kata, kata.merge(frozen, lora))


def switching(kata, network, old, new, other):
    """Of a network that merge() has not made, while it has made another."""
    frozen, lora, after = network_of(kata, network), adapter(kata, *old), adapter(kata, *new)
    kata.merge(network_of(kata, other), lora)
    return made(kata, kata.switch(frozen, lora, after))


def switching_merged(kata, network, old, new, shift=None):
    """shift: added to W2 in between; None where that cannot be written."""
    frozen, lora, after = network_of(kata, network), adapter(kata, *old), adapter(kata, *new)
    merged = kata.merge(frozen, lora)
    if shift is not None:
        if not merged.W2.flags.writeable:
            return None
        merged.W2[...] += shift.numpy()
    return made(kata, kata.switch(merged, lora, after))


def _layers(got, what):
    """W1, b1, W2 and b2 of what came back."""
    if isinstance(got, str):
        bug = "network-not-returned" if got in ("ndarray", "NoneType", "tuple") else None
        fail(f"{what} returns an object of type {got}, expected a Frozen", bug)
    return got


def networks(case, got, W2, what, known=None, bug=None):
    """A new network with this W2, its other layers as they were."""
    for name, value, want in zip(LAYERS, _layers(got, what), case.network):
        if name == "W2":
            slips, tight = known or {}, {"rtol": 1e-10, "atol": 1e-10}
            equals(value, W2, f"W2 after {what}", unless=slips, bug=bug, **tight)
        else:
            equals(value, want, f"{name} after {what}", rtol=0, atol=0)


def _merge_slips(case, square):
    delta = case.update
    known = {
        "merge-without-scale": case.W2 + delta / case.scale,
        "base-dropped": delta,
    }
    return known | ({"merge-without-transpose": case.W2 + delta.T} if square else {})


@part("merge")
def test_merge(stage, draw):
    """merge() gives W2 the update, transposed for row vectors, and leaves the other layers."""
    for hidden, out in ((7, 7), (9, 5)):
        square = hidden == out
        one = case(draw, hidden=hidden, out=out)
        with blame(None if square else "merge-without-transpose", "broadcast"):
            got = stage(merging, one.network, one.task[:3])
        networks(one, got, one.W2 + one.update, "merge()", _merge_slips(one, square))


def other_adapter(draw, like, r, alpha):
    """Another adapter of the same network."""
    more = case(draw, hidden=like.A.shape[1], out=len(like.B), r=r, alpha=alpha)
    return replace(like, A=more.A, B=more.B, alpha=alpha)


def of_adapters(*loras):
    return [v for lora in loras for v in (lora.A, lora.B)]


def held(frozen, loras):
    """All that arguments hold, and whether it may be written."""
    arrays = {name: getattr(frozen, name) for name in LAYERS}
    for lora, which in zip(loras, ("lora", "the second lora")):
        for name in ("A", "B", "dA", "dB"):
            arrays[f"{name} of {which}"] = getattr(lora, name)
    return {
        name: (sent(v), bool(getattr(getattr(v, "flags", None), "writeable", False)))
        for name, v in arrays.items()
    }


def one_after_the_other(kata, network, pairs, order="C"):
    """What merge and switch make, of adapters that are written over where another has their size
    and alpha: W2, what is not new, and arguments before and after. new: None for the old one."""
    import numpy as np

    W1, b1, W2, b2 = own(*network)
    frozen, loras, results, seen = kata.Frozen(W1, b1, W2.copy(order=order), b2), {}, [], []

    def of(A, B, alpha):
        lora = loras.get((A.shape, alpha))
        if lora is None or (lora.A.shape, lora.B.shape) != (A.shape, B.shape):
            lora = loras[A.shape, alpha] = adapter(kata, A, B, alpha)
        written(lora, A=A, B=B)
        lora.backward(np.ones((2, len(B))), lora.forward(np.ones((2, A.shape[1])))[1])
        return lora

    for old, new in pairs:
        lora = of(*old)
        after = of(*new) if new else lora
        for name in ("merge", "switch"):
            before = held(frozen, (lora, after))
            if name == "merge":
                got = kata.merge(frozen=frozen, lora=lora)
            else:
                got = kata.switch(merged=frozen, lora_old=lora, lora_new=after)
            known = [frozen, *results]
            new_one = all(got is not v for v in known)
            own_W2 = not any(np.shares_memory(got.W2, v.W2) for v in known)
            seen.append((name, sent(got.W2), new_one, own_W2, before, held(frozen, (lora, after))))
            results.append(got)
    return seen, [sent(v.W2) for v in results]


def of_read_only(kata, network, old, new, fixed):
    frozen, lora, after = network_of(kata, network), adapter(kata, *old), adapter(kata, *new)
    arrays = [getattr(frozen, name) for name in LAYERS]
    for v in arrays if fixed == "network" else of_adapters(lora, after):
        v.setflags(write=False)
    return [layers(kata.merge(frozen, lora))[2], layers(kata.switch(frozen, lora, after))[2]]


@part("merge")
def test_arguments_stay(stage, draw):
    """merge() and switch() return a new Frozen with a new W2, and change no argument, whatever
    adapters they get: untrained ones, one twice, of any rank and scale."""
    old = case(draw)
    new, second, twelve = (other_adapter(draw, old, r, a) for r, a in ((2, 4.2), (2, 4.2), (12, 3)))
    first = other_adapter(draw, old, 3, 4.5)
    empty, off = replace(old, B=torch.zeros_like(old.B)), replace(old, alpha=0.0)
    pairs = [(old, new), (first, second), (old, old), (empty, new), (new, empty), (empty, empty)]
    pairs += [(off, new), (new, off), (replace(old, alpha=-4.5), twelve), (twelve, old)]
    given = [(a.task[:3], None if a is b else b.task[:3]) for a, b in pairs]
    for order in "CF":
        seen, later = stage(one_after_the_other, old.network, given, order)
        wants = [v for a, b in pairs for v in (a.update, b.update - a.update)]
        for (name, W2, new_one, own_W2, *sides), then, want in zip(seen, later, wants):
            for which, (value, writable) in sides[0].items():
                now, flag = sides[1][which]
                bug = "network-changed-in-place" if which in LAYERS else "adapter-changed"
                same = torch.equal(array(now, which), array(value, which))
                require(same, f"{name}() changes {which}", bug)
                text = f"{name}() makes {which} read-only, or writable again"
                require(flag == writable, text, "frozen-made-read-only" if writable else None)
            require(new_one, f"{name}() returns a network that was there")
            text = f"{name}() returns a W2 that shares memory with one that was there"
            require(own_W2 and torch.equal(W2, then), text)
            tight = {"rtol": 1e-10, "atol": 1e-10}
            equals(W2, old.W2 + want, f"W2 after one {name}() of several", **tight)
    for fixed, bug in (("network", "network-changed-in-place"), ("adapters", "adapter-changed")):
        with blame(bug, "read-only"):
            merged, switched = stage(of_read_only, old.network, *given[0], fixed)
        equals(merged, old.W2 + old.update, "W2 after merge() of read-only arrays")
        want = old.W2 - old.update + new.update
        equals(switched, want, "W2 after switch() of read-only arrays")


def _switch_slips(case, old, new, square, original):
    W2, a, b = case.W2, old.update, new.update
    known = {
        "old-update-stays": W2 + b,
        "switch-backwards": W2 + a - b,
        "switch-without-scale": W2 - a / old.scale + b / new.scale,
        "switch-one-scale": W2 - a + b * old.scale / new.scale,
        "switch-uses-the-original": original + b,
    }
    known["base-dropped"] = b
    return known | ({"switch-without-transpose": W2 - a.T + b.T} if square else {})


@part("merge")
def test_switch(stage, draw):
    """switch() takes the old update out of W2 and puts the new one in, from its arguments alone."""
    for hidden, out, r in ((7, 7, 3), (9, 5, 3), (9, 5, 2)):
        square = hidden == out
        old = case(draw, hidden=hidden, out=out)
        new = other_adapter(draw, old, r, 4.2)
        other = replace(old, W2=case(draw, hidden=hidden, out=out).W2)
        want = old.W2 - old.update + new.update
        bug = "switch-without-transpose" if r == 3 else "switch-needs-equal-ranks"
        factors = old.task[:3], new.task[:3]
        if square:
            # What merge() has made comes first: beside it a failure of the other is told.
            got = stage(switching_merged, old.network, *factors)
            right, sides = old.W2 + new.update, replace(old, W2=old.W2 + old.update)
            slips = _switch_slips(sides, old, new, True, old.W2)
            del slips["switch-uses-the-original"]  # here it would be right
            networks(old, got, right, "switch(merge())", slips)
            bug = "switch-uses-the-original"
        texts = () if square else ("broadcast", "shape", "mismatch", "same")
        with blame(bug, *texts):
            got = stage(switching, old.network, *factors, other.network)
        slips = _switch_slips(old, old, new, square, other.W2)
        networks(old, got, want, "switch()", slips)
    shift = case(draw).W2
    got = stage(switching_merged, old.network, *factors, shift)
    if got is not None:
        slips = {"switch-uses-the-original": old.W2 + new.update}
        networks(old, got, old.W2 + shift + new.update, "switch() of an altered W2", slips)


def whole(kata, network, one, other, X):
    """Probabilities without and with merging, and after switches to and fro."""
    frozen, (X,) = network_of(kata, network), own(X)
    (lora, head), (lora2, head2) = task_of(kata, *one), task_of(kata, *other)
    apart = [sent(kata.forward(X, frozen, *task)[0]) for task in ((lora, head), (lora2, head2))]
    merged, seen = kata.merge(frozen, lora), []
    del frozen
    for _ in range(3):
        seen.append((0, sent(kata.forward(X, merged, None, head)[0])))
        merged = kata.switch(merged, lora, lora2)
        seen.append((1, sent(kata.forward(X, merged, None, head2)[0])))
        merged = kata.switch(merged, lora2, lora)
    return apart, seen


@part("merge")
def test_predictions_are_those_of_the_adapter(stage, draw):
    """Merged or switched, to and fro, the network predicts as with the adapter beside it."""
    one = case(draw)
    other = other_adapter(draw, one, 2, 4.2)
    _, seen = stage(whole, one.network, one.task, other.task, one.X)
    for number, (which, probs) in enumerate(seen):
        task = (one, other)[which]
        want = torch.sigmoid(task.out() @ task.W + task.b)
        what = f"the prediction after {number} switches"
        equals(probs, want, what, rtol=1e-10, atol=1e-10)
