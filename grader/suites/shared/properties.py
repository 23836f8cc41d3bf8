"""What holds of nearly every layer, said once: the properties that suites hold theirs to.

A suite (or a family) tells of its layer how it is built and called, what it computes, and what
known mistakes make of it: a `Layer`. Each check of a suite is then a property or two, or is
written out where the kata is its own. What a property cannot know (which mistake it is when an
operation raises) is said around it: `with blame(...): gradients_of(...)`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from grader.exam.checks import (
    Raised,
    Value,
    blame,
    close,
    near,
    rejects,
    require,
    same,
    tensor,
)
from grader.exam.kit import CheapMeta, need

Formula = Callable[..., Tensor]  # of x and the layer's values, in float64

IN_PLACE = "modified by an inplace operation"  # what autograd says of a tensor it has saved
MODES = ("train", "eval")
ALL_MODES = (*MODES, "eval, no_grad")


def called(layer, x):
    return layer(x)


@dataclass(frozen=True)
class Layer:
    """One layer to be judged, with the values drawn for it.

    make: a probe's helper, `make(kata, *options, *values)` builds it; fill: `fill(layer, *values)`
    puts other values in; call: `call(layer, x)` is the output, which messages call `what`.
    right, slips: what it and known mistakes compute, from which the gradients follow. width, out:
    the last dimension of x and of the output, if that is another.

    Where there is no formula a family overrides `outputs`, `mistakes` and `gradients`.
    """

    make: Callable[..., Any]
    fill: Callable[..., Any]
    right: Formula
    slips: Mapping[str, Formula]
    values: tuple[Tensor, ...]
    width: int
    options: tuple[Any, ...] = ()
    out: int | None = None
    call: Callable[..., Any] = called
    what: str = "the output"

    @property
    def arguments(self) -> tuple[Any, ...]:
        return (*self.options, *self.values)

    @property
    def helpers(self) -> dict[str, Any]:
        return {"make": self.make, "call": self.call}

    @property
    def dtype(self) -> torch.dtype:
        return self.values[0].dtype

    def pair(self, draw: Any, *lead: int) -> tuple[Tensor, Tensor]:
        """An x, and a gradient of its output."""
        return draw(*lead, self.width), draw(*lead, self.out or self.width)

    def outputs(self, xs: Sequence[Tensor]) -> list[Tensor]:
        wide = [v.double() for v in self.values]
        return [self.right(x.double(), *wide) for x in xs]

    def output(self, x: Tensor) -> Tensor:
        return self.outputs([x])[0]

    def mistakes(
        self, x: Tensor, got: Any = None, slips: Mapping[str, Formula] | None = None
    ) -> dict[str, Value]:
        """What known mistakes make of the output, computed when asked for. got: the output that
        came, where it tells which value of a mistake is meant."""
        wide = [v.double() for v in (x, *self.values)]
        slips = self.slips if slips is None else slips
        return {bug: partial(slip, *wide) for bug, slip in slips.items()}

    def gradients(self, x: Tensor, g: Tensor, formula: Formula | None = None) -> list[Tensor]:
        """Of (output * g).sum(), to x and to each value; zero where nothing depends on one."""
        leaves = [t.double().clone().requires_grad_() for t in (x, *self.values)]
        y = (formula or self.right)(*leaves)
        return list(torch.autograd.grad(y, leaves, g.double(), materialize_grads=True))


# Shapes


def output_of(kata, arguments, x, make, call):
    return call(make(kata, *arguments), x)


def computes(stage, layer, x, *, what=None, slips=None):
    """The output for x is right. slips: what is named in the place of the layer's own."""
    y = stage(output_of, layer.arguments, x, **layer.helpers)
    known = layer.mistakes(x, y, slips)
    near(y, layer.output(x), what=what or layer.what, unless=known, dtype=x.dtype)


LEADS = ((2, 7), (2, 3, 4), (1, 1), (1,), (), (2, 1, 3, 2))


def outputs_of(kata, arguments, xs, make, call):
    outputs = []
    for x in xs:
        outputs.append(call(make(kata, *arguments), x))
    return outputs


def leading_dimensions(stage, draw, layer, leads=None, first=None, bug="leading-dims-lost"):
    """Inputs are (..., width), whatever comes before, sizes as large as the width too. The plain
    (5, width) comes first; where it raises it is `first`."""
    alike = ((layer.width,), (layer.width, layer.width))
    xs = [draw(*lead, layer.width) for lead in ((5,), *(leads or (*LEADS, *alike)))]
    with blame(first):
        outputs = [stage(output_of, layer.arguments, xs[0], **layer.helpers)]
    _of_shapes(layer, outputs, xs[:1], bug)
    with blame(bug):  # what fails from here on does so for the dimensions
        outputs = stage(outputs_of, layer.arguments, xs[1:], **layer.helpers)
    _of_shapes(layer, outputs, xs[1:], bug)


