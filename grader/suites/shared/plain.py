"""A wrapped linear of which a method makes a plain nn.Linear that computes the same."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from grader.exam.checks import blame, near, require, same, tensor
from grader.exam.kit import CheapMeta, Missing, need
from grader.suites.shared.wrapped import (
    MODES,
    agrees,
    computes,
    exact,
    is_on_meta,
    like,
    made,
    nearest,
    outputs,
    right_gradients,
    take,
)

Parts = Callable[..., tuple[Tensor, Tensor | None]]  # weight and bias, of a case's values


@dataclass(frozen=True)
class Plain:
    """What `method` gives: weight and bias as they are right and as known mistakes make them (a
    mistake of several forms has several), called with a case's values and its options by name.

    prefix: with it begin the names of the mistakes that any such method may make; dropped: the
    mistake that there is no bias, or another one than should be; unnamed: ends of names that are
    not used.
    """

    method: str
    prefix: str
    parts: Parts
    slips: Mapping[str, Parts | tuple[Parts, ...]]
    dropped: str
    unnamed: tuple[str, ...] = ()

    def bug(self, end):
        return None if end in self.unnamed else f"{self.prefix}-{end}"

    def of(self, case, parts=None):
        """Weight and bias, float64."""
        wide = [None if v is None else v.double() for v in case.values]
        return (parts or self.parts)(*wide, **case.options)

    def known(self, case, got):
        """What known mistakes make of its output."""
        x, zeros = case.x.double(), torch.zeros(len(case.values[0]), dtype=torch.float64)
        slips = {**self.slips, self.dropped: lambda *a, **o: (self.parts(*a, **o)[0], zeros)}
        return {
            bug: lambda slip=slip: self._nearest(case, x, got, slip) for bug, slip in slips.items()
        }

    def _nearest(self, case, x, got, slip):
        forms = slip if isinstance(slip, tuple) else (slip,)
        return nearest(got, [F.linear(x, *self.of(case, form)) for form in forms])


# On the stage


def plainly(kata, cases, method, names):
    return [all_of(kata, *case, method, names) for case in cases]


def all_of(kata, layer, x, mode, method, names):
    """All there is to see of what the method gives, and of the layer before and after."""
    layer = made(kata, *layer)
    getattr(layer, mode)()
    learned = [need(layer, name) for name in names]
    for p in learned:
        p.grad = torch.ones_like(p)
    learned[0].requires_grad_(mode == "train")
    objects = [*layer.modules(), *layer.parameters()]
    before = standing(layer, x)
    one = getattr(layer, method)()
    with torch.no_grad():
        other = getattr(layer, method)()
        if torch.is_grad_enabled():
            raise Missing(f"{method}() under no_grad() turns gradients on")
    seen = {"kind": type(one).__name__, "linear": isinstance(one, nn.Linear), "ours": one is layer}
    if one is layer or not isinstance(one, nn.Linear):
        return seen
    held = [*layer.parameters(), *layer.buffers()]
    seen |= {
        "ours": any(m is own for m in one.modules() for own in layer.modules()),
        "fresh": one is not other,
        "state": sorted(one.state_dict()),
        "sizes": (one.in_features, one.out_features),
        "leaf": all(p.is_leaf for p in one.parameters()),
        "weight": one.weight.detach().clone(),
        "bias": None if one.bias is None else one.bias.detach().clone(),
        "other bias": None if other.bias is None else other.bias.detach().clone(),
        "y": one(x.clone()).detach().clone(),
        "other y": other(x.clone()).detach().clone(),
        "before": before,
        "after": standing(layer, x),
        "same": all(a is b for a, b in zip(objects, [*layer.modules(), *layer.parameters()])),
        "grads": all(p.grad is not None and bool((p.grad == 1).all()) for p in learned),
        "shares": in_common(one, held) or in_common(other, held),
        "trainable": not any(p.is_inference() for p in one.parameters()),
        "ties": in_common(one, list(other.parameters())),
    }
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(1)
    seen["later"] = one(x).detach().clone()
    return seen


def standing(layer, x):
    """A layer's state, which of its parameters train, its output, and the modes of its modules."""
    tensors = {name: v for name, v in layer.state_dict().items() if isinstance(v, torch.Tensor)}
    state = {name: value.detach().clone() for name, value in tensors.items()}
    trains = sorted(n for n, p in layer.named_parameters() if p.requires_grad)
    return state, trains, layer(x.clone()).detach().clone(), [m.training for m in layer.modules()]


