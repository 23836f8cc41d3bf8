"""What holds of a block around a frozen sublayer and a trainable adapter, in whatever order it
runs them.

A block is known by its formula: what it computes of x from two callables, `f`, the sublayer, and
`a`, the adapter's forward_delta; and so are the known mistakes. A suite states its `Block` and
gives each check one property of this module.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from grader.exam.checks import blame, close, near, require, same
from grader.exam.kit import linear, need
from grader.suites.shared import properties
from grader.suites.shared.properties import IN_PLACE, Layer

D, MID, LOW = 10, 14, 4
TRAINED = {"adapter.down": 4, "adapter.up": 5}  # places among the values

Callee = Callable[[Tensor], Tensor]
Formula = Callable[[Tensor, Callee, Callee], Tensor]


# What the examiner passes in, built on the stage


def noted(module):
    """The module, with dropout and a norm inside it, in whose `modes` its calls are noted."""
    module.drop, module.norm, module.modes = nn.Dropout(0.5), nn.BatchNorm1d(3), []
    return module


def note(module):
    """Note which parts of it train, by name, and whether its dropout acts."""
    if hasattr(module, "modes"):
        seen = {name or "it": part.training for name, part in module.named_modules()}
        seen["dropout"] = bool((module.drop(torch.ones(64)) == 0).any())
        module.modes.append(seen)


def sublayer(w1, b1, w2=None, b2=None):
    """up @ tanh(down @ x); parameters at every depth, of any shape, called as in adapters. A plain
    nn.Linear of the first two where there are no others."""
    if w2 is None:
        return linear(w1, b1)

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

    built = Sublayer().to(w1.device)
    with torch.no_grad():
        built.layers[0].up_proj.weight.copy_(w1)
        built.layers[0].up_proj.bias.zero_()
        built.layers[1].weight.copy_(w2)
        built.layers[1].bias.copy_(b2)
    return built


def adapter(residual, down, up):
    """up(tanh(down(x))) as forward_delta; forward adds x where `residual`."""

    class Adapter(nn.Module):
        def __init__(self):
            super().__init__()
            self.down = nn.Parameter(down.clone())
            self.up = nn.Parameter(up.clone())
            self.bias = nn.Parameter(torch.zeros_like(down[:, 0]))
            self.offset = nn.Parameter(torch.zeros_like(up[:, 0]), requires_grad=False)

        def forward_delta(self, x):
            note(self)
            return torch.tanh(x @ self.down.T + self.bias) @ self.up.T + self.offset

        def forward(self, x):
            delta = self.forward_delta(x)
            return x + delta if residual else delta

    return Adapter()


def both(residual, *values):
    """The two modules that a block is given: the last two values are the adapter's."""
    return sublayer(*values[:-2]), adapter(residual, *values[-2:])


def make(kata, name, *given):
    return getattr(kata, name)(*both(*given))


def fill(block, *values):
    first, second = both(True, *values)
    block.sublayer.load_state_dict(first.state_dict())
    block.adapter.load_state_dict(second.state_dict())


# What is right, computed by the examiner


@dataclass(frozen=True)
class Block:
    """One kind of block: the name of its class, what it computes, and what known mistakes do.

    own: what it may give where it calls the adapter's own forward (then `a` is that). residual:
    whether that forward adds x where nothing else is said, best so that such a mistake shows in
    one check alone. cut: the formula that leaves no gradient through the sublayer; detached: the
    one that detaches the adapter's input; asleep: the one that leaves out the adapter.
    """

    name: str
    right: Formula
    slips: Mapping[str, Formula]
    own: tuple[Formula, ...]
    residual: bool
    cut: Formula
    detached: Formula
    asleep: Formula

    def layer(self, draw, dtype=torch.float32, d=D, plain=False):
        """It with values drawn anew, the deltas as large as x; `plain`: around an nn.Linear."""
        below = ((MID, d, 0.4), (MID, 0.5), (d, MID, 0.5), (d, 1.0))
        sizes = (*(((d, d, 0.4), (d, 1.0)) if plain else below), (LOW, d, 0.4), (d, LOW, 0.8))
        values = tuple(draw(*shape, std=std, dtype=dtype) for *shape, std in sizes)
        slips = {bug: of_values(slip) for bug, slip in self.slips.items()}
        return Layer(
            make, fill, of_values(self.right), slips, values, d, (self.name, self.residual)
        )

    def layers(self, draw, **kind):
        return self.layer(draw, **kind), self.layer(draw, **kind)


