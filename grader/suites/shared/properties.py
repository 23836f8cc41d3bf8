"""What holds of nearly every layer, said once: the properties that suites hold theirs to.

A suite tells of its layer how it is built, what it computes and what known mistakes make of it;
each check of a suite is one property, or is written out where the kata is its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from grader.exam.checks import blame, near, require, same
from grader.exam.kit import CheapMeta

Formula = Callable[..., Tensor]  # of x and the layer's values, in float64


@dataclass(frozen=True)
class Layer:
    """One layer to be judged, with the values drawn for it.

    make: a probe's helper, `make(kata, *options, *values)` builds it; fill: `fill(layer, *values)`
    puts other values in; width: of x; right, slips: what it and known mistakes compute.
    """

    make: Callable[..., Any]
    fill: Callable[..., None]
    right: Formula
    slips: Mapping[str, Formula]
    values: tuple[Tensor, ...]
    width: int
    options: tuple[Any, ...] = ()

    @property
    def arguments(self) -> tuple[Any, ...]:
        return (*self.options, *self.values)

    def output(self, x: Tensor) -> Tensor:
        return self.right(x.double(), *(v.double() for v in self.values))

    def mistakes(self, x: Tensor, slips: Mapping[str, Formula] | None = None) -> dict[str, Tensor]:
        wide = [v.double() for v in self.values]
        slips = self.slips if slips is None else slips
        return {bug: slip(x.double(), *wide) for bug, slip in slips.items()}

    def gradients(self, x: Tensor, g: Tensor, formula: Formula | None = None) -> list[Tensor]:
        """Of (output * g).sum(), to x and to each value; zero where nothing depends on one."""
        leaves = [t.double().clone().requires_grad_() for t in (x, *self.values)]
        y = (formula or self.right)(*leaves)
        return list(torch.autograd.grad(y, leaves, g.double(), materialize_grads=True))


# Shapes


def output_of(kata, arguments, x, make):
    return make(kata, *arguments)(x)


def computes(stage, layer, x, *, what="the output", slips=None, bug=None):
    """The output for x is right."""
    y = stage(output_of, layer.arguments, x, make=layer.make)
    near(y, layer.output(x), what=what, unless=layer.mistakes(x, slips), bug=bug, dtype=x.dtype)


LEADS = ((2, 7), (2, 3, 4), (1, 1), (1,), ())


def leading_dimensions(stage, draw, layer, leads=LEADS, bug="leading-dims-lost"):
    """Inputs are (..., width), whatever comes before; the plain (5, width) first."""
    for lead in ((5,), *leads):
        x = draw(*lead, layer.width)
        want, known = layer.output(x), bug if lead != (5,) else None
        with blame(known):
            y = stage(output_of, layer.arguments, x, make=layer.make)
        lost = isinstance(y, Tensor) and y.shape != want.shape and y.numel() == want.numel()
        what = f"the output for x {tuple(x.shape)}"
        near(y, want, what=what, unless=layer.mistakes(x), bug=bug if lost else None)


def strided(kata, arguments, x, make):
    layer = make(kata, *arguments)
    return layer(x.transpose(0, 1)), layer(x[:, ::2])


def non_contiguous(stage, draw, layer):
    """Inputs need not be contiguous."""
    x = draw(4, 6, layer.width)
    got = stage(strided, layer.arguments, x, make=layer.make)
    for y, view in zip(got, (x.transpose(0, 1), x[:, ::2])):
        near(y, layer.output(view), unless=layer.mistakes(view))


# What a forward does, and leaves alone


def kept_input(kata, arguments, x, mode, make):
    getattr(make(kata, *arguments), mode)()(x)
    return x


def input_unchanged(stage, draw, layer, bug="changes-input-in-place"):
    """The input is not changed in place, in either mode."""
    for mode in ("train", "eval"):
        x = draw(5, layer.width)
        same(stage(kept_input, layer.arguments, x, mode, make=layer.make), x, "the input", bug)


def beside_another(kata, arguments, others, x, make):
    layer = make(kata, *arguments)
    make(kata, *others)(x)
    return layer(x)


def independent(stage, draw, layer, other):
    """Another one, made and run meanwhile, changes nothing."""
    x = draw(5, layer.width)
    y = stage(beside_another, layer.arguments, other.arguments, x, make=layer.make)
    near(y, layer.output(x), what="the output after another one was made")


def of_the_moment(kata, arguments, values, x, mode, make, fill):
    layer = getattr(make(kata, *arguments), mode)()
    layer(x)
    fill(layer, *values)
    return layer(x), layer(x)


def follows_its_values(stage, draw, layer, other, in_eval=None):
    """Each forward uses the values of the moment, in either mode. in_eval: slips of eval mode."""
    x = draw(5, layer.width)
    helpers = {"make": layer.make, "fill": layer.fill}
    for mode in ("train", "eval"):
        known = other.mistakes(x, in_eval or {}) if mode == "eval" else {}
        for y in stage(of_the_moment, layer.arguments, other.values, x, mode, **helpers):
            what = f"the output after the parameters changed ({mode} mode)"
            near(y, other.output(x), what=what, unless=known)


# Gradients


def backward(kata, arguments, x, g, names, mode, make):
    layer = getattr(make(kata, *arguments), mode)()
    x = x.clone().requires_grad_()
    y = layer(x)
    if y.requires_grad:
        (y * g).sum().backward()
    values = {n: p.grad for n, p in layer.named_parameters(remove_duplicate=False) if n in names}
    return x.grad, [values.get(name) for name in names]


def gradients_of(stage, draw, layer, names, *, out=None, bug=None, slips=None):
    """The named parameters (name: place among the values) get their gradients, in either mode."""
    x, g = draw(2, 3, layer.width), draw(2, 3, out or layer.width)
    want = layer.gradients(x, g)
    for mode in ("train", "eval"):
        _, got = stage(backward, layer.arguments, x, g, list(names), mode, make=layer.make)
        for value, (name, place) in zip(got, names.items()):
            require(value is not None, f"{name} gets no gradient ({mode} mode)", bug)
            known = {b: layer.gradients(x, g, f)[1 + place] for b, f in (slips or {}).items()}
            near(value, want[1 + place], what=f"the gradient of {name}", unless=known)


def gradient_to_the_input(stage, draw, layer, cuts, *, out=None, needs=()):
    """The gradient flows to the input by every path, in either mode. cuts: formulas that drop a
    path, the first for all of them; needs: parameters without whose gradient only it applies."""
    x, g = draw(2, 3, layer.width), draw(2, 3, out or layer.width)
    whole = next(iter(cuts))
    for mode in ("train", "eval"):
        got, there = stage(backward, layer.arguments, x, g, list(needs), mode, make=layer.make)
        require(got is not None, "no gradient reaches the input", whole)
        alive = all(value is not None for value in there)
        known = {b: layer.gradients(x, g, f)[0] for b, f in cuts.items() if alive or b == whole}
        near(got, layer.gradients(x, g)[0], what="the gradient to the input", unless=known)


# State


def names_in_state(kata, arguments, make):
    return list(make(kata, *arguments).state_dict())


def state_names(stage, layer, wanted):
    """These names are in the state dict."""
    names = stage(names_in_state, layer.arguments, make=layer.make)
    for name in wanted:
        require(name in names, f"`{name}` is not in the state dict; it holds: {', '.join(names)}")


def loaded(kata, arguments, others, x, make):
    first, second = make(kata, *arguments), make(kata, *others)
    second(x)
    second.load_state_dict(first.state_dict())
    return second(x)


def state_round_trip(stage, draw, layer, other):
    """load_state_dict of another instance's state reproduces its outputs."""
    x = draw(5, layer.width)
    y = stage(loaded, layer.arguments, other.arguments, x, make=layer.make)
    near(y, layer.output(x), what="the output after load_state_dict")


