"""What is checked of `parallel_adapter_block`. Contract: He et al. 2022, section 3.2."""

import torch
from torch import nn

from grader.exam.checks import blame, close, near, part, require, same, tensor
from grader.exam.kit import CheapMeta, linear, need

D, MID, LOW = 10, 14, 4
IN_PLACE = "modified by an inplace operation"  # what autograd says of a tensor it has saved


# What the examiner passes in, built on the stage


def noted(module):
    """The module, with dropout and a norm inside it, in whose `modes` its calls are noted."""
    module.drop, module.norm, module.modes = nn.Dropout(0.5), nn.BatchNorm1d(3), []
    return module


def note(module):
    """Note which parts of it train, by name, and whether its dropout acts."""
    if hasattr(module, "modes"):
        found = {name or "it": part.training for name, part in module.named_modules()}
        found["dropout"] = bool((module.drop(torch.ones(64)) == 0).any())
        module.modes.append(found)


def sublayer(values):
    """up @ tanh(down @ x); parameters at every depth, of any shape, called as in adapters."""
    w1, b1, w2, b2 = values

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.up_proj = nn.Linear(*w1.T.shape, dtype=w1.dtype, device=w1.device)
            self.adapter_gain = nn.Parameter(b1.clone())

        def forward(self, x):
            return torch.tanh(self.up_proj(x) + self.adapter_gain)

    class Sublayer(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(Inner(), nn.Linear(*w2.T.shape, dtype=w2.dtype))
            self.lora_A = nn.Parameter(torch.zeros_like(b2[0]))
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            note(self)
            return self.layers(x) + self.lora_A

    made = Sublayer().to(w1.device)
    with torch.no_grad():
        made.layers[0].up_proj.weight.copy_(w1)
        made.layers[0].up_proj.bias.zero_()
        made.layers[1].weight.copy_(w2)
        made.layers[1].bias.copy_(b2)
    return made


def adapter(values, residual):
    """up(tanh(down(x))) as forward_delta; forward adds x where `residual`."""
    w1, w2 = values

    class Adapter(nn.Module):
        def __init__(self):
            super().__init__()
            self.down = nn.Parameter(w1.clone())
            self.up = nn.Parameter(w2.clone())
            self.bias = nn.Parameter(torch.zeros_like(w1[:, 0]))
            self.offset = nn.Parameter(torch.zeros_like(w2[:, 0]), requires_grad=False)

        def forward_delta(self, x):
            note(self)
            return torch.tanh(x @ self.down.T + self.bias) @ self.up.T + self.offset

        def forward(self, x):
            delta = self.forward_delta(x)
            return x + delta if residual else delta

    return Adapter()


def make(kata, below, beside, residual=False):
    return kata.ParallelAdapterBlock(sublayer(below), adapter(beside, residual))


# What is right, computed by the examiner


def pieces(draw, dtype=torch.float32, d=D):
    """Values of a sublayer and of an adapter, whose deltas are as large as x."""
    below = (
        draw(MID, d, std=0.4, dtype=dtype),
        draw(MID, std=0.5, dtype=dtype),
        draw(d, MID, std=0.5, dtype=dtype),
        draw(d, std=1.0, dtype=dtype),
    )
    return below, (draw(LOW, d, std=0.4, dtype=dtype), draw(d, LOW, std=0.8, dtype=dtype))


def below_of(x, values):
    w1, b1, w2, b2 = (t.double() for t in values)
    return torch.tanh(x.double() @ w1.T + b1) @ w2.T + b2


def delta_of(x, values):
    w1, w2 = (t.double() for t in values)
    return torch.tanh(x.double() @ w1.T) @ w2.T


def oracle(x, below, beside):
    return below_of(x, below) + delta_of(x, beside)


def slips(x, below, beside):
    """What known mistakes make of the output."""
    x = x.double()
    f, a = below_of(x, below), delta_of(x, beside)
    normed = torch.nn.functional.layer_norm(x, x.shape[-1:])
    return {
        "residual-added": x + f + a,
        "delta-twice": f + 2 * a,
        "norm-added": f + delta_of(normed, beside),
        "adapter-sees-output": f + delta_of(f, beside),
        "serial-block": x + f + delta_of(x + f, beside),
        "sublayer-sees-adapter": below_of(x + a, below),
        "sublayer-ignored": a,
        "adapter-ignored": f,
        "adapter-subtracted": f - a,
        "halved": (f + a) / 2,
    }


# shape


def swapped(kata, below, beside):
    first, second = sublayer(below), adapter(beside, False)
    return getattr(kata.ParallelAdapterBlock(first, second), "sublayer", None) is second


def run(kata, below, beside, x, residual=False):
    return make(kata, below, beside, residual)(x)


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """Inputs are (..., d): from none to four leading dimensions, of size one too, as d may be."""
    below, beside = pieces(draw)
    known = "arguments-swapped" if stage(swapped, below, beside) else None
    for lead in [(5,), (2, 3, 4), (1, 1), (1,), (D,), (D, D), (), (2, 1, 2, 3), "d = 1"]:
        if lead == "d = 1":
            (below, beside), lead = pieces(draw, d=1), (5, 1)
        x = draw(*lead, below[0].shape[1])
        with blame(known):
            y = stage(run, below, beside, x)
        known = "leading-dims-lost"  # what fails from here on does so for the dimensions
        want = oracle(x, below, beside)
        lost = isinstance(y, torch.Tensor) and y.shape != want.shape and y.numel() == want.numel()
        near(
            y,
            want,
            what=f"the output for x {tuple(x.shape)}",
            unless=slips(x, below, beside),
            bug="leading-dims-lost" if lost else None,
        )


def strided(x):
    return x.transpose(0, 2), x.transpose(0, 3), x[1].transpose(0, 1), x[0, :, ::2]


def run_strided(kata, below, beside, x):
    block = make(kata, below, beside)
    return [block(v) for v in strided(x)]


@part("shape")
def test_non_contiguous_input(stage, draw):
    """Inputs need not be contiguous."""
    below, beside = pieces(draw)
    x = draw(D, 3, 4, D)
    for y, v in zip(stage(run_strided, below, beside, x), strided(x)):
        near(y, oracle(v, below, beside), unless=slips(v, below, beside))


def mixing(kata, x):
    class Mixer(nn.Module):
        def forward(self, x):
            return x.cumsum(-2) * 0.5

    class MixingAdapter(nn.Module):
        def forward_delta(self, x):
            return x.cumsum(-2) * 0.3

    return kata.ParallelAdapterBlock(Mixer(), MixingAdapter())(x)


@part("shape")
def test_both_see_the_whole_input(stage, draw):
    """Both modules get their input in its own shape: such as mix positions (attention) work."""
    x = draw(3, 4, D)
    wide = x.double()

    def mixed(size, flat):
        seen = (lambda t: t.reshape(-1, D)) if flat else (lambda t: t)
        return lambda t: seen(t).cumsum(-2).reshape(t.shape) * size

    def output(sublayer_flat, adapter_flat):
        first, second = mixed(0.5, sublayer_flat), mixed(0.3, adapter_flat)
        return first(wide) + second(wide)

    y, want = stage(mixing, x), output(False, False)
    slips = [output(True, False), output(False, True), output(True, True)]
    flattened = isinstance(y, torch.Tensor) and any(close(y, v, 1e-4, 1e-5) for v in slips)
    near(
        y,
        want,
        what="the output with a sublayer and an adapter that mix positions",
        bug="leading-dims-lost" if flattened else None,
    )


# init


def identities(kata, below, beside):
    first, second = sublayer(below), adapter(beside, True)
    before = [p for m in (first, second) for p in m.parameters()]
    kept = [p.detach().clone() for p in before]
    block = kata.ParallelAdapterBlock(first, second)
    named = kata.ParallelAdapterBlock(adapter=second, sublayer=first)
    now = [p for m in (first, second) for p in m.parameters()]
    passed = {"sublayer": first, "adapter": second}
    inside = list(block.modules())
    return {
        "swapped": need(block, "sublayer") is second,
        "other": [n for n, module in passed.items() if need(block, n) is not module],
        "copied": [n for n, module in passed.items() if type(need(block, n)) is type(module)],
        "kinds": {n: type(need(block, n)).__name__ for n in passed},
        "values": all(torch.equal(p, q) for p, q in zip(kept, now)),
        "replaced": {id(p) for p in before} != {id(p) for p in now},
        "named": named.sublayer is first and named.adapter is second,
        "outside": [n for n, module in passed.items() if all(m is not module for m in inside)],
    }


@part("init")
def test_keeps_the_modules_passed_in(stage, draw):
    """`sublayer` and `adapter` are the very modules passed in, their values untouched."""
    got = stage(identities, *pieces(draw))
    text = "the first argument is the sublayer, the second the adapter"
    require(not got["swapped"], text, "arguments-swapped")
    for name in got["other"]:
        copied = name in got["copied"]
        is_now = "a copy" if copied else f"an object of type {got['kinds'][name]}"
        text = f"`{name}` should be the very module passed in, not {is_now}"
        require(False, text, "modules-copied" if copied else None)
    require(not got["replaced"], "parameters of the modules passed in have been replaced by others")
    require(got["values"], "the values of the modules passed in have changed")
    require(got["named"], "ParallelAdapterBlock(adapter=..., sublayer=...) swaps its arguments")
    for name in got["outside"]:
        text = f"`{name}` is not among the block's modules()"
        require(False, text, "module-not-registered")


# freeze


def after_backward(kata, below, beside, x):
    block = make(kata, below, beside)
    first, second = block.sublayer, block.adapter
    at_once = [n for n, p in first.named_parameters() if p.requires_grad]
    for mode in (False, True):
        block.train(mode)
    block.load_state_dict(block.state_dict())
    block.to(x.dtype)
    y = block(x)
    if y.requires_grad:
        y.square().sum().backward()
    ours = {id(p) for m in (first, second) for p in m.parameters()}
    inside = {id(p) for p in block.parameters()}
    learned = {"down": second.down, "up": second.up, "bias": second.bias}
    return {
        "at_once": at_once,
        "whole": all(p.requires_grad for p in first.parameters()),
        "below": [n for n, p in first.named_parameters() if p.requires_grad],
        "grads": [n for n, p in first.named_parameters() if p.grad is not None],
        "still": [n for n, p in learned.items() if not p.requires_grad],
        "without": [n for n, p in learned.items() if p.grad is None],
        "thawed": second.offset.requires_grad,
        "all_in": all(id(p) in inside for p in second.parameters()),
        "extra": [n for n, p in block.named_parameters() if p.requires_grad and id(p) not in ours],
    }


def trained(stage, draw):
    with blame("needed-by-backward", IN_PLACE):
        return stage(after_backward, *pieces(draw), draw(5, D))


@part("freeze")
def test_sublayer_is_frozen(stage, draw):
    """No parameter of the sublayer, at any depth, requires or receives a gradient, also after
    train(), eval(), load_state_dict() and to()."""
    got = trained(stage, draw)
    known = "sublayer-not-frozen" if got["whole"] else "sublayer-partly-frozen"
    names = ", ".join(got["below"])
    text = (
        f"frozen at first, after train(), eval(), load_state_dict() and to() these train: {names}"
    )
    require(got["at_once"] or not got["below"], text, "sublayer-thawed-again")
    require(not got["below"], f"of the sublayer these are not frozen: {names}", known)
    names = ", ".join(got["at_once"])
    text = f"when the block has just been made these are not frozen yet: {names}"
    require(not got["at_once"], text, "frozen-too-late")
    require(not got["grads"], f"of the sublayer these get gradients: {', '.join(got['grads'])}")


@part("freeze")
def test_adapter_is_left_as_it_arrives(stage, draw):
    """Parameters of the adapter that train go on training, frozen ones stay frozen."""
    got = trained(stage, draw)
    require(got["all_in"], "the adapter's parameters are not among the block's parameters()")
    still, without = ", ".join(got["still"]), ", ".join(got["without"])
    require(not still, f"of the adapter these do not train any more: {still}", "adapter-frozen")
    require(not got["thawed"], "a frozen parameter of the adapter trains now", "adapter-thawed")
    known = "adapter-gets-no-gradient" if len(got["without"]) == 3 else None
    require(not without, f"of the adapter these get no gradient: {without}", known)


@part("freeze")
def test_no_other_parameter_trains(stage, draw):
    """The block has no trainable parameter of its own."""
    got = trained(stage, draw)
    names = ", ".join(got["extra"])
    require(not got["extra"], f"{names} trains too", "extra-trainable")


# forward


@part("forward")
def test_adds_both_without_a_residual(stage, draw):
    """The output is sublayer(x) + adapter.forward_delta(x), both of the input x."""
    below, beside = pieces(draw)
    x = draw(3, 4, D)
    near(stage(run, below, beside, x), oracle(x, below, beside), unless=slips(x, below, beside))


@part("forward")
def test_uses_forward_delta_alone(stage, draw):
    """Whether the adapter's own forward adds a residual makes no difference."""
    below, beside = pieces(draw)
    x = draw(5, D)
    want = oracle(x, below, beside)
    first, second = (tensor(stage(run, below, beside, x, adds)) for adds in (True, False))
    known = None  # adapter(x), or adapter(x) - x
    for wrong in ((want + x, want), (want, want - x)):
        if all(close(y, v, 1e-4, 1e-5) for y, v in zip((first, second), wrong)):
            known = "calls-adapter-forward"
    near(first, want, what="the output with an adapter whose forward adds x", bug=known)
    near(
        second,
        want,
        what="the output with an adapter whose forward adds no residual",
        unless=slips(x, below, beside),
        bug=known,
    )


def with_delta_only(kata, below, beside, x):
    class DeltaOnly(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = adapter(beside, True)
            self.down_proj, self.up_proj = nn.Linear(D, LOW), nn.Linear(LOW, D)

        def forward_delta(self, x):
            return self.inner.forward_delta(x)

    return kata.ParallelAdapterBlock(sublayer(below), DeltaOnly())(x)


@part("forward")
def test_adapter_needs_no_forward(stage, draw):
    """An adapter that has forward_delta and no forward of its own works, whatever else it has."""
    below, beside = pieces(draw)
    x = draw(5, D)
    y = stage(with_delta_only, below, beside, x)
    near(y, oracle(x, below, beside), what="the output with an adapter without a forward")


def calls(kata, below, beside, x):
    block = make(kata, below, beside)
    block(x)
    block.eval()
    block(x)
    block(x)
    with torch.no_grad():
        block(x)
    return block.sublayer.calls


@part("forward")
def test_sublayer_runs_once(stage, draw):
    """Each forward runs the sublayer once, in training and in eval mode, also under no_grad."""
    got = stage(calls, *pieces(draw), draw(5, D))
    known = "sublayer-runs-twice" if got > 4 else None
    require(got == 4, f"four forwards ran the sublayer {got} times", known)


def modes(kata, below, beside, x):
    def ran(block):
        first.modes, second.modes = [], []
        block(x)
        return first.modes, second.modes

    first, second = noted(sublayer(below)).eval(), noted(adapter(beside, False)).eval()
    seen = {"eval": ran(kata.ParallelAdapterBlock(first, second))}
    block = kata.ParallelAdapterBlock(first.train(), second.train())
    seen["training"], returned = ran(block), []
    for name in ("train", "eval", "train"):
        returned.append(getattr(block, name)() is block)
        seen[len(returned)] = ran(block)
    block.load_state_dict(block.state_dict())
    return seen | {"load": ran(block)}, all(returned)


@part("forward")
def test_both_follow_train_and_eval(stage, draw):
    """train() and eval() reach sublayer and adapter to their depths, and return the block; making
    the block and load_state_dict() switch nothing, and leave their dropout as it is."""
    seen, returned = stage(modes, *pieces(draw), draw(5, D))
    steps = [
        (1, "after train()", True),
        (2, "after eval()", False),
        (3, "after train(), eval() and train()", True),
        ("training", "in a new block, made of modules in training mode,", True),
        ("eval", "in a new block, made of modules in eval mode,", False),
        ("load", "after load_state_dict() in training mode", True),
    ]
    for i, name in enumerate(("sublayer", "adapter")):
        require(all(ran[i] for ran in seen.values()), f"a forward did not run the {name} at all")
        always = name == "sublayer" and not any(f["it"] for at in (1, 2, 3) for f in seen[at][i])
        for at, label, want in steps:
            parts = sorted({n for found in seen[at][i] for n, on in found.items() if on != want})
            known = "sublayer-always-eval" if always and at != "load" else None
            if name == "sublayer" and at == "training":
                known = "eval-at-the-start"
            text = f"{label} the {name} ran in {'eval' if want else 'training'} mode"
            require("it" not in parts, text, known)
            inside = ", ".join(n for n in parts if n != "dropout")
            text = f"{label} parts of the {name} ran in {'eval' if want else 'training'} mode"
            require(not inside, f"{text}: {inside}")
            acts = "does not act" if want else "acts"
            require(not parts, f"{label} the dropout in the {name} {acts}")
    require(returned, "block.train() or block.eval() is not block", "train-returns-nothing")


def keeps_input(kata, below, beside, x):
    make(kata, below, beside)(x)
    block = kata.ParallelAdapterBlock(nn.Identity(), adapter(beside, True))
    y = block(x)
    for training, grad in ((True, False), (False, True), (False, False)):
        block.train(training)
        with torch.set_grad_enabled(grad):
            block(x)
    return x, y


@part("forward")
def test_input_unchanged(stage, draw):
    """The input is not changed in place, also where the sublayer hands on x itself."""
    below, beside = pieces(draw)
    for x in (draw(5, D), draw(D)):
        kept, y = stage(keeps_input, below, beside, x)
        same(kept, x, "the input", "changes-input-in-place")
        want = x.double() + delta_of(x, beside)
        near(y, want, what="the output with an nn.Identity sublayer")


def beside_another(kata, below, beside, below2, beside2, x):
    block = make(kata, below, beside)
    make(kata, below2, beside2)(x)
    return block(x)


@part("forward")
def test_blocks_are_independent(stage, draw):
    """Another block around other modules changes nothing."""
    (below, beside), other = pieces(draw), pieces(draw)
    x = draw(5, D)
    y = stage(beside_another, below, beside, *other, x)
    near(y, oracle(x, below, beside), what="the output after another block was made")


def live(kata, below, beside, below2, beside2, x, mode):
    second, third = sublayer(below2), adapter(beside2, True)
    grad = "no_grad" not in mode
    with torch.set_grad_enabled(grad):
        block = make(kata, below, beside)
        block.train(mode == "train")
        block(x)
        block.sublayer.load_state_dict(second.state_dict())
        block.adapter.load_state_dict(third.state_dict())
        y, again = block(x), block(x)
        return y, again, torch.is_grad_enabled() == grad


@part("forward")
def test_follows_its_parameters(stage, draw):
    """Each forward uses the values of the moment, in either mode, also under no_grad."""
    (below, beside), (below2, beside2) = pieces(draw), pieces(draw)
    x = draw(5, D)
    for mode in ("train", "eval", "eval, no_grad"):
        first, again, left = stage(live, below, beside, below2, beside2, x, mode)
        require(left, f"making or calling the block leaves grad mode changed ({mode} mode)")
        known = {} if mode == "train" else {"eval-skips-adapter": below_of(x, below2)}
        for y in (first, again):
            near(
                y,
                oracle(x, below2, beside2),
                what=f"the output after the parameters changed ({mode} mode)",
                unless=known,
            )


# gradient


def gradients(kata, below, beside, x, g, mode, before=False):
    block = make(kata, below, beside)
    block.train(mode == "train")
    x = x.clone().requires_grad_()
    if before:
        with torch.no_grad():
            block(x)
    y = block(x)
    if y.requires_grad:
        (y * g).sum().backward()
    return x.grad, block.adapter.down.grad, block.adapter.up.grad


def exact(x, below, beside, g, cut=None):
    """Gradients to x and the adapter's factors; `cut` drops one path to x."""
    x = x.double().requires_grad_()
    down, up = (t.double().clone().requires_grad_() for t in beside)
    f = below_of(x.detach() if cut == "sublayer" else x, below)
    y = f + delta_of(x.detach() if cut == "adapter" else x, (down, up))
    (y * g.double()).sum().backward()
    return x.grad, down.grad, up.grad


@part("gradient")
def test_gradients_of_the_adapter(stage, draw):
    """The adapter's parameters get the exact gradients, in training and in eval mode."""
    below, beside = pieces(draw)
    x, g = draw(2, 3, D), draw(2, 3, D)
    _, down, up = exact(x, below, beside, g)
    for mode in ("train", "eval"):
        with blame("needed-by-backward", IN_PLACE):
            got = stage(gradients, below, beside, x, g, mode)[1:]
        known = "adapter-gets-no-gradient" if got[0] is None and got[1] is None else None
        for value, want in zip(got, (down, up)):
            require(value is not None, f"the adapter gets no gradient ({mode} mode)", known)
            near(value, want, what="the gradient of the adapter's parameters")


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to the input, through the frozen sublayer and through the adapter."""
    below, beside = pieces(draw)
    x, g = draw(2, 3, D), draw(2, 3, D)
    want, *_ = exact(x, below, beside, g)
    for mode in ("train", "eval"):
        with blame("needed-by-backward", IN_PLACE):
            got, down, _ = stage(gradients, below, beside, x, g, mode)
        known = {"input-gradient-cut": lambda: exact(x, below, beside, g, "sublayer")[0]}
        if down is not None:
            known["adapter-input-detached"] = lambda: exact(x, below, beside, g, "adapter")[0]
        alone = None if down is None else "input-gradient-cut"
        require(got is not None, f"no gradient reaches the input ({mode} mode)", alone)
        near(got, want, what="the gradient to the input", unless=known)


@part("gradient")
def test_gradients_after_no_grad(stage, draw):
    """Nothing of a call under no_grad is kept for the next one."""
    below, beside = pieces(draw)
    x, g = draw(2, 3, D), draw(2, 3, D)
    names = ("the gradient to the input", "the gradient of down", "the gradient of up")
    for mode in ("train", "eval"):
        with blame("needed-by-backward", IN_PLACE):
            got = stage(gradients, below, beside, x, g, mode, True)
        for name, value, want in zip(names, got, exact(x, below, beside, g)):
            what = f"{name}, after a call under no_grad ({mode} mode)"
            require(value is not None, f"{what} is None")
            near(value, want, what=what)


def saved_outputs(kata, x, g):
    class Squashing(nn.Module):
        def forward_delta(self, h):
            return torch.sigmoid(h)

    x = x.clone().requires_grad_()
    y = kata.ParallelAdapterBlock(nn.Tanh(), Squashing())(x)
    (y * g).sum().backward()
    return x.grad


@part("gradient")
def test_gradient_through_saved_outputs(stage, draw):
    """What sublayer and adapter give is not changed in place: their backward may need it."""
    x, g = draw(5, D), draw(5, D)
    with blame("needed-by-backward", IN_PLACE):
        got = stage(saved_outputs, x, g)
    x = x.double().requires_grad_()
    y = torch.tanh(x) + torch.sigmoid(x)
    near(got, torch.autograd.grad(y, x, g.double())[0], what="the gradient to the input")


# state


def state_names(kata, below, beside):
    return list(
        kata.ParallelAdapterBlock(noted(sublayer(below)), adapter(beside, False)).state_dict()
    )


@part("state")
def test_state_names(stage, draw):
    """The tensors of both modules are in the state dict under sublayer. and adapter."""
    names = stage(state_names, *pieces(draw))
    wanted = ("layers.1.weight", "norm.running_mean", "norm.num_batches_tracked")
    for name in (*(f"sublayer.{n}" for n in wanted), "adapter.down", "adapter.up"):
        require(name in names, f"`{name}` is not in the state dict; it holds: {', '.join(names)}")


def round_trip(kata, below, beside, below2, beside2, x):
    outputs = []
    for kind in (sublayer, lambda values: linear(*values)):
        first = kata.ParallelAdapterBlock(kind(below[kind is not sublayer]), adapter(beside, False))
        second = kata.ParallelAdapterBlock(
            kind(below2[kind is not sublayer]), adapter(beside2, False)
        )
        second(x)
        second.load_state_dict(first.state_dict())
        outputs.append(second(x))
    return outputs


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs."""
    (below, beside), (below2, beside2) = pieces(draw), pieces(draw)
    x, square, bias = draw(5, D), draw(D, D, std=0.4), draw(D)
    other = (draw(D, D, std=0.4), draw(D))
    y, single = stage(round_trip, (below, (square, bias)), beside, (below2, other), beside2, x)
    near(y, oracle(x, below, beside), what="the output after load_state_dict")
    want = x.double() @ square.double().T + bias + delta_of(x, beside)
    near(single, want, what="the output after load_state_dict (the sublayer is an nn.Linear)")


# dtype and device


def _dtype(stage, draw, dtype):
    below, beside = pieces(draw, dtype)
    x = draw(5, D, dtype=dtype)
    y, want = stage(run, below, beside, x), oracle(x, below, beside)
    rounded = dtype == torch.float64 and isinstance(y, torch.Tensor) and y.dtype == dtype
    known = "float32-inside" if rounded and close(y, want, 1e-6, 1e-6) else None
    near(y, want, dtype=dtype, unless=slips(x, below, beside), bug=known)


@part("dtype")
def test_float64(stage, draw):
    """float64 modules give float64 outputs, exact to 1e-9."""
    _dtype(stage, draw, torch.float64)


@part("dtype")
def test_bfloat16(stage, draw):
    """bfloat16 modules give bfloat16 outputs."""
    _dtype(stage, draw, torch.bfloat16)


def on_meta(kata):
    class Adapter(nn.Module):
        def __init__(self):
            super().__init__()
            self.down = nn.Linear(10, 4, device="meta")
            self.up = nn.Linear(4, 10, device="meta")

        def forward_delta(self, x):
            return self.up(self.down(x))

    block = kata.ParallelAdapterBlock(nn.Linear(10, 10, device="meta"), Adapter())
    with CheapMeta():
        y = block(torch.empty(2, 5, 10, device="meta"))
    return y.device.type, tuple(y.shape), sorted({p.device.type for p in block.parameters()})


@part("device")
def test_meta_device(stage):
    """Modules on the meta device stay there, and give outputs there."""
    device, shape, places = stage(on_meta)
    require(places == ["meta"], f"parameters are on {', '.join(places)}, not on meta alone")
    require(device == "meta", f"the output is on {device}, expected meta")
    require(shape == (2, 5, 10), f"the output has shape {shape}")


# gpu


def on_device(kata, below, beside, x, g, device):
    below = [t.to(device) for t in below]
    block = kata.ParallelAdapterBlock(
        sublayer(below), adapter([t.to(device) for t in beside], True)
    )
    x = x.to(device).requires_grad_()
    y = block(x)
    (y * g.to(device)).sum().backward()
    return y, x.grad, block.adapter.down.grad, block.adapter.up.grad


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU."""
    below, beside = pieces(draw)
    x, g = draw(4, 5, D), draw(4, 5, D)
    got = stage(on_device, below, beside, x, g, stage.device)
    wants = (oracle(x, below, beside), *exact(x, below, beside, g))
    names = ("the output", "the gradient to the input", "the gradient of down", "that of up")
    for value, want, name in zip(got, wants, names):
        near(value, want, what=name, rtol=1e-3, atol=1e-3)
