"""What holds of bottleneck adapters, alone or several in a stack: down_proj, an activation,
up_proj.

The values of one adapter are (down weight, down bias, up weight, up bias), in that order
everywhere; a stack's are those of its adapters one after another.
"""

import torch

from grader.exam.kit import need, set_

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