def _of_shapes(layer, outputs, xs, bug):
    for y, want, x in zip(outputs, layer.outputs(xs), xs):
        lost = isinstance(y, Tensor) and y.shape != want.shape and y.numel() == want.numel()
        what = f"{layer.what} for x {tuple(x.shape)}"
        near(y, want, what=what, unless=layer.mistakes(x, y), bug=bug if lost else None)


def views(x):
    """Views of x (width, 3, 4, width) that are not contiguous."""
    return x.transpose(0, 2), x.transpose(0, 3), x[1].transpose(0, 1), x[0, :, ::2]


def of_views(kata, arguments, x, make, call):
    layer = make(kata, *arguments)
    return [call(layer, v) for v in views(x)]


def non_contiguous(stage, draw, layer):
    """Inputs need not be contiguous."""
    x = draw(layer.width, 3, 4, layer.width)
    outputs = stage(of_views, layer.arguments, x, **layer.helpers)
    for y, want, v in zip(outputs, layer.outputs(views(x)), views(x)):
        what = f"{layer.what} for an x that is not contiguous"
        near(y, want, what=what, unless=layer.mistakes(v, y))


# How it starts


def random_start(value, other, name, bugs):
    """A parameter starts random, non-zero, with a standard deviation below 1.5. other: that of
    another instance; bugs: the mistakes "zero", "constant", "alike" (all its vectors) and
    "large"."""
    value, other = tensor(value, name).double(), other.double()
    require(bool(torch.isfinite(value).all()), f"{name} holds values that are not finite")
    require(bool((value != 0).any()), f"{name} starts at zero", bugs.get("zero"))
    rows = value.reshape(-1, value.shape[-1])
    require(bool((rows != 0).any(1).all()), f"a vector of {name} starts at zero")
    require(bool((rows != rows[0, 0]).any()), f"{name} starts constant", bugs.get("constant"))
    alike = len(rows) > 1 and bool((rows == rows[0]).all())
    require(not alike, f"all vectors of {name} start alike", bugs.get("alike"))
    std = float(value.std(correction=0))
    text = f"{name} starts with std {std:.3g}, expected below 1.5"
    require(std < 1.5, text, bugs.get("large"))
    text = f"{name} starts alike in two instances: it is not random"
    require(not torch.equal(value, other), text)


# What a forward does, and leaves alone


def returned(kata, arguments, make):
    layer = make(kata, *arguments)
    answers = layer.eval(), layer.train(), layer.train(False), layer.train(mode=True)
    return [answer is layer for answer in answers]


def modes_return_the_layer(stage, arguments, make):
    """train() and eval() return the module itself."""
    calls = ("eval()", "train()", "train(False)", "train(mode=True)")
    for call, right in zip(calls, stage(returned, arguments, make=make)):
        require(right, f"{call} returns something else than the module")


def kept_input(kata, arguments, x, make, call):
    layer = make(kata, *arguments)
    for training, grad in ((True, True), (True, False), (False, True), (False, False)):
        layer.train(training)
        with torch.set_grad_enabled(grad):
            call(layer, x)
            call(layer, x[0])
    return x


def input_unchanged(stage, draw, layer, bug="changes-input-in-place"):
    """The input, a single vector too, is not changed in place, in either mode, with and without
    gradients."""
    x = draw(5, layer.width)
    same(stage(kept_input, layer.arguments, x, **layer.helpers), x, "the input", bug)


def beside_another(kata, arguments, others, x, make, call):
    """The output after another one was made, and one of an earlier call, once others were made."""
    layer = make(kata, *arguments)
    call(make(kata, *others), x)
    with torch.no_grad():
        earlier = call(layer, x)
        call(layer, -x)
    return call(layer, x), earlier


def independent(stage, draw, layer, other, lead=(5,)):
    """Another one, made and run meanwhile, changes nothing; nor does a later call change what an
    earlier one has returned."""
    x = draw(*lead, layer.width)
    y, earlier = stage(beside_another, layer.arguments, other.arguments, x, **layer.helpers)
    near(y, layer.output(x), what=f"{layer.what} after another one was made")
    near(earlier, layer.output(x), what=f"{layer.what}, once there was another call,")