def of_values(formula):
    """A formula of x, f and a as one of x and the values."""
    return lambda x, *values: formula(x, below_of(*values[:-2]), delta_of(*values[-2:]))


def below_of(w1, b1, w2=None, b2=None):
    if w2 is None:
        return lambda h: h @ w1.T + b1
    return lambda h: torch.tanh(h @ w1.T + b1) @ w2.T + b2


def delta_of(down, up):
    return lambda h: torch.tanh(h @ down.T) @ up.T


def wide(values):
    return [v.double() for v in values]


# Shapes and modules


def takes_adapter_first(kata, name, *given):
    first, second = both(*given)
    return getattr(getattr(kata, name)(first, second), "sublayer", None) is second


def leading_dimensions(stage, draw, block):
    """Inputs are (..., d): from none to four leading dimensions, of size one too, as d may be."""
    layer = block.layer(draw)
    known = "arguments-swapped" if stage(takes_adapter_first, *layer.arguments) else None
    properties.leading_dimensions(stage, draw, layer, first=known)
    with blame("leading-dims-lost"):
        properties.computes(stage, block.layer(draw, d=1), draw(5, 1, 1))


def mixing(kata, name, x, dim):
    class Mixer(nn.Module):
        def forward(self, x):
            return x.cumsum(dim) * 0.5

    class MixingAdapter(nn.Module):
        def forward_delta(self, x):
            return x.cumsum(dim) * 0.3

    return getattr(kata, name)(Mixer(), MixingAdapter())(x)


def both_see_the_whole_input(stage, draw, block):
    """Both modules get their input in its own shape: such as mix positions (attention), or the
    first dimension, work."""
    for lead, dim in (((3, 4), -2), ((3, 2, 4), 0), ((3, 4), 0), ((4,), 0), ((), 0)):
        x = draw(*lead, D)

        def way(size, shaped, dim=dim):
            return lambda t: shaped(t).cumsum(dim).reshape(t.shape) * size

        y, wide = stage(mixing, block.name, x, dim), x.double()
        want = block.right(wide, way(0.5, as_it_is), way(0.3, as_it_is))
        slips = [
            block.right(wide, way(0.5, f), way(0.3, a))
            for shaped in (by_token, with_one_batch)
            for f, a in ((shaped, as_it_is), (as_it_is, shaped), (shaped, shaped))
        ]
        right = isinstance(y, Tensor) and close(y, want, 1e-4, 1e-5)
        lost = isinstance(y, Tensor) and not right and any(close(y, v, 1e-4, 1e-5) for v in slips)
        what = f"the output for x {tuple(x.shape)} with modules that sum along dimension {dim}"
        near(y, want, what=what, bug="leading-dims-lost" if lost else None)


def as_it_is(h):
    return h


def by_token(h):
    return h.reshape(-1, h.shape[-1])


def with_one_batch(h):
    return h.reshape(-1, *h.shape[-2:]) if h.ndim > 1 else h.reshape(1, 1, -1)


def identities(kata, name, *given):
    first, second = both(*given)
    before = [p for m in (first, second) for p in m.parameters()]
    kept = [p.detach().clone() for p in before]
    block = getattr(kata, name)(first, second)
    named = getattr(kata, name)(adapter=second, sublayer=first)
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


