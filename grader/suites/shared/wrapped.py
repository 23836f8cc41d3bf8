"""A frozen nn.Linear with something that trains beside it or on it: what is asked of all of them.

A suite says of its kind of layer how one is made, what it computes and what known mistakes
compute: formulas in float64, from which the gradients follow too. A case is one layer of that
kind with an input; most checks are a property here of one or more cases.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from grader.exam.checks import (
    CheckFailed,
    Raised,
    blame,
    close,
    described,
    fail,
    near,
    rejects,
    require,
    same,
    tensor,
)
from grader.exam.kit import CheapMeta, Missing, linear, need, set_

Formula = Callable[..., Tensor]  # of x, what else forward takes, and the values
ABSENT = float("nan")  # stands for a bias in a mistake that needs one: such a value matches nothing
MODES = ("train", "eval")


@dataclass(frozen=True)
class Kind:
    """One kind of layer.

    name: its class; learned: its parameters that train. values: `values(draw, dtype, **sizes)`
    draws weight, bias and those parameters; words: `words(*values, **options)` is what the class
    is called with beside the base. right, slips: what it and known mistakes compute (a mistake of
    several forms has several formulas), called with the options by name. off: the mistake that
    the learned part is left out, and its name where that is so in eval mode alone. cuts: mistakes
    that show in the gradient to x alone, the first being that none flows through the base; traced:
    the slips that gradients may show; bends: mistakes that show in the gradients to the learned
    parameters alone. more: `more(draw, *lead)` draws what else forward takes; given: options that
    are drawn as the values are, `given(draw, dtype, **sizes)`.
    """

    name: str
    learned: tuple[str, ...]
    values: Callable[..., tuple[Tensor | None, ...]]
    right: Formula
    slips: Mapping[str, Formula | tuple[Formula, ...]]
    off: tuple[str, str]
    cuts: Mapping[str, Formula]
    traced: tuple[str, ...] = ()
    bends: Mapping[str, Formula] = field(default_factory=dict)
    words: Callable[..., dict[str, Any]] = lambda *values, **options: {}
    more: Callable[..., tuple[Any, ...]] = lambda draw, *lead: ()
    given: Callable[..., dict[str, Any]] = lambda draw, dtype, **sizes: {}

    def case(self, draw, *lead, dtype=torch.float32, bias=True, options=None, **sizes):
        """A layer with values drawn anew, and an input of this leading shape."""
        weight, own, *learned = self.values(draw, dtype=dtype, **sizes)
        values = (weight, own if bias else None, *learned)
        options = {**self.given(draw, dtype=dtype, **sizes), **(options or {})}
        return Case(self, values, None, None, (), options).at(draw, *lead)


@dataclass(frozen=True)
class Case:
    """A layer with these values, an input `x`, what else forward takes, and `g`, by which its
    outputs are multiplied before they are summed for the gradients."""

    kind: Kind
    values: tuple[Any, ...]
    x: Any
    g: Any
    more: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def at(self, draw, *lead):
        """The same layer with another input."""
        out, into = self.values[0].shape
        dtype = self.values[0].dtype
        x, g = draw(*lead, into, dtype=dtype), draw(*lead, out, dtype=dtype)
        more = self.kind.more(draw, *lead)
        return type(self)(self.kind, self.values, x, g, more, self.options)

    def having(self, other, *places):
        """It with the values of another case at these places."""
        now = list(self.values)
        for place in places:
            now[place] = other.values[place]
        return type(self)(self.kind, tuple(now), self.x, self.g, self.more, self.options)

    @property
    def dtype(self):
        return self.x.dtype

    @property
    def learned(self):
        return dict(zip(self.kind.learned, self.values[2:], strict=True))

    @property
    def fresh(self):
        """What the stage makes its layer of, as it starts; see `made`."""
        weight, bias, *_ = self.values
        words = self.kind.words(*self.values, **self.options)
        return self.kind.name, weight, bias, {}, words

    @property
    def layer(self):
        """What the stage makes its layer of; see `made`."""
        name, weight, bias, _, words = self.fresh
        return name, weight, bias, self.learned, words

    @property
    def call(self):
        """The layer, and the arguments of its forward."""
        return self.layer, self.x, self.more

    def output(self, formula=None):
        if formula is None:
            return self._output
        x, weight, bias, *learned = self._wide
        return formula(x, *self.more, weight, bias, *learned, **self.options)

    def gradients(self, formula=None):
        """Of (output * g).sum(): those to x and to each learned value."""
        if formula is None:
            return self._gradients
        x, weight, bias, *learned = self._wide
        x, *learned = leaves = [v.clone().requires_grad_() for v in (x, *learned)]
        y = formula(x, *self.more, weight, bias, *learned, **self.options)
        if not y.requires_grad:
            return [torch.zeros_like(leaf) for leaf in leaves]
        total = (y * self.g.double()).sum()
        return list(torch.autograd.grad(total, leaves, materialize_grads=True))

    @cached_property
    def _wide(self):
        return [None if v is None else v.double() for v in (self.x, *self.values)]

    @cached_property
    def _output(self):
        return self.output(self.kind.right)

    @cached_property
    def _gradients(self):
        return self.gradients(self.kind.right)

    def mistakes(self, got=None, mode="train", also=None):
        """What known mistakes make of the output, where training is right if mode is "eval"."""
        names = dict([self.kind.off]) if mode == "eval" else {}
        slips = {**self.kind.slips, **(also or {})}
        return {names.get(bug, bug): self.lazily(got, slip) for bug, slip in slips.items()}

    def lazily(self, got, slip):
        forms = slip if isinstance(slip, tuple) else (slip,)
        return lambda: nearest(got, [self.output(form) for form in forms])


def nearest(got, forms):
    """Of the values that one mistake may give, the one that `got` comes nearest to."""
    if not isinstance(got, Tensor) or got.shape != forms[0].shape or got.is_complex():
        return forms[0]
    return min(forms, key=lambda form: float((got.double() - form).abs().sum()))


def like(got, want, off=1e-3):
    """Whether it is nearly that value."""
    return isinstance(got, Tensor) and close(got, want, off, off / 10)


def shown(case):
    """Its input in words."""
    return f"x {tuple(case.x.shape)}" + " without bias" * (case.values[1] is None)


def agrees(got, want, known, what, **words):
    """near(), with known mistakes that are computed (and, given as a function, asked) only where
    the value is wrong, without those that give what is right."""
    try:
        near(got, want, what=what, **words)
    except CheckFailed:
        known = known() if callable(known) else known
        values = {bug: v() if callable(v) else v for bug, v in known.items()}
        apart = {bug: value for bug, value in values.items() if not close(value, want, 1e-2, 1e-2)}
        near(got, want, what=what, unless=apart, **words)


def computes(got, case, what="the output", mode="train", also=None, **words):
    """The output of the case is right."""
    known, words = partial(case.mistakes, got, mode, also), words | {"dtype": case.dtype}
    if case.more:  # not every mistake shows on each
        agrees(got, case.output(), known, what, **words)
    else:
        near(got, case.output(), what=what, unless=known, **words)


# What runs on the stage


def made(kata, name, weight, bias, learned, words):
    """The layer around a new base; without learned values it is as it starts."""
    layer = getattr(kata, name)(linear(weight, bias), **words)
    put(layer, learned)
    return layer


def found(layer, path):
    """What a dotted name stands for."""
    for name in path.split("."):
        layer = need(layer, name)
    return layer


def put(layer, values):
    """Write values into the tensors of these dotted names, in place."""
    for path, value in values.items():
        *owners, name = path.split(".")
        set_(found(layer, ".".join(owners)) if owners else layer, **{name: value})


def base_of(layer):
    """base, whose weight must be a Parameter; whether it is the one passed in, `init` tells."""
    base = need(layer, "base")
    if not isinstance(need(base, "weight"), nn.Parameter):
        raise Missing(f"`base.weight` is no nn.Parameter but a {type(base.weight).__name__}")
    return base


def run(layer, x, more):
    """Its output; written out, so that a message shows the call that a learner knows."""
    if not more:
        return layer(x)
    return layer(x, *more)


def outputs(kata, layer, x, more, calls, graph=True):
    """The output after each of these calls: train, eval, or others of the layer's methods."""
    layer = made(kata, *layer)
    seen = []
    with torch.set_grad_enabled(graph):
        for call in calls:
            getattr(layer, call)()
            seen.append(run(layer, x, more))
    return seen