def of_the_moment(kata, arguments, values, x, modes, make, call, fill):
    seen = []
    for mode in modes:
        grad = "no_grad" not in mode
        with torch.set_grad_enabled(grad):
            layer = make(kata, *arguments)
            layer.train(mode == "train")
            call(layer, x)
            fill(layer, *values)
            seen.append((call(layer, x), call(layer, x), torch.is_grad_enabled() == grad))
    return seen


def follows_its_values(stage, draw, layer, other, *, slips=None, in_eval=None, modes=ALL_MODES):
    """Each forward uses the values of the moment (those of `other`), in either mode, also under
    no_grad. slips: what is named in each mode, in_eval: what is named in eval mode too."""
    x = draw(2, 3, layer.width)
    given, helpers = (layer.arguments, other.values, x, modes), layer.helpers
    seen, want = stage(of_the_moment, *given, **helpers, fill=layer.fill), other.output(x)
    for mode, (*outputs, left) in zip(modes, seen):
        require(left, f"making or calling it leaves grad mode changed ({mode} mode)")
        known = {**(slips or {}), **(in_eval or {} if mode != "train" else {})}
        for y in outputs:
            what = f"{layer.what} after the parameters changed ({mode} mode)"
            near(y, want, what=what, unless=other.mistakes(x, y, known))


# Gradients


def found(layer, name):
    """What a dotted name stands for."""
    for word in name.split("."):
        layer = need(layer, word)
    return layer


def grads(kata, arguments, x, g, names, modes, before, make, call):
    got = []
    for mode in modes:
        layer, leaf = make(kata, *arguments), x.clone().requires_grad_()
        layer.train(mode == "train")
        if before:
            with torch.no_grad():
                call(layer, leaf)
        y = call(layer, leaf)
        if y.requires_grad:
            (y * g).sum().backward()
        got.append((leaf.grad, [found(layer, name).grad for name in names]))
    return got


def _grads(stage, layer, x, g, names, modes, before=False):
    given = layer.arguments, x, g, list(names), modes, before
    return zip(modes, stage(grads, *given, **layer.helpers))


def gradients_of(
    stage, draw, layer, names, *, to_input=False, after_no_grad=False, lost=None, modes=MODES
):
    """The named parameters get their gradients, and the input if asked for, in either mode;
    also after a call under no_grad, of which nothing may be kept.

    names: place among the values by dotted name. lost: the mistake by the names that get none.
    """
    x, g = layer.pair(draw, 2, 3)
    want = layer.gradients(x, g)
    wants = {**({"the input": 0} if to_input else {}), **_places(names)}
    note = ", after a call under no_grad" if after_no_grad else ""
    for mode, (of_x, values) in _grads(stage, layer, x, g, names, modes, after_no_grad):
        got = {**dict(zip(names, values)), "the input": of_x}
        without = tuple(name for name in wants if got[name] is None)
        for name, place in wants.items():
            what = _gradient(layer, name, mode) + note
            require(got[name] is not None, f"there is no {what}", (lost or {}).get(without))
            near(got[name], want[place], what=f"the {what}")


def _gradient(layer, name, mode):
    through = "" if layer.what == "the output" else f" through {layer.what}"
    return f"gradient of {name}{through} ({mode} mode)"


def _places(names: Mapping[str, int]) -> dict[str, int]:
    """Where the gradients of these are among those of a layer: behind that of x."""
    return {name: 1 + place for name, place in names.items()}


def gradient_to_the_input(
    stage, draw, layer, cuts, *, none=None, needs=(), lead=(2, 3), modes=MODES
):
    """The gradient flows to the input by every path, in either mode. cuts: formulas that drop a
    path; none: the mistake where nothing arrives. needs: parameters; where none of them has a
    gradient, no other mistake than `none` is named, and that by its formula."""
    x, g = layer.pair(draw, *lead)
    want = layer.gradients(x, g)[0]
    for mode, (got, there) in _grads(stage, layer, x, g, needs, modes):
        alive = not needs or any(value is not None for value in there)
        what = _gradient(layer, "the input", mode)
        require(got is not None, f"there is no {what}", none if alive else None)
        known = {
            bug: partial(_to_input, layer, x, g, cut)
            for bug, cut in cuts.items()
            if alive or bug == none
        }
        near(got, want, what=f"the {what}", unless=known)


def _to_input(layer, x, g, formula):
    return layer.gradients(x, g, formula)[0]


# State


def names_in_state(kata, arguments, make):
    return list(make(kata, *arguments).state_dict())