def keeps_the_modules(stage, draw, block):
    """`sublayer` and `adapter` are the very modules passed in, their values untouched."""
    got = stage(identities, *block.layer(draw).arguments)
    text = "the first argument is the sublayer, the second the adapter"
    require(not got["swapped"], text, "arguments-swapped")
    for name in got["other"]:
        copied = name in got["copied"]
        is_now = "a copy" if copied else f"an object of type {got['kinds'][name]}"
        text = f"`{name}` should be the very module passed in, not {is_now}"
        require(False, text, "modules-copied" if copied else None)
    require(not got["replaced"], "parameters of the modules passed in have been replaced by others")
    require(got["values"], "the values of the modules passed in have changed")
    require(got["named"], f"{block.name}(adapter=..., sublayer=...) swaps its arguments")
    for name in got["outside"]:
        text = f"`{name}` is not among the block's modules()"
        require(False, text, "module-not-registered")


# Freezing


def after_backward(kata, arguments, x):
    block = make(kata, *arguments)
    first, second = block.sublayer, block.adapter
    at_once = [n for n, p in first.named_parameters() if p.requires_grad]
    learned = {"down": second.down, "up": second.up, "bias": second.bias}
    thawed, still = set(), set()  # in either mode
    for mode in (False, True):
        block.train(mode)
        thawed |= {n for n, p in first.named_parameters() if p.requires_grad} - {*at_once}
        still |= {n for n, p in learned.items() if not p.requires_grad}
    block.load_state_dict(block.state_dict())
    block.to(x.dtype)
    y = block(x)
    if y.requires_grad:
        y.square().sum().backward()
    ours = {id(p) for m in (first, second) for p in m.parameters()}
    inside = {id(p) for p in block.parameters()}
    return {
        "at_once": at_once,
        "whole": all(p.requires_grad for p in first.parameters()),
        "below": [n for n, p in first.named_parameters() if p.requires_grad or n in thawed],
        "grads": [n for n, p in first.named_parameters() if p.grad is not None],
        "still": [n for n, p in learned.items() if not p.requires_grad or n in still],
        "without": [n for n, p in learned.items() if p.grad is None],
        "thawed": second.offset.requires_grad,
        "all_in": all(id(p) in inside for p in second.parameters()),
        "extra": [n for n, p in block.named_parameters() if p.requires_grad and id(p) not in ours],
    }


def trained(stage, draw, block):
    with blame("needed-by-backward", IN_PLACE):
        return stage(after_backward, block.layer(draw).arguments, draw(5, D))


def sublayer_frozen(stage, draw, block):
    """No parameter of the sublayer, at any depth, requires or receives a gradient, also after
    train(), eval(), load_state_dict() and to()."""
    got = trained(stage, draw, block)
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


def adapter_left(stage, draw, block):
    """Parameters of the adapter that train go on training, frozen ones stay frozen."""
    got = trained(stage, draw, block)
    require(got["all_in"], "the adapter's parameters are not among the block's parameters()")
    still, without = ", ".join(got["still"]), ", ".join(got["without"])
    require(not still, f"of the adapter these do not train any more: {still}", "adapter-frozen")
    require(not got["thawed"], "a frozen parameter of the adapter trains now", "adapter-thawed")
    known = "adapter-gets-no-gradient" if len(got["without"]) == 3 else None
    require(not without, f"of the adapter these get no gradient: {without}", known)


def nothing_else_trains(stage, draw, block):
    """The block has no trainable parameter of its own."""
    names = ", ".join(trained(stage, draw, block)["extra"])
    require(not names, f"{names} trains too", "extra-trainable")


# What runs in a forward


