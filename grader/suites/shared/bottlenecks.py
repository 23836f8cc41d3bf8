"""What holds of bottleneck adapters, alone or several in a stack: down_proj, an activation,
up_proj.

The values of one adapter are (down weight, down bias, up weight, up bias), in that order
everywhere; a stack's are those of its adapters one after another.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from grader.exam.checks import close, tensor
from grader.exam.kit import Missing, need, nn, set_
from grader.suites.shared.properties import Layer

D, LOW = 10, 4
NAMES = ("down_proj.weight", "down_proj.bias", "up_proj.weight", "up_proj.bias")
PLACES = {name: place for place, name in enumerate(NAMES)}


def pieces(draw, dtype=torch.float32, d=D, low=LOW):
    """The values of one adapter: its change is as large as x."""
    return (
        draw(low, d, std=0.4, dtype=dtype),
        draw(low, std=0.8, dtype=dtype),
        draw(d, low, std=0.8, dtype=dtype),
        draw(d, std=1.0, dtype=dtype),
    )


def write(module, w1, b1, w2, b2):
    """Put these values into an adapter, on the stage."""
    set_(need(module, "down_proj"), weight=w1, bias=b1)
    set_(need(module, "up_proj"), weight=w2, bias=b2)
    return module


def forward_delta(module, x):
    return module.forward_delta(x)


# Several in a stack


def stack_of(kata, chosen, *values):
    """A stack of adapters with these values, which `chosen_of` runs with this id."""
    low, d = values[0].shape
    stack = kata.AdapterStack(d, low, len(values) // 4).to(values[0].dtype)
    stack.asked_for = chosen
    return fill_stack(stack, *values)


def fill_stack(stack, *values):
    adapters = need(stack, "adapters")
    if isinstance(adapters, (dict, nn.ModuleDict)):
        raise Missing(f"`adapters` is a {type(adapters).__name__}, it should be an nn.ModuleList")
    for number, module in enumerate(adapters):
        if own := values[4 * number : 4 * number + 4]:
            write(module, *own)
    return stack


def chosen_of(stack, x):
    return stack(x, stack.asked_for)


def changes_of(kata, arguments, xs):
    adapters = stack_of(kata, *arguments).adapters
    return [[module.forward_delta(x) for module in adapters] for x in xs]


def gradients_beside(kata, arguments, x, g):
    stack, x = stack_of(kata, *arguments), x.clone().requires_grad_()
    module = stack.adapters[stack.asked_for]
    ((x + module.forward_delta(x)) * g).sum().backward()  # what forward(x) should give
    layers = module.down_proj, module.up_proj
    return [x.grad, *(p.grad for layer in layers for p in (layer.weight, layer.bias))]


@dataclass(frozen=True)
class Chosen(Layer):
    """One adapter of a stack, which may be of the learner's own class: what is right is said of
    its forward_delta, for which the stage is asked."""

    stage: Any = None

    @property
    def places(self):
        """Where each of its parameters is among the values, by name."""
        chosen = self.options[0]
        return {f"adapters.{chosen}.{name}": 4 * chosen + place for name, place in PLACES.items()}

    def changes(self, xs):
        """What each adapter of the stack makes of each x."""
        return [
            [tensor(change, "forward_delta(x)").double() for change in changes]
            for changes in self.stage(changes_of, self.arguments, list(xs))
        ]

    def outputs(self, xs):
        changes = self.changes(xs)
        return [x.double() + own[self.options[0]] for x, own in zip(xs, changes)]

    def mistakes(self, x, got=None, slips=None):
        if slips is not None:
            return super().mistakes(x, got, slips)
        chosen, number, wide = self.options[0], len(self.values) // 4, x.double()
        changes = cache(lambda: self.changes([x])[0])

        def of(at):
            return lambda: wide + changes()[at % number]

        def off_by_one():
            before, after = (of(chosen + by)() for by in (-1, 1))
            return before if close(tensor(got), before, 1e-4, 1e-5) else after

        known = {
            "residual-missing": lambda: changes()[chosen],
            "residual-twice": lambda: 2 * wide + changes()[chosen],
            "all-adapters-summed": lambda: wide + sum(changes()),
            "all-adapters-averaged": lambda: wide + sum(changes()) / number,
            "id-off-by-one": off_by_one,
        }
        if 1 < chosen < number - 2:  # else they are what another mistake gives
            known |= {"first-adapter-always": of(0), "last-adapter-always": of(-1)}
        return known

    def gradients(self, x, g, formula=None):
        if formula is not None:
            return super().gradients(x, g, formula)
        to_x, *own = self.stage(gradients_beside, self.arguments, x, g)
        got = {4 * self.options[0] + place: grad for place, grad in enumerate(own)}
        values = [
            torch.zeros_like(v) if got.get(i) is None else got[i] for i, v in enumerate(self.values)
        ]
        return [t.double() for t in (to_x, *values)]


def one_of_several(stage, draw, number, of, dtype=torch.float32, d=D, low=LOW, values=None):
    """The adapter of that number in a stack of so many."""
    values = values or [v for _ in range(of) for v in pieces(draw, dtype, d, low)]
    words = {"call": chosen_of, "stage": stage, "options": (number,), "width": d}
    return Chosen(stack_of, fill_stack, None, {}, tuple(values), **words)
