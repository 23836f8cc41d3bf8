"""What is checked of `houlsby_block`. Contract: Houlsby et al. 2019, section 2.1, in a pre-norm
layer and with each adapter after its residual sum."""

from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from grader.exam.checks import blame, close, near, part, require, same
from grader.exam.kit import linear, need, set_
from grader.suites.shared import properties
from grader.suites.shared.blocks import (
    LOW,
    MID,
    D,
    adapter,
    as_it_is,
    below_of,
    by_token,
    delta_of,
    keeping,
    note,
    noted,
    sublayer,
    with_one_batch,
)
from grader.suites.shared.properties import IN_PLACE, Layer

PARTS = ("attn", "ffn", "norm1", "norm2", "adapter1", "adapter2")
TRAINED = {"adapter1.down": 12, "adapter1.up": 13, "adapter2.down": 14, "adapter2.up": 15}
NORMS = {"norm1.inner.weight": 8, "norm1.shift": 9, "norm2.inner.weight": 10, "norm2.shift": 11}

# What the block computes, and what known mistakes do: the two halves are alike.


def half(x, f, m, a):
    """Of x, a sublayer, its norm and its adapter."""
    h = x + f(m(x))
    return h + a(h)


def then(change, h):
    return change(h)


HALVES = {  # a mistake in the first half, the second, or both
    "adapter-before-sum": [lambda x, f, m, a: x + f(m(x)) + a(f(m(x)))],
    "post-norm": [
        lambda x, f, m, a: then(lambda h: h + a(h), m(x + f(x))),
        lambda x, f, m, a: m(half(x, f, lambda h: h, a)),
    ],
    "norm-missing": [lambda x, f, m, a: half(x, f, lambda h: h, a)],
    "residual-of-normed": [lambda x, f, m, a: half(m(x), f, lambda h: h, a)],
    "sublayer-residual-missing": [lambda x, f, m, a: f(m(x)) + a(f(m(x)))],
    "adapter-residual-missing": [lambda x, f, m, a: a(x + f(m(x)))],
    "adapter-ignored": [lambda x, f, m, a: x + f(m(x))],
    "adapter-sees-input": [
        lambda x, f, m, a: x + f(m(x)) + a(x),
        lambda x, f, m, a: x + f(m(x)) + a(m(x)),
    ],
    "residual-twice": [lambda x, f, m, a: then(lambda h: 2 * h + a(h), x + f(m(x)))],
}
WHOLES = {
    "norms-swapped": [lambda x, f, g, m, n, a, b: half(half(x, f, n, a), g, m, b)],
    "adapters-swapped": [lambda x, f, g, m, n, a, b: half(half(x, f, m, b), g, n, a)],
    "sublayers-swapped": [
        lambda x, f, g, m, n, a, b: half(half(x, g, m, a), f, n, b),
        lambda x, f, g, m, n, a, b: half(half(x, g, n, b), f, m, a),
    ],
    "one-for-both": [
        lambda x, f, g, m, n, a, b: half(half(x, f, m, a), g, m, b),
        lambda x, f, g, m, n, a, b: half(half(x, f, n, a), g, n, b),
        lambda x, f, g, m, n, a, b: half(half(x, f, m, a), g, n, a),
        lambda x, f, g, m, n, a, b: half(half(x, f, m, b), g, n, b),
    ],
    "stale-residual": [
        lambda x, f, g, m, n, a, b: then(lambda h: h + b(h), x + g(n(half(x, f, m, a))))
    ],
    "ffn-before-adapter": [
        lambda x, f, g, m, n, a, b: then(
            lambda h: then(lambda k: k + b(k), h + a(h) + g(n(h))), x + f(m(x))
        )
    ],
}


def halves(first, second):
    return lambda x, f, g, m, n, a, b: second(first(x, f, m, a), g, n, b)


RIGHT = halves(half, half)
SLIPS = dict(WHOLES) | {
    bug: [halves(*ways) for ways in product((half, *wrong), repeat=2) if ways != (half, half)]
    for bug, wrong in HALVES.items()
}


def norm_of(gain, shift, eps=1e-5):
    return lambda h: layer_norm(h, h.shape[-1:], eps=eps) * gain + shift


def callables(values):
    """f, g, m, n, a, b of the sixteen values."""
    norms = norm_of(*values[8:10]), norm_of(*values[10:12])
    adapters = delta_of(*values[12:14]), delta_of(*values[14:])
    return below_of(*values[:4]), below_of(*values[4:8]), *norms, *adapters


