# wrong: eval() makes the sublayer trainable, train() freezes it again
# bug: sublayer-thawed-again
"""A serial adapter behind a frozen sublayer.

Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP", section 2.1: the adapter
stands behind a sublayer of a pretrained transformer and sees what that layer hands on.
"""

import torch
import torch.nn as nn


class AdapterBlock(nn.Module):
    """A frozen sublayer with its residual, and a trainable adapter after it.

    Attributes:
        sublayer    the very module passed in; all its parameters frozen
        adapter     the very module passed in; its parameters as they arrive

    `adapter` has a method `forward_delta(h)`, which gives the change alone, without a residual.
    Its `forward` may or may not add one: it is not used. Both modules follow train() and eval();
    making the block switches neither.
    """

    def __init__(self, sublayer: nn.Module, adapter: nn.Module) -> None:
        super().__init__()
        self.sublayer = sublayer.requires_grad_(False)
        self.adapter = adapter

    def train(self, mode=True):
        super().train(mode)
        self.sublayer.requires_grad_(not mode)
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """h + adapter.forward_delta(h) with h = x + sublayer(x).

        x: (..., d), any number of leading dimensions; left unchanged. Returns the same shape.
        The sublayer runs once. Gradients flow through it to x.
        """
        h = x + self.sublayer(x)
        return h + self.adapter.forward_delta(h)