def uses_forward_delta(stage, draw, block):
    """Whether the adapter's own forward adds a residual makes no difference."""
    layer, x = block.layer(draw), draw(5, D)
    f, delta = below_of(*wide(layer.values[:-2])), delta_of(*wide(layer.values[-2:]))
    adds = {True: lambda h: h + delta(h), False: delta}
    got = {}
    for way in adds:
        given = block.name, way, *layer.values
        got[way] = stage(properties.output_of, given, x, **layer.helpers)
    known = None
    for slip in block.own:
        wrong = {way: slip(x.double(), f, forward) for way, forward in adds.items()}
        if all(
            isinstance(y, Tensor) and close(y, wrong[way], 1e-4, 1e-5) for way, y in got.items()
        ):
            known = "calls-adapter-forward"
    for way, words in ((True, "adds x"), (False, "adds no residual")):
        near(
            got[way],
            layer.output(x),
            what=f"the output with an adapter whose forward {words}",
            unless={} if known else layer.mistakes(x, got[way]),
            bug=known,
        )


def make_with_delta_only(kata, name, residual, *values):
    class DeltaOnly(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = adapter(residual, *values[-2:])
            self.down_proj, self.up_proj = nn.Linear(10, 4), nn.Linear(4, 10)

        def forward_delta(self, x):
            return self.inner.forward_delta(x)

    return getattr(kata, name)(sublayer(*values[:-2]), DeltaOnly())


def needs_no_forward(stage, draw, block):
    """An adapter that has forward_delta and no forward of its own works, whatever else it has."""
    layer = replace(block.layer(draw), make=make_with_delta_only, slips={})
    what = "the output with an adapter without a forward"
    properties.computes(stage, layer, draw(5, D), what=what)


def times_run(kata, arguments, x):
    block = make(kata, *arguments)
    block(x)
    block.eval()
    block(x)
    block(x)
    with torch.no_grad():
        block(x)
    return block.sublayer.calls


def runs_once(stage, draw, block):
    """Each forward runs the sublayer once, in training and in eval mode, also under no_grad."""
    got = stage(times_run, block.layer(draw).arguments, draw(5, D))
    known = "sublayer-runs-twice" if got > 4 else None
    require(got == 4, f"four forwards ran the sublayer {got} times", known)


def seen_in_modes(kata, name, given, x):
    def ran(block):
        first.modes, second.modes = [], []
        block(x)
        return first.modes, second.modes

    first, second = (noted(module).eval() for module in both(*given))
    seen = {"eval": ran(getattr(kata, name)(first, second))}
    block = getattr(kata, name)(first.train(), second.train())
    seen["training"], returned = ran(block), []
    for mode in ("train", "eval", "train"):
        returned.append(getattr(block, mode)() is block)
        seen[len(returned)] = ran(block)
    block.load_state_dict(block.state_dict())
    return seen | {"load": ran(block)}, all(returned)


def follow_modes(stage, draw, block):
    """train() and eval() reach sublayer and adapter to their depths, and return the block; making
    the block and load_state_dict() switch nothing, and leave their dropout as it is."""
    name, *given = block.layer(draw).arguments
    seen, returned = stage(seen_in_modes, name, given, draw(5, D))
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
            parts = sorted({n for ran in seen[at][i] for n, on in ran.items() if on != want})
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


def make_around_identity(kata, name, residual, *values):
    return getattr(kata, name)(nn.Identity(), adapter(residual, *values[-2:]))


def keeping(kata, name, x, held):
    class Keeping(nn.Module):
        def __init__(self, held):
            super().__init__()
            self.held = nn.Parameter(held.clone(), requires_grad=False)

        def forward(self, x):
            return self.held

        def forward_delta(self, x):
            return self.held

    parts, outputs = [Keeping(one) for one in held], []
    block = getattr(kata, name)(*parts)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            outputs.append(block(x))
    return outputs, [part.held for part in parts]


def input_unchanged(stage, draw, block):
    """The input is not changed in place, also where the sublayer hands on x itself; nor is a
    tensor that a module keeps and hands out."""
    layer = block.layer(draw)
    properties.input_unchanged(stage, draw, layer)
    bare = replace(
        layer,
        make=make_around_identity,
        right=lambda x, *v: block.right(x, lambda h: h, delta_of(*v[-2:])),
        slips={},
    )
    properties.input_unchanged(stage, draw, bare)
    for x in (draw(5, D), draw(D)):
        properties.computes(stage, bare, x, what="the output with an nn.Identity sublayer")
    x, held = draw(D), (draw(D), draw(D))
    outputs, after = stage(keeping, block.name, x, held)
    for name, value, was in zip(("sublayer", "adapter"), after, held):
        same(value, was, f"a parameter that the {name} hands out")
    want = block.right(x.double(), lambda _: held[0].double(), lambda _: held[1].double())
    for y in outputs:
        near(y, want, what="the output with modules that hand out a parameter")


def follows_its_parameters(stage, draw, block):
    """Each forward uses the values of the moment, in either mode, also under no_grad."""
    asleep = {"eval-skips-adapter": of_values(block.asleep)}
    properties.follows_its_values(stage, draw, *block.layers(draw), slips={}, in_eval=asleep)


# Gradients


def gradients_of_the_adapter(stage, draw, block):
    """The adapter's parameters get the exact gradients, in training and in eval mode."""
    lost = {tuple(TRAINED): "adapter-gets-no-gradient"}
    with blame("needed-by-backward", IN_PLACE):
        properties.gradients_of(stage, draw, block.layer(draw), TRAINED, lost=lost)


def gradient_to_the_input(stage, draw, block):
    """The gradient flows to the input through both modules."""
    cuts = {"input-gradient-cut": block.cut, "adapter-input-detached": block.detached}
    cuts = {bug: of_values(formula) for bug, formula in cuts.items()}
    words = {"none": "input-gradient-cut", "needs": TRAINED}
    with blame("needed-by-backward", IN_PLACE):
        properties.gradient_to_the_input(stage, draw, block.layer(draw), cuts, **words)


def gradients_after_no_grad(stage, draw, block):
    """Nothing of a call under no_grad is kept for the next one."""
    words = {"to_input": True, "after_no_grad": True}
    with blame("needed-by-backward", IN_PLACE):
        properties.gradients_of(stage, draw, block.layer(draw), TRAINED, **words)


def saved_outputs(kata, name, x, g):
    class Squashing(nn.Module):
        def forward_delta(self, h):
            return torch.sigmoid(h)

    x = x.clone().requires_grad_()
    y = getattr(kata, name)(nn.Tanh(), Squashing())(x)
    (y * g).sum().backward()
    return x.grad


def gradient_through_saved_outputs(stage, draw, block):
    """What sublayer and adapter give is not changed in place: their backward may need it."""
    x, g = draw(5, D), draw(5, D)
    with blame("needed-by-backward", IN_PLACE):
        got = stage(saved_outputs, block.name, x, g)
    x = x.double().requires_grad_()
    y = block.right(x, torch.tanh, torch.sigmoid)
    near(got, torch.autograd.grad(y, x, g.double())[0], what="the gradient to the input")


# State


def make_noted(kata, name, *given):
    first, second = both(*given)
    return getattr(kata, name)(noted(first), second)


def state_names(stage, draw, block):
    """The tensors of both modules are in the state dict under sublayer. and adapter."""
    below = ("layers.1.weight", "norm.running_mean", "norm.num_batches_tracked")
    names = (*(f"sublayer.{n}" for n in below), *TRAINED)
    properties.state_names(stage, replace(block.layer(draw), make=make_noted), names)


def state_round_trip(stage, draw, block):
    """load_state_dict of another instance's state reproduces its outputs."""
    properties.state_round_trip(stage, draw, *block.layers(draw))
    single = block.layers(draw, plain=True)
    properties.state_round_trip(stage, draw, *single, " (the sublayer is an nn.Linear)")