# dtype and device


def in_dtype(stage, draw, layer):
    """Outputs have the dtype of the layer's values, to its tolerance."""
    dtype = layer.values[0].dtype
    computes(stage, layer, draw(5, layer.width, dtype=dtype))


def on_meta(kata, arguments, x, make):
    with CheapMeta():
        layer = make(kata, *arguments)
        y = layer(x)
    return y, sorted({p.device.type for p in layer.parameters()})


def meta_device(stage, layer):
    """A layer of meta tensors stays there, and so do its outputs."""
    arguments = (*layer.options, *(v.to("meta") for v in layer.values))
    x = torch.empty(2, 5, layer.width, device="meta", dtype=layer.values[0].dtype)
    y, places = stage(on_meta, arguments, x, make=layer.make)
    require(places == ["meta"], f"parameters are on {', '.join(places)}, not on meta alone")
    require(y.device.type == "meta", f"the output is on {y.device.type}, expected meta")
    shape = layer.output(torch.zeros(2, 5, layer.width)).shape
    require(y.shape == shape, f"the output has shape {tuple(y.shape)}")


def on_device(kata, arguments, x, g, names, device, make):
    arguments = [v.to(device) if isinstance(v, torch.Tensor) else v for v in arguments]
    layer, x = make(kata, *arguments), x.to(device).requires_grad_()
    y = layer(x)
    (y * g.to(device)).sum().backward()
    params = dict(layer.named_parameters())
    return y, [x.grad, *(params[name].grad for name in names)]


def accelerator(stage, draw, layer, names: Mapping[str, int], *, out: int | None = None) -> None:
    """Outputs and gradients on the accelerator are those of the CPU."""
    x, g = draw(4, 5, layer.width), draw(4, 5, out or layer.width)
    y, got = stage(on_device, layer.arguments, x, g, list(names), stage.device, make=layer.make)
    near(y, layer.output(x), rtol=1e-3, atol=1e-3)
    want = layer.gradients(x, g)
    for value, name, place in zip(got, ("x", *names), (0, *(1 + p for p in names.values()))):
        near(value, want[place], what=f"the gradient of {name}", rtol=1e-3, atol=1e-3)