def in_common(one, tensors):
    """Names of the parameters that share storage with one of the tensors."""
    places = {t.untyped_storage().data_ptr() for t in tensors}
    return [n for n, p in one.named_parameters() if p.untyped_storage().data_ptr() in places]


def moments(kata, layer, method, x, mode, steps):
    """What the method gives after each step, run at the end."""
    layer = made(kata, *layer)
    getattr(layer, mode)()
    ones = []
    for verb, detail in steps:
        take(kata, layer, verb, detail)
        ones.append(getattr(layer, method)())
    return [one(x) for one in ones]


def both_train(kata, layer, method, names, x, g):
    layer = made(kata, *layer)
    one = getattr(layer, method)()
    for p in one.parameters():
        p.requires_grad_(True)
    inside = x.clone().requires_grad_()
    (one(inside) * g).sum().backward()
    own = [one.weight, one.bias]
    seen = {"grads": [inside.grad, *(p.grad for p in own)]}
    seen["untouched"] = all(p.grad is None for p in layer.parameters())
    if any(p.grad is None for p in own):
        return seen
    with torch.no_grad():
        for p in own:
            p.sub_(0.1 * p.grad)
    seen["trained"], seen["layer"] = one(x).detach().clone(), layer(x).detach().clone()
    inside = x.clone().requires_grad_()
    (layer(inside) * g).sum().backward()
    learned = [need(layer, name) for name in names]
    seen["learned"] = [inside.grad, *(p.grad for p in learned)]
    if any(p.grad is None for p in learned):
        return seen
    with torch.no_grad():
        for p in learned:
            p.sub_(0.1 * p.grad)
    return {**seen, "moved": layer(x).detach().clone(), "still": one(x).detach().clone()}


# Checks


def _plainly(stage, cases, plain, itself=None):
    """What the method gives of each of some cases with a mode, and what it leaves."""
    told = [(case.layer, case.x, mode) for case, mode in cases]
    leaf = blame(plain.bug("needs-no-grad"), "leaf Variable")
    assigned = blame(plain.bug("assigns-tensor"), "cannot assign")
    with leaf, assigned:
        seen = stage(plainly, told, plain.method, cases[0][0].kind.learned)
    for got, (case, _) in zip(seen, cases, strict=True):
        text = f"{plain.method}() returns or holds the layer that was there"
        require(not got["ours"], text, itself)
        text = f"{plain.method}() should return an nn.Linear, not a {got['kind']}"
        require(got["linear"], text, plain.bug("not-linear"))
        yield case, got


def computes_the_same(stage, draw, kind, plain, sizes, itself=None, also=()):
    """The method gives a plain nn.Linear that computes the same; it has a bias if the base has
    one. itself: the mistake that it gives the layer, or what is in it; also: further cases."""
    first = kind.case(draw, 5)
    computes(stage(outputs, *first.call, ("train",))[0], first)
    for bias, modes in ((True, MODES), (False, ("eval",))):
        cases = [(kind.case(draw, 5, bias=bias, **one), mode) for one in sizes for mode in modes]
        with blame(None if bias else plain.bug("needs-bias"), "NoneType"):
            for case, got in _plainly(stage, cases, plain, itself):
                _is_plain(got, case, plain)
    weight, bias, *learned = first.values
    zero = replace(first, values=(weight, 0 * bias, *learned))
    cases = [(case, mode) for case in (zero, *also) for mode in MODES]
    for case, got in _plainly(stage, cases, plain, itself):
        _is_plain(got, case, plain, named=False)


