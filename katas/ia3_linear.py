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
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """base(x) * scale, with the values of the moment: the bias is scaled too.

        x: (..., in_features), any number of leading dimensions, also none; left unchanged.
        Returns (..., out_features).
        """
        raise NotImplementedError

    def to_linear(self) -> nn.Linear:
        """A new plain layer that computes the same as this one does now.

        It shares no storage with this layer, which stays as it was; each can be trained on (its
        requires_grad is free). It has a bias where `base` has one and only there, and the
        device and dtype of base.weight.
        """
        raise NotImplementedError