def of_values(formula):
    return lambda x, *values: formula(x, *callables(values))


@dataclass(frozen=True)
class HoulsbyLayer(Layer):
    """A mistake has several forms: the nearest to what came stands for it."""

    def mistakes(self, x, got=None, slips=None):
        slips = SLIPS if slips is None else slips
        return {bug: partial(self.nearest, x, got, forms) for bug, forms in slips.items()}

    def nearest(self, x, got, forms):
        wide = callables([v.double() for v in self.values])
        values = [form(x.double(), *wide) for form in forms]
        if not isinstance(got, Tensor) or got.shape != values[0].shape:
            return values[0]
        return min(values, key=lambda v: float((v - got.double()).abs().sum()))


# What the block is made of


def norm(gain, shift):
    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.LayerNorm(len(gain), bias=False, device=gain.device, dtype=gain.dtype)
            self.shift = nn.Parameter(shift.clone())

        def forward(self, x):
            note(self)
            return self.inner(x) + self.shift

    built = Norm()
    with torch.no_grad():
        built.inner.weight.copy_(gain)
    return built


def six(residual, *values):
    norms = norm(*values[8:10]), norm(*values[10:12])
    adapters = adapter(residual, *values[12:14]), adapter(residual, *values[14:])
    return sublayer(*values[:4]), sublayer(*values[4:8]), *norms, *adapters


def make(kata, train_norms, residual, *values):
    return kata.HoulsbyBlock(*six(residual, *values), train_norms=train_norms)


def fill(block, *values):
    for name, given in zip(PARTS, six(True, *values)):
        getattr(block, name).load_state_dict(given.state_dict())


def layer(draw, dtype=torch.float32, train_norms=False):
    below = ((MID, D, 0.4), (MID, 0.5), (D, MID, 0.5), (D, 1.0))
    sizes = (*below, *below, *((D, 1.0),) * 4, *((LOW, D, 0.3), (D, LOW, 0.8)) * 2)
    values = tuple(draw(*shape, std=std, dtype=dtype) for *shape, std in sizes)
    return HoulsbyLayer(make, fill, of_values(RIGHT), {}, values, D, (train_norms, True))


def layers(draw, **kind):
    return layer(draw, **kind), layer(draw, **kind)


# shape


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """Inputs are (..., d): from none to four leading dimensions, of size one too."""
    properties.leading_dimensions(stage, draw, layer(draw))


@part("shape")
def test_non_contiguous_input(stage, draw):
    """Inputs need not be contiguous."""
    properties.non_contiguous(stage, draw, layer(draw))


