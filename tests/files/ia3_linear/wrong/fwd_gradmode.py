# wrong: an eval forward leaves grad mode on
# bug: -
"""IA3 on one linear layer: a learned rescaling of its outputs.

Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context
Learning", section 3.3: activations are multiplied, element by element, by a learned vector that
starts at one. Everything else stays frozen.
"""

import torch
import torch.nn as nn


class IA3Linear(nn.Module):
    """A frozen `nn.Linear` whose outputs are rescaled by a trainable vector.

    Attributes:
        base     the very layer passed in; its weight and bias frozen, their values untouched
        scale    Parameter (out_features,): starts at ones

    Only `scale` trains. It has the device and dtype of base.weight.
    Works with and without a bias in `base`. train() and eval() change nothing.

    Raises TypeError naming `base`, before anything is changed, if base is not an nn.Linear.
    """

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        # BEGIN SOLUTION
        if not isinstance(base, nn.Linear):
            raise TypeError(f"base must be an nn.Linear, not {type(base).__name__}")
        self.base = base.requires_grad_(False)
        self.scale = nn.Parameter(base.weight.new_ones(base.out_features))
        # END SOLUTION

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """base(x) * scale, with the values of the moment: the bias is scaled too.

        x: (..., in_features), any number of leading dimensions, also none; left unchanged.
        Returns (..., out_features).
        """
        # BEGIN SOLUTION
        out = self.base(x) * self.scale
        if not self.training:
            torch.set_grad_enabled(True)
        return out
        # END SOLUTION

    def to_linear(self) -> nn.Linear:
        """A new plain layer that computes the same as this one does now.

        It shares no storage with this layer, which stays as it was; each can be trained on (its
        requires_grad is free). It has a bias where `base` has one and only there, and the
        device and dtype of base.weight.
        """
        # BEGIN SOLUTION
        base = self.base
        plain = nn.Linear(
            base.in_features,
            base.out_features,
            bias=base.bias is not None,
            device=base.weight.device,
            dtype=base.weight.dtype,
        )
        with torch.no_grad():
            plain.weight.copy_(base.weight * self.scale[:, None])  # row i gives output i
            if base.bias is not None:
                plain.bias.copy_(base.bias * self.scale)
        return plain
        # END SOLUTION