def _is_plain(got, case, plain, named=True):
    what, (weight, bias) = f"{plain.method}()", plain.of(case)
    names, wanted = got["state"], ["weight"] if bias is None else ["bias", "weight"]
    bug = plain.dropped if names == ["weight"] else None
    if names == ["bias", "weight"] and "base.bias" not in got["before"][0]:
        bug = plain.bug("adds-bias")
    require(names == wanted, f"{what} holds {', '.join(names)}, expected {', '.join(wanted)}", bug)
    out, into = weight.shape
    # The bias that a new nn.Linear draws is another one at each call.
    drawn = bias is not None and not torch.equal(got["bias"], got["other bias"])
    bug = plain.dropped if drawn else None
    # A single scale or bias may be such that a mistake does not show.
    known = plain.known(case, got["y"]) if named and out > 1 and into > 1 else {}
    agrees(got["y"], case.output(), known, f"the output of {what}", bug=bug, rtol=2e-4)
    near(got["other y"], case.output(), what=f"the output of {what} under no_grad", rtol=2e-4)
    near(got["weight"], weight, what=f"the weight of {what}")
    if bias is not None:
        near(got["bias"], bias, what=f"the bias of {what}", bug=bug)
    require(got["leaf"], f"the parameters of {what} carry a gradient graph")
    text = f"the parameters of {what} cannot be trained: they were made in inference mode"
    require(got["trainable"], text, plain.bug("cannot-train"))
    text = f"in_features, out_features of {what} are {got['sizes']}, expected {(into, out)}"
    require(tuple(got["sizes"]) == (into, out), text)


def leaves_the_layer(stage, cases, plain, changed, thawed=None, itself=None):
    """The layer stays as it was, and goes on computing the same. changed: `changed(name)` is the
    mistake that this tensor of its state is another (or trains no more); thawed: that others
    train."""
    after = f"after {plain.method}()"
    both = [(case, mode) for case in cases for mode in MODES]
    for case, got in _plainly(stage, both, plain, itself):
        (born, trained, y, modes), (state, trains, still, later) = got["before"], got["after"]
        require(state.keys() == born.keys(), f"the state dict has other names {after}")
        for name, value in born.items():
            same(state[name], value, f"`{name}` {after}", changed(name))
        require(got["same"], f"modules or parameters of the layer are other objects {after}")
        more = sorted(set(trains) - set(trained))
        bug = None if set(more) & set(case.kind.learned) else thawed
        require(not more, f"{', '.join(more)} trains {after}", bug)
        for name in set(trained) - set(trains):
            require(False, f"{name} no longer trains {after}", changed(name))
        bug = changed("") if like(y, case.output()) else None
        near(still, y.double(), what=f"the layer's output {after}", bug=bug)
        near(still, case.output(), what=f"the layer's output {after}")
        require(got["grads"], f"the gradients of the layer's parameters are others {after}")
        text = f"{plain.method}() changes the layer between train() and eval()"
        require(modes == later, text, changed(""))


def shares_nothing(stage, cases, plain, itself=None, shared=None, cached=None):
    """What the method gives shares no storage: what comes later does not reach it. cached: the
    mistake that two calls give one layer."""
    both = [(case, mode) for case in cases for mode in MODES]
    for _, got in _plainly(stage, both, plain, itself):
        require(got["fresh"], f"two calls of {plain.method}() return one layer", cached)
        names = " and ".join(got["shares"])
        require(not names, f"{names} of {plain.method}() shares storage with the layer", shared)
        names = " and ".join(got["ties"])
        require(not names, f"two calls of {plain.method}() give layers that share their {names}")
        what = "its output after the layer's values changed"
        near(got["later"], got["y"].double(), what=what)


def of_the_moment(stage, case, plain, steps, kept=None):
    """Each call of the method gives another layer with the values of that moment; kept: the
    mistake that it has earlier ones."""
    told = [(step.verb, step.detail) for step in steps]
    for mode in MODES:
        before = case
        seen = stage(moments, case.layer, plain.method, case.x, mode, told)
        for y, step in zip(seen, steps, strict=True):
            known = {kept: before.output} if kept and before is not step.now else {}
            what = f"the output of {plain.method}() after {step.words}"
            agrees(y, step.now.output(), known, what, rtol=2e-4)
            before = step.now