def in_each_mode(kata, layer, x, more):
    """The outputs of a new layer in training and of one in eval mode."""
    return [outputs(kata, layer, x, more, (mode,))[0] for mode in ("train", "eval")]


def outputs_of_all(kata, cases):
    return [outputs(kata, *case) for case in cases]


def silent_outputs_of_all(kata, cases):
    """The same under no_grad, and the input as it then is."""
    seen = []
    for layer, x, more, calls in cases:
        own = x.clone()
        seen.append((outputs(kata, layer, own, more, calls, graph=False), own))
    return seen


def strided(kata, layer, x, as_views):
    layer = made(kata, *layer)
    seen = []
    for view in (x.transpose(0, 1), x[:, ::2]):
        for mode in ("train", "eval"):
            getattr(layer, mode)()
            seen.append(layer(view if as_views else view.contiguous()))
    return seen


def called_as(kata, name, weight, bias, learned, args, words, x):
    """The output of a layer that is made with these arguments, `base` by name if all are."""
    base, kind = linear(weight, bias), need(kata, name)
    layer = kind(base, *args, **words) if args or not words else kind(base=base, **words)
    set_(layer, **learned)
    return layer(x)


def attributes(kata, layer, names):
    """The attributes of a layer that is as it starts."""
    layer = made(kata, *layer)
    return [found(layer, name) for name in names]


def gradient(kata, layer, x, more, g, names, calls, follows, trains):
    """The gradients to x and to the named parameters, after calls of the layer's methods. trains:
    whether these train, or the name of the one that does."""
    layer = made(kata, *layer)
    for call in calls:
        getattr(layer, call)()
    learned = [found(layer, name) for name in names]
    still = [p for name, p in zip(names, learned) if trains not in (True, name)]
    for p in still:
        p.requires_grad_(False)
    inside = x.clone().requires_grad_(follows)
    y = run(layer, inside, more)
    if y.requires_grad:
        (y * g).sum().backward()  # y.backward(g) would import sympy
    return {
        "y": y.detach(),
        "x": inside.grad,
        "kept": inside,
        "learned": [p.grad for p in learned],
        "trains": all(p.requires_grad for p in learned),
        "thawed": any(p.requires_grad for p in still),
    }


def gradients_of_all(kata, cases, names):
    return [gradient(kata, *case[:-1], names, *case[-1]) for case in cases]


def walk(kata, layer, x, more, g, names, kept, flag, steps, graph):
    """What is seen of a layer after each step; x and what else forward takes are written into the
    same tensors, where they fit."""
    layer = made(kata, *layer)
    held, seen = [x.clone(), *(v.clone() for v in more)], []
    for verb, detail, inputs, (*weights,) in steps:
        for place, new in enumerate(inputs):
            fits = held[place].shape == new.shape
            held[place] = held[place].copy_(new) if fits else new.clone()
        g = weights[0] if weights else g
        with torch.set_grad_enabled(graph):
            take(kata, layer, verb, detail)
            if torch.is_grad_enabled() != graph:
                raise Missing(f"{detail}() under no_grad() turns gradients on")
        seen.append(look(layer, held, g, names, kept, flag, graph))
    return seen


def take(kata, layer, verb, detail):
    """call: a method; load: another layer's state; borrow: values of another layer's; set, data,
    replace: values, in place, in `.data`, or as another tensor there."""
    if verb == "call":
        getattr(layer, detail)()
    elif verb == "load":
        layer.load_state_dict(made(kata, *detail).state_dict())
    elif verb == "borrow":
        names, other = detail
        other = made(kata, *other)
        set_(layer, **{name: getattr(other, name) for name in names})
    else:
        for path, value in detail.items():
            *owner, name = path.split(".")
            owner = need(layer, owner[0]) if owner else layer
            if verb == "set":
                set_(owner, **{name: value})
            elif verb == "data":
                need(owner, name).data.copy_(value)
            else:
                need(owner, name).data = value.clone()