def mixing(kata, x, sizes, dim):
    class Mixer(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.size = size

        def forward(self, x):
            return x.cumsum(dim) * self.size

        def forward_delta(self, x):
            return x.cumsum(dim) * self.size

    return kata.HoulsbyBlock(*map(Mixer, sizes))(x)


def mixes(shaped, size, dim):
    return lambda h: (shaped(h).cumsum(dim) * size).reshape(h.shape)


@part("shape")
def test_all_see_the_whole_input(stage, draw):
    """Each module gets its input in its own shape: such as mix positions (attention), or the first
    dimension, work, also without parameters, and an adapter without a forward."""
    sizes = (0.5, 0.3, 0.4, 0.6, 0.2, 0.35)
    for lead, dim in (((3, 4), -2), ((3, 2, 4), 0), ((3, 4), 0), ((4,), 0), ((), 0)):
        x = draw(*lead, D)
        y, wide = stage(mixing, x, sizes, dim), x.double()
        flat = (  # of the forms that reshape for some of the six
            RIGHT(wide, *map(mixes, way, sizes, [dim] * 6))
            for shaped in (by_token, with_one_batch)
            for way in product((as_it_is, shaped), repeat=6)
        )
        want = RIGHT(wide, *(mixes(as_it_is, size, dim) for size in sizes))
        what = f"the output for x {tuple(x.shape)} with modules that sum along dimension {dim}"
        right = isinstance(y, Tensor) and close(y, want, 1e-4, 1e-5)
        lost = isinstance(y, Tensor) and not right and any(close(y, v, 1e-4, 1e-5) for v in flat)
        near(y, want, what=what, bug="leading-dims-lost" if lost else None)


# init


def identities(kata, arguments):
    given = dict(zip(PARTS, six(*arguments)))
    before = [p for m in given.values() for p in m.parameters()]
    kept = [p.detach().clone() for p in before]
    block = kata.HoulsbyBlock(*given.values())
    turned = kata.HoulsbyBlock(train_norms=True, **dict(reversed(given.items())))
    now = [p for m in given.values() for p in m.parameters()]
    inside = list(block.modules())
    other = {n: type(need(block, n)).__name__ for n, m in given.items() if need(block, n) is not m}
    return {
        "other": other,
        "named": all(getattr(turned, n) is m for n, m in given.items()),
        "outside": [n for n, m in given.items() if all(m is not o for o in inside)],
        "replaced": [id(p) for p in before] != [id(p) for p in now],
        "values": all(torch.equal(p, q) for p, q in zip(kept, now)),
    }


@part("init")
def test_keeps_the_modules_passed_in(stage, draw):
    """The six attributes are the very modules passed in, their values untouched."""
    got = stage(identities, layer(draw).arguments[1:])
    for name, kind in got["other"].items():
        text = f"`{name}` should be the very module passed in, not another object, of type {kind}"
        require(False, text)
    require(not got["replaced"], "parameters of the modules passed in were replaced by others")
    require(got["values"], "the values of the modules passed in have changed")
    require(got["named"], "arguments given by keyword, in another order, are taken for others")
    for name in got["outside"]:
        text = f"`{name}` is not among the block's modules()"
        require(False, text, "module-not-registered")


# freeze


def flags(kata, arguments, arrive, given, x):
    parts = six(*arguments)
    parts[0].norm1, parts[1].layer_norm = nn.LayerNorm(3), nn.LayerNorm(3)
    for module in parts[:4]:
        module.requires_grad_(arrive)
    for module in parts[4:]:
        module.norm, module.kept_norm = nn.LayerNorm(3), nn.LayerNorm(3).requires_grad_(False)
    names = PARTS
    ours = {f"{n}.{k}": p for n, m in zip(names, parts) for k, p in m.named_parameters()}
    block = kata.HoulsbyBlock(*parts, *given)
    at_once = [n for n, p in ours.items() if p.requires_grad]
    block.eval()
    asleep = [n for n, p in ours.items() if p.requires_grad]
    block.train()
    block.load_state_dict(block.state_dict())
    y = block.to(x.dtype)(x)
    if y.requires_grad:
        y.square().sum().backward()
    known, inside = {id(p) for p in ours.values()}, {id(p) for p in block.parameters()}
    return {
        "at_once": at_once,
        "asleep": asleep,
        "later": [n for n, p in ours.items() if p.requires_grad],
        "grads": [n for n, p in ours.items() if p.grad is not None],
        "outside": [n for n, p in ours.items() if id(p) not in inside],
        "extra": [n for n, p in block.named_parameters() if p.requires_grad and id(p) not in known],
    }


def seen(stage, draw):
    """What trains, by whether the norms do and whether attn, ffn and norms arrive trainable."""
    arguments = layer(draw).arguments[1:]
    for given, arrive in product(((), (False,), (True,)), (True, False)):
        with blame("needed-by-backward", IN_PLACE):
            got = stage(flags, arguments, arrive, given, draw(5, D))
        yield given == (True,), got


def among(names, *parts):
    return [name for name in names if name.startswith(parts)]


@part("freeze")
def test_sublayers_are_frozen(stage, draw):
    """No parameter of attn and ffn, layer norms inside them too, requires or receives a gradient,
    also with train_norms, and after train(), eval(), load_state_dict() and to()."""
    for _, got in seen(stage, draw):
        later = ("asleep", " after eval()"), ("later", " after eval(), train() and loading")
        for when, text in (("at_once", ""), *later):
            names = among(got[when], "attn.", "ffn.")
            inner = all("norm" in name for name in names)
            late = when == "at_once" and not among(got["later"], "attn.", "ffn.")
            known = "sublayer-norms-thawed" if inner else "sublayer-not-frozen"
            known = "frozen-too-late" if late else known if when == "at_once" else None
            require(not names, f"of the sublayers these are not frozen{text}: {names}", known)
        names = among(got["grads"], "attn.", "ffn.")
        require(not names, f"of the sublayers these get gradients: {names}")


@part("freeze")
def test_norms_train_where_asked(stage, draw):
    """All parameters of the two norms are frozen, or with train_norms=True trainable, whatever
    they arrive as; frozen is the default."""
    for trains, got in seen(stage, draw):
        for when in ("at_once", "asleep", "later"):
            on = among(got[when], "norm1.", "norm2.")
            off = [name for name in NORMS if name not in on]
            late = when == "at_once" and len(among(got["later"], "norm")) == 4 * trains
            slips = ("norms-stay-frozen", off) if trains else ("norms-not-frozen", on)
            known = slips[0] if when == "at_once" and not late and len(slips[1]) == 4 else None
            state = "do not train" if trains else "train"
            text = f"with train_norms={trains} these parameters of the norms {state}: {slips[1]}"
            require(not slips[1], text, known)
        names = among(got["grads"], "norm1.", "norm2.")
        require(len(names) == 4 * trains, f"of the norms these get gradients: {names}")


@part("freeze")
def test_adapters_are_left_as_they_arrive(stage, draw):
    """Parameters of the adapters that train go on training, frozen ones stay frozen, those of layer
    norms inside them too."""
    for _, got in seen(stage, draw):
        names = among(got["outside"], "adapter")
        require(not names, f"not among the block's parameters(): {names}", "module-not-registered")
        for when in ("at_once", "asleep", "later"):
            on = among(got[when], "adapter")
            thawed = [name for name in on if "offset" in name or "kept" in name]
            require(not thawed, f"frozen parameters train now: {thawed}", "adapter-thawed")
            require(len(on) == 10, f"of the adapters only these train: {on}", "adapter-frozen")
        count = len(among(got["grads"], "adapter"))
        known = None if count else "adapter-gets-no-gradient"
        require(count == 6, f"of the adapters' six trainable tensors {count} get a gradient", known)


@part("freeze")
def test_no_other_parameter_trains(stage, draw):
    """The block has no trainable parameter of its own."""
    for _, got in seen(stage, draw):
        require(not got["extra"], f"{', '.join(got['extra'])} trains too")


# forward


@part("forward")
def test_each_adapter_after_its_residual_sum(stage, draw):
    """h = x + attn(norm1(x)), h = h + adapter1.forward_delta(h), then the same with ffn, norm2 and
    adapter2, also with a norm of another eps."""
    properties.computes(stage, layer(draw), draw(3, 4, D))
    values = tuple(draw(*shape) for shape in ((D, D), (D,)) * 2 + ((D,),) * 4)
    values += layer(draw).values[12:]
    plain = Layer(make_plain, fill, of_plain, {}, values, D)
    what = "the output with nn.Linear and nn.LayerNorm(eps=0.5)"
    properties.computes(stage, plain, draw(5, D), what=what)


def make_plain(kata, *values):
    norms = [nn.LayerNorm(len(gain), eps=0.5) for gain in values[4:8:2]]
    for one, gain, shift in zip(norms, values[4:8:2], values[5:8:2]):
        set_(one, weight=gain, bias=shift)
    adapters = adapter(True, *values[8:10]), adapter(True, *values[10:])
    return kata.HoulsbyBlock(linear(*values[:2]), linear(*values[2:4]), *norms, *adapters)


def of_plain(x, *values):
    norms = (norm_of(*values[4:6], 0.5), norm_of(*values[6:8], 0.5))
    adapters = delta_of(*values[8:10]), delta_of(*values[10:])
    return RIGHT(x, below_of(*values[:2]), below_of(*values[2:4]), *norms, *adapters)


def own_forwards(adds):
    """The outputs of blocks that call an adapter's own forward, with and without adding h."""

    def calls(keep):
        return lambda x, f, m, a: then(lambda h: keep * h + adds * h + a(h), x + f(m(x)))

    ways = product((half, calls(0), calls(1)), repeat=2)
    return [halves(*way) for way in ways][1:]


@part("forward")
def test_uses_forward_delta_alone(stage, draw):
    """Whether an adapter's own forward adds a residual makes no difference."""
    given, x = layer(draw), draw(5, D)
    wide = callables([v.double() for v in given.values])
    got = [
        stage(properties.output_of, (False, adds, *given.values), x, **given.helpers)
        for adds in (True, False)
    ]
    known = None
    for slips in zip(own_forwards(True), own_forwards(False)):
        wrong = [slip(x.double(), *wide) for slip in slips]
        if all(isinstance(y, Tensor) and close(y, v, 1e-4, 1e-5) for y, v in zip(got, wrong)):
            known = "calls-adapter-forward"
    for y, words in zip(got, ("adds its input", "adds no residual")):
        what = f"the output with adapters whose forward {words}"
        near(y, given.output(x), what=what, unless={} if known else given.mistakes(x, y), bug=known)


def runs(kata, arguments, x):
    """In what modes each of the six ran, call by call."""
    parts = [noted(module) for module in six(*arguments)]
    answers, ran = [], []

    def call(step):
        for module in parts:
            module.modes = []
        block(x)
        ran.append((step, [module.modes for module in parts]))

    for training in (False, True):
        for module in parts:
            module.train(training)
        block = kata.HoulsbyBlock(*parts)
        call(training)
    for training in (True, False, True):
        answers.append(block.train(training) is block)
        call(training)
    answers.append(block.eval() is block)
    with torch.no_grad():
        call(False)
    return all(answers), ran


@part("forward")
def test_each_runs_once(stage, draw):
    """Each forward runs each of the six once, in training and in eval mode, also under no_grad."""
    for _, ran in stage(runs, layer(draw).arguments[1:], draw(5, D))[1]:
        for name, modes in zip(PARTS, ran):
            known = "runs-twice" if len(modes) > 1 else None
            require(len(modes) == 1, f"a forward ran `{name}` {len(modes)} times", known)


@part("forward")
def test_all_follow_train_and_eval(stage, draw):
    """train() and eval() reach all six to their depths, and return the block; making the block
    switches nothing."""
    returned, steps = stage(runs, layer(draw).arguments[1:], draw(5, D))
    for at, (training, ran) in enumerate(steps):
        for name, modes in zip(PARTS, ran):
            off = sorted(n for mode in modes for n, on in mode.items() if on != training)
            when = "in a new block" if at < 2 else "after train() or eval()"
            text = f"{when} of `{name}` these were in {'eval' if training else 'training'} mode"
            require(not off, f"{text}: {off}")
    require(returned, "block.train() or block.eval() is not block")


def make_bare(kata, train_norms, residual, *values):
    return kata.HoulsbyBlock(*[nn.Identity() for _ in range(4)], *six(residual, *values)[4:])


@part("forward")
def test_input_unchanged(stage, draw):
    """The input is not changed in place, also where norms and sublayers hand on x itself; nor is a
    tensor that a module keeps and hands out."""
    properties.input_unchanged(stage, draw, layer(draw))

    def right(x, *values):
        return RIGHT(x, *[lambda h: h] * 4, *callables(values)[4:])

    bare = replace(Layer(**vars(layer(draw))), make=make_bare, right=right)
    properties.input_unchanged(stage, draw, bare)
    properties.computes(stage, bare, draw(5, D), what="the output with nn.Identity throughout")
    x, held = draw(D), [draw(D) for _ in PARTS]
    outputs, after = stage(keeping, "HoulsbyBlock", x, held)
    for name, value, was in zip(PARTS, after, held):
        same(value, was, f"a parameter that `{name}` hands out")
    want = x.double() + sum(held[PARTS.index(n)] for n in ("attn", "ffn", "adapter1", "adapter2"))
    for y in outputs:
        near(y, want, what="the output with modules that hand out a parameter")


def make_shared(kata, train_norms, residual, *values):
    attn, ffn, norm1, _, adapter1, _ = six(residual, *values)
    return kata.HoulsbyBlock(attn, ffn, norm1, norm1, adapter1, adapter1, train_norms)


def shared(x, *values):
    f, g, m, _, a, _ = callables(values)
    return RIGHT(x, f, g, m, m, a, a)


@part("forward")
def test_shared_norms_and_adapters(stage, draw):
    """norm1 and norm2 may be one object, and so may the adapters: then they stay one."""
    given = layer(draw, train_norms=True)
    given = replace(Layer(**vars(given)), make=make_shared, right=shared)
    names = {n: place for n, place in (TRAINED | NORMS).items() if "1." in n}
    properties.computes(stage, given, draw(5, D), what="the output with one norm and one adapter")
    with blame("needed-by-backward", IN_PLACE):
        properties.gradients_of(stage, draw, given, names)


@part("forward")
def test_blocks_are_independent(stage, draw):
    """Another block around other modules changes nothing."""
    properties.independent(stage, draw, *layers(draw))


@part("forward")
def test_follows_its_parameters(stage, draw):
    """Each forward uses the values of the moment, in either mode, also under no_grad."""
    asleep = {"eval-skips-adapter": SLIPS["adapter-ignored"]}
    properties.follows_its_values(stage, draw, *layers(draw), slips={}, in_eval=asleep)


# gradient


@part("gradient")
def test_gradients_of_the_adapters(stage, draw):
    """The adapters' parameters get the exact gradients, in training and in eval mode."""
    lost = {tuple(TRAINED): "adapter-gets-no-gradient"}
    with blame("needed-by-backward", IN_PLACE):
        properties.gradients_of(stage, draw, layer(draw), TRAINED, lost=lost)


@part("gradient")
def test_gradients_of_the_norms(stage, draw):
    """With train_norms=True the norms' parameters get the exact gradients, the adapters' too."""
    with blame("needed-by-backward", IN_PLACE):
        properties.gradients_of(stage, draw, layer(draw, train_norms=True), NORMS | TRAINED)


def cut(x, f, m, a):
    """Half a block through whose sublayer no gradient flows."""
    h = x + f(m(x)).detach()
    return h + a(h)


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to the input: past, and through, each of the six."""
    given = layer(draw)
    x, g = given.pair(draw, 2, 3)
    options = given.arguments, x, g, list(TRAINED), properties.MODES, False
    with blame("needed-by-backward", IN_PLACE):
        seen = stage(properties.grads, *options, **given.helpers)
    forms = [of_values(halves(*ways)) for ways in ((cut, half), (half, cut), (cut, cut))]
    for mode, (got, there) in zip(properties.MODES, seen):
        require(got is not None, f"there is no gradient of the input ({mode} mode)")
        wrong = [given.gradients(x, g, form)[0] for form in forms]
        alive = any(value is not None for value in there)
        known = alive and any(close(got, v, 1e-4, 1e-5) for v in wrong)
        bug = "input-gradient-cut" if known else None
        near(
            got, given.gradients(x, g)[0], what=f"the gradient of the input ({mode} mode)", bug=bug
        )


@part("gradient")
def test_gradients_after_no_grad(stage, draw):
    """Nothing of a call under no_grad is kept for the next one."""
    words = {"to_input": True, "after_no_grad": True}
    with blame("needed-by-backward", IN_PLACE):
        properties.gradients_of(stage, draw, layer(draw), TRAINED, **words)


def saved_outputs(kata, x, g):
    class Squashing(nn.Module):
        def forward(self, h):
            return torch.tanh(h)

        def forward_delta(self, h):
            return torch.sigmoid(h)

    x = x.clone().requires_grad_()
    y = kata.HoulsbyBlock(*[Squashing() for _ in range(6)])(x)
    (y * g).sum().backward()
    return x.grad


@part("gradient")
def test_gradient_through_saved_outputs(stage, draw):
    """What a module gives is not changed in place: its backward may need it."""
    x, g = draw(5, D), draw(5, D)
    with blame("needed-by-backward", IN_PLACE):
        got = stage(saved_outputs, x, g)
    x = x.double().requires_grad_()
    y = RIGHT(x, *[torch.tanh] * 4, *[torch.sigmoid] * 2)
    near(got, torch.autograd.grad(y, x, g.double())[0], what="the gradient to the input")


# state


def make_noted(kata, train_norms, residual, *values):
    return kata.HoulsbyBlock(*[noted(module) for module in six(residual, *values)], train_norms)


@part("state")
def test_state_names(stage, draw):
    """The tensors of all six, buffers too, are in the state dict under their names."""
    buffers = [f"{name}.norm.running_mean" for name in PARTS]
    names = (*buffers, "attn.layers.1.weight", "ffn.lora_A", *NORMS, *TRAINED)
    properties.state_names(stage, replace(layer(draw), make=make_noted), names)


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs."""
    properties.state_round_trip(stage, draw, *layers(draw))


# dtype and device


@part("dtype")
def test_float64(stage, draw):
    """float64 modules give float64 outputs, exact to 1e-9."""
    properties.in_dtype(stage, draw, layer(draw, torch.float64))


@part("dtype")
def test_bfloat16(stage, draw):
    """bfloat16 modules give bfloat16 outputs."""
    properties.in_dtype(stage, draw, layer(draw, torch.bfloat16))


@part("device")
def test_meta_device(stage, draw):
    """Modules on the meta device stay there, and give outputs there."""
    properties.meta_device(stage, layer(draw))


# gpu


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU."""
    properties.accelerator(stage, draw, layer(draw, train_norms=True), NORMS | TRAINED)