def each_trains(stage, case, plain):
    """What the method gives can be trained, and the layer itself goes on training, each for
    itself."""
    list(_plainly(stage, [(case, "train")], plain))
    told = (case.layer, plain.method, case.kind.learned, case.x, case.g)
    with blame(plain.bug("cannot-train"), "inference", "Inference"):
        got = stage(both_train, *told)
    g, x, (weight, bias) = case.g.double(), case.x.double(), plain.of(case)
    grads = g @ weight, g.T @ x, g.sum(0)
    for name, value, want in zip(("x", "its weight", "its bias"), got["grads"], grads):
        require(value is not None, f"the layer of {plain.method}() gives {name} no gradient")
        near(value, want, what=f"the gradient that the new layer gives {name}")
    require(got["untouched"], "training the new layer gives the old one gradients")
    trained = F.linear(x, weight - 0.1 * grads[1], bias - 0.1 * grads[2])
    near(got["trained"], trained, what="the output of the new layer after a step")
    what = "the layer's output after the new one was trained"
    near(got["layer"], case.output(), what=what)
    right_gradients(got["learned"], case, f"after {plain.method}()")
    to_learned = case.gradients()[1:]
    stepped = [v.double() - 0.1 * to for v, to in zip(case.values[2:], to_learned)]
    moved = replace(case, values=(*case.values[:2], *stepped))
    near(got["moved"], moved.output(), what="the layer's output after a step")
    near(got["still"], trained, what="the new layer's output after the old one was trained")


def loaded_computes(kata, first, second, method, x):
    first, second = made(kata, *first), made(kata, *second)
    second.load_state_dict(first.state_dict())
    return getattr(second, method)()(x)


def after_loading(stage, draw, kind, plain):
    """After load_state_dict the method gives what the loaded values compute."""
    case, other = kind.case(draw, 5), kind.case(draw, 5)
    y = stage(loaded_computes, case.layer, other.fresh, plain.method, case.x)
    what = f"the output of {plain.method}() after load_state_dict"
    near(y, case.output(), what=what, rtol=2e-4)


def given(kata, layer, method, x):
    layer = made(kata, *layer)
    one = getattr(layer, method)()
    alike = one.weight.dtype == x.dtype
    shares = in_common(one, [*layer.parameters(), *layer.buffers()])
    return one.weight, one.bias, shares, one(x) if alike else None


def in_dtype(stage, case, plain, coarse, other=None, **tolerance):
    """What the method gives has the dtype of the base. coarse, other: the mistakes that it is
    float32, or right to no better precision, and that it has another dtype."""
    *got, shares, y = stage(given, case.layer, plain.method, case.x)
    for name, value, want in zip(("weight", "bias"), got, plain.of(case), strict=True):
        what = f"the {name} of {plain.method}()"
        if want is None:
            require(value is None, f"without a bias in base, {plain.method}() gives one")
            continue
        single = tensor(value, what).dtype == torch.float32
        exact(value, want, what, case, coarse if single else other, coarse, **tolerance)
    exact(y, case.output(), f"the output of {plain.method}()", case, **tolerance)
    text = f"{' and '.join(shares)} of {plain.method}() shares storage with the layer"
    require(not shares, text)


def given_on_meta(kata, name, sizes, words, method):
    out, into = sizes
    with CheapMeta():
        base = nn.Linear(into, out, device="meta", dtype=torch.bfloat16)
        one = getattr(getattr(kata, name)(base, **words), method)()
    return list(one.parameters()), one.weight


def on_meta(stage, case, plain, left=None):
    """Of a layer on the meta device the method gives one there; left: it is on the CPU."""
    sizes = tuple(case.values[0].shape)
    told = (case.kind.name, sizes, case.fresh[-1], plain.method)
    parameters, weight = stage(given_on_meta, *told)
    require(parameters, f"{plain.method}() gives a layer without parameters")
    for value in parameters:
        place = tensor(value, "a parameter").device.type
        text = f"{plain.method}() is on {place}; the base is on meta"
        require(place == "meta", text, left if place == "cpu" else None)
    is_on_meta(weight, f"weight of {plain.method}()", sizes)
