# wrong: The message does not name base.
# bug: error-without-name
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
    Works with and without a bias in `base`.

    Raises TypeError naming `base`, before anything is changed, if base is not an nn.Linear.
    """

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError("wrong type")
        self.base = base.requires_grad_(False)
        self.scale = nn.Parameter(base.weight.new_ones(base.out_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """base(x) * scale: the bias is scaled too.

        x: (..., in_features), any number of leading dimensions, also none; left unchanged.
        Returns (..., out_features).
        """
        return self.base(x) * self.scale

    def to_linear(self) -> nn.Linear:
        """A new plain layer that computes the same as this one does now.

        It shares no storage with `base`, which stays as it was. It has a bias if `base` has one,
        and the device and dtype of base.weight.
        """
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