def look(layer, inputs, g, names, kept, flag, graph):
    owners = [base_of(layer)] if kept else []
    with torch.no_grad():
        silent = [layer(*inputs)]
        weights = [owner.weight.detach().clone() for owner in owners]
        silent.append(layer(*inputs))
        if torch.is_grad_enabled():
            raise Missing("A forward under no_grad() turns gradients on")
    seen = {
        "silent": silent,
        "weights": weights,
        "frozen": not any(p.requires_grad for owner in owners for p in owner.parameters()),
        "flag": bool(need(layer, flag)) if flag else None,
    }
    if not graph:
        return seen
    learned = [found(layer, name) for name in names]
    for p in learned:
        p.grad = None
    inside = inputs[0].clone().requires_grad_()
    y = layer(inside, *inputs[1:])
    if y.requires_grad:
        (y * g).sum().backward()
    grads = [inside.grad, *(p.grad for p in learned)]
    return {**seen, "y": y.detach().clone(), "grads": grads}


def two_calls(kata, layer, x, more, x2, more2, g, names):
    name, weight, bias, learned, words = layer
    layer = getattr(kata, name)(linear(weight, bias).requires_grad_(False), **words)
    put(layer, learned)
    x, x2 = x.clone().requires_grad_(), x2.clone().requires_grad_()
    y, y2 = run(layer, x, more), run(layer, x2, more2)
    total = (y * g).sum() + (y2 * g).sum()
    if total.requires_grad:
        total.backward()
    learned = [found(layer, name) for name in names]
    grads = [None if p.grad is None else p.grad.clone() for p in learned]
    y = run(layer, x.detach(), more)
    if y.requires_grad:
        (y * g).sum().backward()
    return [x.grad, x2.grad], grads, [p.grad for p in learned]


def wrapping(kata, name, weight, bias, learned, words):
    base = linear(weight, bias)
    kept, kept_bias = base.weight, base.bias
    inside = need(getattr(kata, name)(base, **words), "base")
    own = getattr(inside, "weight", None)
    apart = isinstance(own, torch.Tensor)
    if apart:
        apart = own.untyped_storage().data_ptr() != kept.untyped_storage().data_ptr()
    return {
        "itself": inside is base,
        "kind": type(inside).__name__,
        "copied": apart,
        "parameter": isinstance(base.weight, nn.Parameter),
        "weight kept": base.weight is kept,
        "bias kept": base.bias is kept_bias,
        "weight": base.weight,
        "bias": base.bias,
        "inside": own,
    }


def after_backward(kata, layer, values, x, more, calls):
    """What trains and what has gradients, of a layer that has run in both modes."""
    layer = made(kata, *layer)
    base = base_of(layer)
    own = {"weight": base.weight} | ({} if base.bias is None else {"bias": base.bias})
    at_once = [name for name, p in own.items() if p.requires_grad]
    put(layer, values)
    for call in calls:
        getattr(layer, call)()
    returned = [layer.train(), layer.eval()]
    for mode in ("eval", "train"):
        getattr(layer, mode)()
        y = run(layer, x, more)
        if y.requires_grad:
            y.square().sum().backward()
    own = {"weight": base.weight} | ({} if base.bias is None else {"bias": base.bias})
    return {
        "at_once": at_once,
        "leaf": base.weight.is_leaf,
        "trains": [name for name, p in own.items() if p.requires_grad],
        "grads": [name for name, p in own.items() if p.is_leaf and p.grad is not None],
        "base": [
            n
            for n, p in layer.named_parameters()
            if p.requires_grad and any(p is q for q in base.parameters())
        ],
        **learning(layer, list(values), returned),
    }


def half_frozen(kata, name, weight, bias, learned, words):
    """What of a base trains inside a layer, if its weight, or its bias, arrived frozen."""
    seen = []
    for part in ("weight", "bias"):
        base = linear(weight, bias)
        getattr(base, part).requires_grad_(False)
        base = base_of(getattr(kata, name)(base, **words))
        seen.append([own for own in ("weight", "bias") if getattr(base, own).requires_grad])
    return seen


def learning(layer, names, returned):
    """How the learned parameters of a layer are held, and what else trains."""
    learned = [found(layer, name) for name in names]
    inside = {id(p) for p in layer.parameters()}
    ours = {id(p) for p in learned}
    return {
        "kinds": [isinstance(p, nn.Parameter) for p in learned],
        "registered": [id(p) in inside for p in learned],
        "learns": [p.requires_grad for p in learned],
        "extra": [n for n, p in layer.named_parameters() if p.requires_grad and id(p) not in ours],
        "returned": all(module is layer for module in returned),
    }


def kept_inputs(kata, layer, x, more, ways):
    seen = []
    for mode, graph in ways:
        own, others = x.clone(), [v.clone() for v in more]
        with torch.set_grad_enabled(graph):
            held = made(kata, *layer)
            getattr(held, mode)()
            held(own, *others)
            kept = torch.is_grad_enabled() == graph
        seen.append((own, others, kept))
    return seen


def first_gradient(kata, layer, x, more, g, first, mode, frozen):
    """The gradient of the last learned parameter while it is as it starts."""
    name, weight, bias, values, words = layer
    base = linear(weight, bias).requires_grad_(not frozen)
    layer = getattr(kata, name)(base, **words)
    getattr(layer, mode)()
    *_, last = values
    if not getattr(layer, first).requires_grad:
        raise Missing(f"{first} does not train where the base was frozen beforehand")
    set_(layer, **{first: values[first]})
    y = run(layer, x, more)
    if y.requires_grad:
        (y * g).sum().backward()
    return getattr(layer, last).grad


def first_gradients(kata, layer, x, more, g, first, ways):
    return [first_gradient(kata, layer, x, more, g, first, *way) for way in ways]


def state_of(kata, layer):
    return list(made(kata, *layer).state_dict())


