# wrong: eval() makes the sublayer trainable, train() freezes it again
# bug: sublayer-thawed-again
"""An adapter beside a frozen sublayer.

He et al. 2022, "Towards a Unified View of Parameter-Efficient Transfer Learning", section 3.2:
a parallel adapter sees the sublayer's input, not its output.
"""

import torch
import torch.nn as nn


class ParallelAdapterBlock(nn.Module):
    """A frozen sublayer and a trainable adapter, side by side.

    Attributes:
        sublayer    the very module passed in; all its parameters frozen
        adapter     the very module passed in; its parameters as they arrive

    `adapter` has a method `forward_delta(x)`, which gives the change alone, without a residual.
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
        """sublayer(x) + adapter.forward_delta(x): both see the input.

        x: (..., d), any number of leading dimensions; left unchanged. Returns the same shape.
        The sublayer runs once. Gradients flow through both to x.
        """
        return self.sublayer(x) + self.adapter.forward_delta(x)
