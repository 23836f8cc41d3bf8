"""DoRA on one linear layer: a low-rank update of the direction, a learned magnitude per output.

Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", section 4.1, equation 5:
W' = m (W0 + B A) / ||W0 + B A||. Each row of the weight, which makes one output, is taken apart
into its length and its direction; the norm is a constant in the backward pass (section 4.3).
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F


class DoRALinear(nn.Module):
    """A frozen `nn.Linear` of whose weight direction and magnitude are adapted apart.

    Attributes:
        base         the very layer passed in; its weight and bias frozen, their values untouched
        lora_A       Parameter (rank, in_features): starts random, 0 < std < 1.5, full row rank
        lora_B       Parameter (out_features, rank): starts at zero
        magnitude    Parameter (out_features,): starts at the norms of the rows of base.weight,
                     so that the layer starts as its base

    Only lora_A, lora_B and magnitude train. They have the device and dtype of base.weight, of
    which no row is zero. Works with and without a bias in `base`. train() and eval() change
    nothing.
    """

    def __init__(self, base: nn.Linear, rank: int = 8, alpha: float = 16.0) -> None:
        super().__init__()
        # BEGIN SOLUTION
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.magnitude = nn.Parameter(base.weight.norm(dim=1))
        self.scale = alpha / rank
        # END SOLUTION

    # BEGIN SOLUTION
    def adapted_weight(self) -> torch.Tensor:
        """W': (out_features, in_features)."""
        V = self.base.weight + self.scale * (self.lora_B @ self.lora_A)
        norm = V.detach().norm(dim=1)  # of each row; a constant for autograd
        return (self.magnitude / norm)[:, None] * V

    # END SOLUTION
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x @ W'.T + bias, where W' = magnitude[:, None] * V / ||V||, the norm that of each row,
        and V = base.weight + alpha / rank * lora_B @ lora_A.

        Nothing is added to the norm, or at most 1e-12; magnitude may have any sign.

        x: (..., in_features), any number of leading dimensions, also none; left unchanged.
        Returns (..., out_features). The bias of `base` is added as it is, not rescaled. Base,
        factors and magnitude are read anew in every call: what was changed in place shows.

        In the backward pass ||V|| is a constant: no gradient flows through the norm. With that,
        lora_A, lora_B, magnitude and x get the gradients of the formula.
        """
        # BEGIN SOLUTION
        return F.linear(x, self.adapted_weight(), self.base.bias)
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
            plain.weight.copy_(self.adapted_weight())
            if base.bias is not None:
                plain.bias.copy_(base.bias)
        return plain
        # END SOLUTION