def round_trip(kata, first, second, x, more, mode):
    first, second = made(kata, *first), made(kata, *second)
    getattr(second, mode)()
    run(second, x, more)
    held = sorted(n for n, p in second.named_parameters() if p.requires_grad)
    before = run(first, x, more)
    second.load_state_dict(first.state_dict())
    if held != sorted(n for n, p in second.named_parameters() if p.requires_grad):
        raise Missing("After load_state_dict other parameters train than before")
    with torch.no_grad():
        silent = run(second, x, more)
    return before, silent, run(second, x, more)


def kinds_of(kata, layer, names):
    layer = made(kata, *layer)
    made_of = [found(layer, name) for name in names]
    return [(str(t.dtype)[6:], t.device.type, bool((t != 0).any())) for t in made_of]


def moved(kata, layer, x, g, names, steps, within):
    """Output and gradients of a layer after each .to(), its own or that of a module around it;
    under no_grad first."""
    layer, x, g = made(kata, *layer), x.to(steps[-1]).requires_grad_(), g.to(steps[-1])
    mover = nn.Sequential(layer) if within else layer
    for to in steps:
        mover = mover.to(to)
    layer = mover[0] if within else mover
    with torch.no_grad():
        silent = layer(x)
    y = layer(x)
    (y * g).sum().backward()
    return silent, y, [x.grad, *(need(layer, name).grad for name in names)]


def on_meta(kata, name, sizes, words, names, more, lead):
    out, into = sizes
    base = nn.Linear(into, out, device="meta", dtype=torch.bfloat16)
    x = torch.empty(*lead, into, device="meta", dtype=torch.bfloat16)
    with CheapMeta():
        layer = getattr(kata, name)(base, **words)
        held = [found(layer, name) for name in names]
        if any(t.device.type != "meta" for t in held):
            return held, None
        return held, run(layer, x, more)


def tried(kata, name, which, words):
    getattr(kata, name)(bad_base(which), **words)


def bad_base(which):
    if which == "look-alike":
        module = nn.Module()
        module.weight = nn.Parameter(torch.ones(6, 6))
        module.bias = None
        module.in_features = module.out_features = 6
        return module
    return {
        "Conv1d": lambda: nn.Conv1d(6, 6, 1),
        "Embedding": lambda: nn.Embedding(6, 6),
        "Sequential": lambda: nn.Sequential(nn.Linear(6, 6)),
        "Tensor": lambda: torch.zeros(6, 6),
        "NoneType": lambda: None,
    }[which]()


def after_error(kata, name, weight, words):
    """A base after it was refused: a Conv1d, or, where a weight is given, a linear. Whether it
    still trains, whether it has the parameters and the modes it had (and one that was frozen still
    is), and what these hold."""
    there = []
    for trains in (False, True):
        base = nn.Conv1d(6, 6, 1) if weight is None else linear(weight, weight[:, 0])
        kept = base.requires_grad_(trains).weight, base.bias
        try:
            getattr(kata, name)(base, **words)
        except (TypeError, ValueError) as error:
            del error
        there += [
            base._parameters.get("weight") is kept[0],
            base._parameters.get("bias") is kept[1],
        ]
        there += [base.training, trains or not any(p.requires_grad for p in kept)]
    return all(p.requires_grad for p in kept), all(there), list(kept)


def around_heir(kata, name, weight, bias, learned, words, x, plain):
    class Heir(nn.Linear):
        pass

    base = (nn.Linear if plain else Heir)(weight.shape[1], weight.shape[0])
    set_(base, weight=weight, bias=bias)
    layer = getattr(kata, name)(base, **words)
    put(layer, learned)
    return layer(x)


def on_device(kata, layer, x, more, g, names, held, method, device):
    """All that a layer gives there, and where what it holds lies."""
    name, weight, bias, values, words = layer
    words = {n: v.to(device) if isinstance(v, torch.Tensor) else v for n, v in words.items()}
    layer = getattr(kata, name)(linear(weight, bias).to(device), **words)
    places = [found(layer, name).device.type for name in held]
    put(layer, values)
    x = x.to(device).requires_grad_()
    y = run(layer, x, [v.to(device) for v in more])
    (y * g.to(device)).sum().backward()
    grads = [x.grad, *(found(layer, name).grad for name in names)]
    places.append(y.device.type)
    if not method:
        return places, y, grads, None, None
    other = getattr(layer, method)()
    other = layer if other is None else other
    where = sorted({p.device.type for p in other.parameters()})
    return places, y, grads, other(x), where


# shape


def leading_dimensions(stage, draw, kind, leads, bug):
    """The output is right whatever the leading dimensions, in both modes: `bug` where it is for
    some, and not for others, or fails."""
    case = kind.case(draw, 5)
    for lead in ((5,), *leads):
        case = case.at(draw, *lead)
        with blame(bug if lead != (5,) else None):
            got = stage(in_each_mode, *case.call)
        want = case.output()
        for mode, y in zip(MODES, got):
            lost = isinstance(y, Tensor) and y.shape != want.shape and y.numel() == want.numel()
            what = f"the output for x {tuple(case.x.shape)}" + " in eval mode" * (mode == "eval")
            computes(y, case, what, mode, bug=bug if lost else None)