def state_names(stage, layer, wanted):
    """These names are in the state dict."""
    names = stage(names_in_state, layer.arguments, make=layer.make)
    for name in wanted:
        require(name in names, f"`{name}` is not in the state dict; it holds: {', '.join(names)}")


def loaded(kata, arguments, others, x, make, call):
    first, second = make(kata, *arguments), make(kata, *others)
    call(first, x), call(second, x)
    second.load_state_dict(first.state_dict())
    return call(second, x)


def state_round_trip(stage, draw, layer, other, note="", lead=(5,)):
    """load_state_dict of another instance's state reproduces its outputs."""
    x = draw(*lead, layer.width)
    y = stage(loaded, layer.arguments, other.arguments, x, **layer.helpers)
    near(y, layer.output(x), what=f"{layer.what} after load_state_dict{note}")


# dtype and device


def in_dtype(stage, draw, layer, bug=None, lead=(5,), **tolerance):
    """Outputs have the dtype of the layer's values, to its tolerance or another one. bug: the
    mistake where a float64 one is right to the digits of a float32."""
    x = draw(*lead, layer.width, dtype=layer.dtype)
    y = stage(output_of, layer.arguments, x, **layer.helpers)
    want, wide = layer.output(x), layer.dtype == torch.float64
    rounded = wide and isinstance(y, Tensor) and y.dtype == layer.dtype
    known = bug if rounded and close(y, want, 1e-6, 1e-6) else None
    near(
        y,
        want,
        what=layer.what,
        dtype=layer.dtype,
        unless=layer.mistakes(x, y) if wide else {},
        bug=known,
        **tolerance,
    )


def on_meta(kata, arguments, x, moved, cheap, make, call):
    with CheapMeta() if cheap else torch.enable_grad():
        layer = make(kata, *arguments)
        layer = layer.to("meta") if moved else layer
        y = call(layer, x)
    return y, sorted({p.device.type for p in layer.parameters()})


def meta_device(stage, layer, moved=False):
    """A layer made of meta tensors (or `moved` there) stays there, and so do its outputs."""
    values = layer.values if moved else [v.to("meta") for v in layer.values]
    x = torch.empty(2, 5, layer.width, device="meta", dtype=layer.dtype)
    given = (*layer.options, *values), x, moved
    tried = stage.attempt(on_meta, *given, True, **layer.helpers)
    if isinstance(tried, Raised):  # what CheapMeta cannot do (subclasses of Tensor), torch may
        tried = stage(on_meta, *given, "same device" in tried.text, **layer.helpers)
    y, places = tried
    require(places == ["meta"], f"parameters are on {', '.join(places)}, not on meta alone")
    place, shape = tensor(y, layer.what).device.type, (2, 5, layer.out or layer.width)
    require(place == "meta", f"{layer.what} is on {place}, expected meta")
    require(tuple(y.shape) == shape, f"{layer.what} has shape {tuple(y.shape)}, expected {shape}")


def on_device(kata, arguments, x, g, names, device, make, call):
    arguments = [v.to(device) if isinstance(v, torch.Tensor) else v for v in arguments]
    layer, x = make(kata, *arguments).to(device), x.to(device).requires_grad_()
    y = call(layer, x)
    (y * g.to(device)).sum().backward()
    return y, x.grad, [found(layer, name).grad for name in names]


def accelerator(stage, draw, layer, names):
    """Outputs and gradients on the accelerator are those of the CPU."""
    x, g = layer.pair(draw, 4, 5)
    given = layer.arguments, x, g, list(names), stage.device
    y, got, values = stage(on_device, *given, **layer.helpers)
    near(y, layer.output(x), what=layer.what, rtol=1e-3, atol=1e-3)
    want = layer.gradients(x, g)
    near(got, want[0], what="the gradient to the input", rtol=1e-3, atol=1e-3)
    for value, (name, place) in zip(values, _places(names).items()):
        near(value, want[place], what=f"the gradient of {name}", rtol=1e-3, atol=1e-3)


# Errors


def at_least_one(stage, build, name, unchecked, zero=None, also=()):
    """`build(kata, size)` raises ValueError naming `name` for a size below 1. zero: the mistake
    where 0 alone is accepted; also: further sizes below."""
    outcomes = {size: stage.attempt(build, size) for size in (0, -1, *also)}
    checked = isinstance(outcomes[-1], Raised) and outcomes[-1].deliberate
    for size, outcome in outcomes.items():
        bug = zero if zero and checked and size == 0 else unchecked
        rejects(outcome, "ValueError", name, what=f"{name}={size}", bug=bug)