def non_contiguous(stage, draw, kind, bug):
    """Inputs need not be contiguous."""
    case = kind.case(draw, 4, 6)
    stage(strided, case.layer, case.x, False)
    with blame(bug, "view size is not compatible", "contiguous"):
        got = stage(strided, case.layer, case.x, True)
    for number, y in enumerate(got):
        x = (case.x.transpose(0, 1), case.x[:, ::2])[number // 2]
        computes(y, replace(case, x=x), mode=MODES[number % 2])


def shapes(stage, case, bug="factor-transposed"):
    """The learned parameters have their shapes; `bug`: with the last two dimensions swapped."""
    got = stage(attributes, case.fresh, case.kind.learned)
    for value, (name, want) in zip(got, case.learned.items()):
        shape, right = tuple(tensor(value, name).shape), tuple(want.shape)
        turned = shape == (*right[:-2], *right[:-3:-1])
        text = f"{name} has shape {shape}, expected {right}"
        require(shape == right, text, bug if turned else None)


def all_right(stage, cases, named=lambda case: True, also=None):
    """The outputs of several layers are right, in both modes, also under no_grad, where the input
    stays as it was; named: where known mistakes show."""
    told = [(*case.call, MODES) for case in cases]
    seen = stage(outputs_of_all, told)
    silent = stage(silent_outputs_of_all, told)
    for got, (quiet, kept), case in zip(seen, silent, cases, strict=True):
        for mode, y in zip(MODES * 2, (*got, *quiet), strict=True):
            out, into = case.values[0].shape
            what = f"the output in {mode} mode of a layer {into} -> {out} for {shown(case)}"
            known = case.mistakes(y, mode, also) if named(case) else {}
            agrees(y, case.output(), known, what, dtype=case.dtype)
        same(kept, case.x, "an input under no_grad", "changes-input-in-place")


# init


def starts_as(stage, case, what="the output at the start", calls=MODES, bug=None):
    """A new layer computes what the formula gives for the values it has at its start."""
    for y in stage(outputs, case.fresh, case.x, case.more, calls):
        agrees(y, case.output(), case.mistakes(y), what, bug=bug)


def by_arguments(stage, calls, renamed=None):
    """Arguments by place and by name, and those left out, make the layer that they should. calls:
    the case that is then right, the arguments by place, those by name, what they are in words, and
    the mistake if another layer comes; renamed: that an argument has another name."""
    for case, args, words, how, bug in calls:
        name, W, b, learned, _ = case.layer
        with blame(renamed, "unexpected keyword argument"), blame(bug, "has shape"):
            y = stage(called_as, name, W, b, learned, args, words, case.x)
        known = {} if bug else case.mistakes(y)
        agrees(y, case.output(), known, f"the output of a layer made with {how}", bug=bug)


def keeps_base(stage, case, changed=None, replaced=None, bias=None):
    """`base` is the layer passed in, its values untouched. changed, replaced, bias: the mistakes
    that it holds other values or Parameters, and that a base must have a bias."""
    name, W, b, _, words = case.fresh
    for own in (b, None):
        with blame(bias if own is None else None, "NoneType"):
            got = stage(wrapping, name, W, own, {}, words)
        same(got["inside"], W, "base.weight", changed)
        same(got["weight"], W, "the weight of the layer passed in", changed)
        if own is not None:
            same(got["bias"], b, "the bias of the layer passed in", changed)
        require(own is not None or got["bias"] is None, "a base without bias has been given one")
        bug = "base-copied" if got["copied"] else None
        other = "a copy of it" if bug else f"another object ({got['kind']})"
        require(got["itself"], f"`base` should be the very layer passed in, not {other}", bug)
        bug = replaced if got["parameter"] else None
        for place in ("weight", "bias"):
            require(got[f"{place} kept"], f"base.{place} is another object than before", bug)


# freeze


def _after_backward(stage, case, calls=()):
    return stage(after_backward, case.fresh, case.learned, case.x, case.more, calls)


def base_frozen(stage, case, calls=(), tracked=None, thawed=None):
    """Weight and bias of the base do not require and never receive a gradient, also after calls
    of the layer's methods. tracked: the mistake that the weight is no leaf; thawed: by name, that
    one of the two is frozen at first only."""
    bare = replace(case, values=(case.values[0], None, *case.values[2:]))
    for one in (case, bare):
        got = _after_backward(stage, one, calls)
        none = " where the base has no bias" * (one.values[1] is None)
        require(got["leaf"], "base.weight carries a gradient graph", tracked)
        for name, bug in (("weight", "base-not-frozen"), ("bias", "bias-not-frozen")):
            if thawed and name not in got["at_once"]:
                bug = thawed.get(name)
            text = f"base.{name} is not frozen (requires_grad is True){none}"
            require(name not in got["trains"], text, None if none else bug)
        require(not got["at_once"], "the base is not yet frozen when the layer has been made")
        for name in got["grads"]:
            fail(f"base.{name} receives a gradient{none}")
    for part, trains in zip(("weight", "bias"), stage(half_frozen, *case.fresh), strict=True):
        text = f"base.{' and base.'.join(trains)} trains where the {part} arrived frozen"
        require(not trains, text)


def only_learned_train(stage, case, unregistered=None, frozen=None):
    """The learned parameters are registered and train, and no other one does; train() and eval()
    return the layer."""
    bare = replace(case, values=(case.values[0], None, *case.values[2:]))
    for one in (bare, case):
        got = _after_backward(stage, one)
        learned_train(case.kind, got, unregistered, frozen)
        others = [n for n in got["extra"] if n not in got["base"]]
        require(not others, f"another parameter trains: {', '.join(others)}", "extra-trainable")
        require(not got["base"], f"a parameter of the base trains: {', '.join(got['base'])}")
    return got


def learned_train(kind, got, unregistered=None, frozen=None):
    states = zip(kind.learned, got["registered"], got["kinds"], got["learns"], strict=True)
    for name, inside, parameter, learns in states:
        text = f"{name} is not among parameters(): no optimizer will see it"
        require(inside, text, None if parameter else unregistered)
        require(learns, f"{name} does not train (requires_grad is False)", frozen)


# forward


def without_bias(stage, draw, kind, bug, leads=((5,), (2, 3), ())):
    """A base without bias works."""
    plain = kind.case(draw, *leads[0])
    stage(in_each_mode, *plain.call)
    for lead in leads:
        case = kind.case(draw, *lead, bias=False)
        with blame(bug, "NoneType"):
            got = stage(in_each_mode, *case.call)
        for mode, y in zip(MODES, got):
            computes(y, case, f"the output for {shown(case)}", mode)


def any_alpha(stage, case, alphas):
    """The scale follows alpha, whatever its size and sign."""
    cases = [replace(case, options={**case.options, "alpha": alpha}) for alpha in alphas]
    seen = stage(outputs_of_all, [(*one.call, ("train",)) for one in cases])
    for alpha, one, (y,) in zip(alphas, cases, seen, strict=True):
        near(y, one.output(), what=f"the output with rank 3, alpha {alpha:g}")


def inputs_unchanged(stage, cases, names=("x",)):
    """No argument of forward is changed in place, in either mode, with gradients or without."""
    ways = [(mode, graph) for mode in MODES for graph in (True, False)]
    bugs = {"x": "changes-input-in-place", "adapter_ids": "changes-ids-in-place"}
    for case in cases:
        for own, others, kept in stage(kept_inputs, *case.call, ways):
            text = "making the layer or its forward leaves grad mode on that was off, or off"
            require(kept, f"{text} that was on")
            for name, got, was in zip(names, (own, *others), (case.x, *case.more), strict=True):
                same(got, was, "the input" if name == "x" else name, bugs[name])


# Steps: what is done to a layer between two calls


@dataclass(frozen=True)
class Step:
    """What is done (see `take`), in words, and the case that is right after it."""

    words: str
    verb: str
    detail: Any
    now: Case


def writing(case, other, *names, verb="set", words=None):
    """Values of another case are written into the layer."""
    held = ("base.weight", "base.bias", *case.kind.learned)
    places = [held.index(name) for name in names]
    values = {name: other.values[place] for name, place in zip(names, places)}
    values = {name: value for name, value in values.items() if value is not None}
    words = words or f"{' and '.join(names)} changed"
    return Step(words, verb, values, case.having(other, *places))


def loaded(case, other):
    now = case.having(other, *range(len(case.values)))
    return Step("load_state_dict", "load", other.layer, now)


def called(case, method):
    return Step(f"{method}()", "call", method, case)


def borrowed(case, other, *names, places, words):
    """Buffers of another layer are written into this one, which then has its values there."""
    return Step(words, "borrow", (list(names), other.layer), case.having(other, *places))


def changes(case, mode, *told):
    """The mode, and then each change in turn: the case it is from, how (see `take`), and names;
    with no names all of its state is loaded."""
    steps = [called(case, mode)]
    for other, verb, *names in told:
        words = f"{' and '.join(names)} changed" + f" ({verb})" * (verb != "set")
        now = steps[-1].now
        step = writing(now, other, *names, verb=verb, words=words) if names else loaded(now, other)
        steps.append(step)
    return steps


def walked(stage, case, steps, graph=True, kept=True, flag="", bug=None):
    """The steps, each with what was seen after it. graph: whether gradients are recorded; kept:
    whether it has a base; flag: an attribute whose truth is seen too; bug: what it is if a
    forward uses the graph of an earlier one."""
    told, before = [], case
    for step in steps:
        now = step.now
        inputs = now.x, *now.more
        if all(map(operator.is_, inputs, (before.x, *before.more))):
            inputs = ()
        told.append((step.verb, step.detail, inputs, () if now.g is before.g else (now.g,)))
        before = now
    with blame(bug, "backward through the graph a second time"):
        seen = stage(walk, *case.call, case.g, case.kind.learned, kept, flag, told, graph)
    return list(zip(steps, seen, strict=True))


def outputs_follow(walked, mode, stale=None, folded=None):
    """Each forward uses the values of the moment, and leaves them. stale: `stale(step, past)`
    gives the forms that a kept value may take, by mistake; folded: the mistake that the base's
    weight takes the learned part in."""
    past: list[Case] = []
    for step, got in walked:
        mode = _mode_after(step, mode)
        case, under = step.now, f"after {step.words} ({mode} mode"
        for weight in got["weights"]:
            changed = not torch.equal(weight, case.values[0])
            bug = folded if changed and _computes_alone(weight, case) else None
            same(weight, case.values[0], f"base.weight {under})", bug)
        for y, how in (*((y, ", no_grad)") for y in got["silent"]), (got.get("y"), ")")):
            if y is None:
                continue
            known = partial(_follows, y, step, past, mode, stale)
            agrees(y, case.output(), known, f"the output {under}{how}")
        require(got["frozen"], f"the base is no longer frozen {under})")
        past = [case, *past]


def _follows(got, step, past, mode, stale):
    """What known mistakes make of the output after a step."""
    known = step.now.mistakes(got, mode)
    for bug, kept in (stale(step, past) if stale else {}).items():
        known[bug] = partial(_nearest_output, got, kept)
    return known


def _nearest_output(got, cases):
    return nearest(got, [case.output() for case in cases])


def _mode_after(step, mode):
    return step.detail if step.verb == "call" and step.detail in MODES else mode


def _computes_alone(weight, case):
    """Whether the base with this weight computes what the whole layer does, but for the bias."""
    bare = replace(case, values=(case.values[0], None, *case.values[2:]))
    return like(case.x.double() @ weight.double().T, bare.output())


def gradients_follow(walked, mode, **words):
    """Each gradient is that of the values of the moment."""
    for step, got in walked:
        mode = _mode_after(step, mode)
        if "grads" in got:
            after = f"after {step.words} ({mode} mode)"
            right_gradients(got["grads"], step.now, after, **words)


def right_gradients(got, case, words, none=None, **tolerance):
    """The gradients to x and to the learned parameters are right. none: the mistake that there is
    none."""
    names = ("x", *case.kind.learned)
    for name, value, want in zip(names, got, case.gradients(), strict=True):
        require(value is not None, f"no gradient reaches {name} {words}", none)
        near(value, want, what=f"the gradient of {name} {words}", **tolerance)


# gradient


def seen_gradients(stage, cases, ways=((("train",), True, True),)):
    """Each case with the evidence of each way: calls before, whether x needs a gradient, whether
    the learned parameters do. All cases go the first way, the first and the last go them all."""
    ends = [id(cases[0]), id(cases[-1])]
    pairs = [(c, way) for c in cases for way in (ways if id(c) in ends else ways[:1])]
    told = [(*case.call, case.g, way) for case, way in pairs]
    seen = stage(gradients_of_all, told, cases[0].kind.learned)
    return [(*pair, got) for pair, got in zip(pairs, seen, strict=True)]


def _mode(calls):
    return next((call for call in calls if call in MODES), "train") + " mode"


def learned_gradients(stage, cases, none, in_eval=None):
    """The learned parameters get the exact gradients, in training and in eval mode, also where x
    needs none. none, in_eval: the mistakes that they get none in training, or in eval mode; there
    it is that of the kind if the output is without them."""
    train, still = ("train",), ("eval",)
    ways = ((train, True, True), (still, True, True), (train, False, True))
    kind = cases[0].kind
    if len(kind.learned) > 1:
        ways = *ways, *((train, True, name) for name in kind.learned)
    for case, (calls, follows, trains), got in seen_gradients(stage, cases, ways):
        if trains is not True:
            _trains_alone(case, trains, got)
            continue
        silent = "eval" in calls and like(got["y"], case.output(_slip(kind, kind.off[0])))
        where = f"({_mode(calls)}, {shown(case)})"
        flows = got["trains"] and (got["x"] is not None or not follows)
        bug = (in_eval if "eval" in calls else none) if flows else None
        wanted = zip(kind.learned, got["learned"], case.gradients()[1:], strict=True)
        for place, (name, value, want) in enumerate(wanted, 1):
            text = f"{name} gets no gradient {where}"
            require(value is not None, text, kind.off[1] if silent else bug)
            known = in_gradients(case, place, kind.bends)
            agrees(value, want, known, f"the gradient of {name} {where}")


def _trains_alone(case, name, got):
    """The gradient of one learned parameter where the others have been frozen."""
    place, alone = 1 + case.kind.learned.index(name), "where it trains alone"
    require(not got["thawed"], "A forward makes parameters train that were frozen")
    value = got["learned"][place - 1]
    require(value is not None, f"{name} gets no gradient {alone}")
    known = in_gradients(case, place, case.kind.bends)
    agrees(value, case.gradients()[place], known, f"the gradient of {name} {alone}")


def _slip(kind, bug):
    slip = kind.slips[bug]
    return slip[0] if isinstance(slip, tuple) else slip


def in_gradients(case, place, cuts=()):
    """What known mistakes make of a gradient: that to x, or to a learned parameter."""
    slips = {bug: _slip(case.kind, bug) for bug in case.kind.traced} | dict(cuts)
    return {bug: lambda slip=slip: case.gradients(slip)[place] for bug, slip in slips.items()}


def input_gradients(stage, cases, named=lambda case: True):
    """The gradient flows to the input by every path, in either mode, also where the learned
    parameters need none."""
    train, still = ("train",), ("eval",)
    kind = cases[0].kind
    ways = ((train, True, True), (still, True, True), (train, True, False))
    for case, (calls, _, trains), got in seen_gradients(stage, cases, ways):
        off = _slip(kind, kind.off[0])
        silent = "eval" in calls and like(got["y"], case.output(off))
        where = f"({_mode(calls)}, {shown(case)})"
        whole, *_ = kind.cuts
        flows = not trains or any(grad is not None for grad in got["learned"])
        none = f"no gradient reaches the input {where}"
        require(got["x"] is not None, none, whole if flows else None)
        same(got["kept"], case.x, "an input that requires a gradient", "changes-input-in-place")
        cuts = {whole: kind.cuts[whole], kind.off[1]: off} if silent else kind.cuts
        known = in_gradients(case, 0, cuts) if named(case) else {}
        agrees(got["x"], case.gradients()[0], known, f"the gradient to the input {where}")


def all_gradients(stage, cases, **tolerance):
    """The gradients of several layers are exact, in both modes."""
    for mode in MODES:
        for case, _, got in seen_gradients(stage, cases, (((mode,), True, True),)):
            right_gradients(
                (got["x"], *got["learned"]), case, f"({mode} mode, {shown(case)})", **tolerance
            )


def gradients_add_up(stage, case, other):
    """A layer that is called twice before the backward pass gets the sum of both gradients; those
    of a second pass are added to what is there."""
    other = replace(case, x=other.x, more=other.more)
    names = case.kind.learned
    to_x, got, later = stage(two_calls, *case.call, other.x, other.more, case.g, names)
    first, second = case.gradients(), other.gradients()
    for value, want in zip(to_x, (first[0], second[0]), strict=True):
        require(value is not None, "no gradient reaches the input of two calls")
        near(value, want, what="the gradient to the input of two calls")
    for name, value, one, two in zip(names, got, first[1:], second[1:], strict=True):
        text = f"{name} gets no gradient from two calls, where the base was frozen beforehand"
        require(value is not None, text)
        near(value, one + two, what=f"the gradient of {name} after two calls")
    for name, value, one, two in zip(names, later, first[1:], second[1:], strict=True):
        what = f"the gradient of {name} after two backward passes"
        near(value, 2 * one + two, what=what)


# state


def state_names(stage, case, names, bugs=None):
    """These names are in the state dict."""
    there = stage(state_of, case.fresh)
    for name in names:
        text = f"`{name}` is not in the state dict; it holds: {', '.join(there)}"
        require(name in there, text, bugs(name, there) if bugs else None)


def state_round_trip(stage, draw, kind, also=None, lead=(5,)):
    """load_state_dict of another instance's state reproduces its outputs. also: what mistakes
    compute of the values of both."""
    for mode in MODES:
        case, other = kind.case(draw, *lead), kind.case(draw, *lead)
        told = (case.layer, other.fresh, case.x, case.more)
        before, *after = stage(round_trip, *told, mode)
        near(before, case.output(), what="the output of a layer after another has been made")
        known = also(case, other) if also else {}
        for y in after:
            near(y, case.output(), what="the output after load_state_dict", unless=known)


# dtype and device


def learned_are(stage, case, bug="float32-factors"):
    """The learned parameters have the dtype of the base; the first one and lora_A do not start at
    zero."""
    want = str(case.values[0].dtype)[6:]
    got = stage(kinds_of, case.fresh, case.kind.learned)
    for name, (kind, _, _) in zip(case.kind.learned, got, strict=True):
        text = f"{name} is {kind}, the base is {want}"
        require(kind == want, text, bug if kind == "float32" else None)
    for place, (name, (_, _, filled)) in enumerate(zip(case.kind.learned, got, strict=True)):
        if place == 0 or name == "lora_A":
            require(filled, f"{name} starts at zero in {want}")


def in_dtype(
    stage, case, mode, output=None, coarse=None, slopes=None, none=None, cut=None, **tolerance
):
    """Outputs and gradients have the dtype of the base, to its tolerance. The mistakes: output,
    that the output has another; coarse, slopes: that it, or a gradient, is right to float32's
    precision and no better; none and cut: that no gradient reaches a parameter or the input."""
    way = (mode,), True, True
    ((_, _, got),) = seen_gradients(stage, [case], (way,))
    y = got["y"]
    known = case.mistakes(y) if case.dtype == torch.float64 else {}
    exact(y, case.output(), "the output", case, output, coarse, known, **tolerance)
    names, grads = ("x", *case.kind.learned), (got["x"], *got["learned"])
    for name, value, want in zip(names, grads, case.gradients(), strict=True):
        require(value is not None, f"no gradient reaches {name}", cut if name == "x" else none)
        exact(value, want, f"the gradient of {name}", case, None, slopes, **tolerance)


def exact(got, want, what, case, other=None, coarse=None, known=None, **tolerance):
    kind, dtype = tensor(got, what).dtype, case.dtype
    require(kind == dtype, f"{what} is {str(kind)[6:]}, expected {str(dtype)[6:]}", other)
    rough = dtype == torch.float64 and close(got, want, 1e-6, 1e-6)
    bug = coarse if rough else None
    agrees(got, want, known or {}, what, dtype=dtype, bug=bug, **tolerance)


def after_move(stage, case, to, **tolerance):
    """A layer made in float32 on the CPU works after .to() another dtype or device, also of a
    module around it; to: may be several, one after the other."""
    steps = list(to) if isinstance(to, tuple) else [to]
    how = "".join(f".to({step})" for step in steps)
    for within in (False, True):
        told = (*case.call[:2], case.g, case.kind.learned, steps, within)
        *outputs, grads = stage(moved, *told)
        after = f"after {how}" + " of a module around it" * within
        for y in outputs:
            near(y, case.output(), what=f"the output {after}", **tolerance)
        right_gradients(grads, case, after, **tolerance)


def meta_device(stage, case, bugs, held=()):
    """A base on the meta device gives a layer and outputs there. held: what is asked of it besides
    the learned parameters; bugs: what it is where the latter are on the CPU, or in float32."""
    names = (*case.kind.learned, *held)
    lead = case.x.shape[:-1]
    shape = tuple(case.values[0].shape)
    words = case.kind.words(*case.values, **case.options)
    got, y = stage(on_meta, case.kind.name, shape, words, names, case.more, lead)
    for name, value in zip(names, got, strict=True):
        place = tensor(value, name).device.type
        bug = bugs[0] if name in case.kind.learned and place == "cpu" else None
        require(place == "meta", f"{name} is on {place}; the base is on meta", bug)
    for name, value in zip(case.kind.learned, got):
        bug = bugs[1] if value.dtype == torch.float32 else None
        require(value.dtype == torch.bfloat16, f"{name} is {described(value)}", bug)
    is_on_meta(y, "output", (*lead, shape[0]))


def is_on_meta(got, what, shape):
    right = isinstance(got, Tensor) and got.device.type == "meta" and got.shape == shape
    text = f"the {what} is {described(got)}, expected bfloat16 of shape {shape} on meta"
    require(right and got.dtype == torch.bfloat16, text)


# errors


def rank_checked(stage, case, froze):
    """rank < 1 raises ValueError naming rank, before anything is changed; froze: it is not."""
    name, W, _, _, words = case.fresh
    for rank in (0, -1):
        told = {**words, "rank": rank}
        outcome = stage.attempt(made, name, W, None, {}, told)
        rejects(outcome, "ValueError", "rank", what=f"rank={rank}", bug="rank-unchecked")
        trains, there, values = stage(after_error, name, W, told)
        require(trains, "the base was frozen before ValueError was raised", froze)
        require(there, "the base has other parameters or modes after the ValueError")
        for value, was in zip(values, (W, W[:, 0].contiguous())):
            same(value, was, "what the base holds after the ValueError")


def base_checked(stage, case, froze):
    """A base that is no nn.Linear raises TypeError naming base, before anything is changed; a
    subclass of it is one. froze: the mistake that it is frozen first."""
    name, *_, words = case.fresh
    for which in ("look-alike", "Conv1d", "Embedding", "Sequential"):
        outcome = stage.attempt(tried, name, which, words)
        what = f"a base of type {which}"
        rejects(outcome, "TypeError", "base", what=what, bug="base-type-unchecked")
    trains, there, _ = stage(after_error, name, None, words)
    require(trains, "the base was frozen before TypeError was raised", froze)
    require(there, "the base has other parameters or modes after the TypeError")
    for which in ("Tensor", "NoneType"):
        outcome = stage.attempt(tried, name, which, words)
        rejects(outcome, "TypeError", "base", what=f"a base of type {which}")
    plain = stage.attempt(around_heir, *case.layer, case.x, True)
    if isinstance(plain, Raised):
        return  # other checks tell of that
    got = stage.attempt(around_heir, *case.layer, case.x, False)
    if isinstance(got, Raised):
        refused = got.deliberate and "builtins.TypeError" in got.types
        text = f"a subclass of nn.Linear as base raises {got.types[0].rpartition('.')[2]}"
        fail(f"{text}: {got.text}", "subclass-refused" if refused else None)
    near(got, tensor(plain), what="the output with a subclass of nn.Linear as the base")


# gpu


def accelerator(stage, case, held=(), bug="cpu-factors", method="", left=None):
    """Outputs and gradients on the accelerator are those of the CPU, and nothing stays behind.
    method: gives, or makes of the layer, one that computes the same; left: that is on the CPU."""
    names = (*case.kind.learned, *held)
    told = (*case.call, case.g, case.kind.learned, names, method, stage.device)
    places, y, grads, other, where = stage(on_device, *told)
    for name, place in zip((*names, "the output"), places, strict=True):
        text = f"{name} is on {place}; the base is on {stage.device}"
        require(place == stage.device, text, bug if name in case.kind.learned else None)
    off = {"rtol": 1e-3, "atol": 1e-3}
    near(y, case.output(), **off)
    right_gradients(grads, case, "on the accelerator", **off)
    if method:
        require(where == [stage.device], f"{method}(): on {', '.join(where)}", left)
        near(other, case.output(), what=f"the output after {method}()", **off)
