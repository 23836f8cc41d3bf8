# wrong: lora_A's requires_grad is taken from base: a base frozen before gives a factor that does not train
# bug: -
"""LoRA on one linear layer.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1, equation 3:
h = W0 x + (alpha / rank) B A x, with W0 frozen and only A and B trained.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F


class LoRALinear(nn.Module):
    """A frozen `nn.Linear` with a trainable low-rank update beside it.

    Attributes:
        base      the very layer passed in; its weight and bias frozen, their values untouched
        lora_A    Parameter (rank, in_features): starts random, 0 < std < 1.5, full row rank
        lora_B    Parameter (out_features, rank): starts at zero
        scale     alpha / rank
        merged    whether the update is folded into base.weight at the moment

    Only lora_A and lora_B train. They have the device and dtype of base.weight.
    Works with and without a bias in `base`. Each call uses the values of the moment: factors and
    base may have been changed in place or loaded. train() and eval() change nothing but dropout,
    and return the layer. Properties, buffers and second names beside these are free.

    Raises ValueError naming `rank` if rank < 1, and TypeError naming `base` if base is not an
    nn.Linear; both before anything is changed.
    """

    def __init__(
        self, base: nn.Linear, rank: int = 8, alpha: float = 16.0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        # BEGIN SOLUTION
        if not isinstance(base, nn.Linear):
            raise TypeError(f"base must be an nn.Linear, not {type(base).__name__}")
        if rank < 1:
            raise ValueError(f"rank must be at least 1, not {rank}")
        was = base.weight.requires_grad
        self.base = base.requires_grad_(False)
        # The update starts at zero because B does; A is random so that B gets a gradient.
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features), requires_grad=was)
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.merged = False
        # END SOLUTION

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """base(x) + scale * (dropout(x) @ lora_A.T @ lora_B.T)

        x: (..., in_features), any number of leading dimensions, also none; left unchanged.
        Returns (..., out_features). Dropout acts on the LoRA branch only, in training only.
        While merged, the base matmul alone gives the output.
        """
        # BEGIN SOLUTION
        out = self.base(x)
        if self.merged:
            return out
        low = F.linear(self.dropout(x), self.lora_A)  # (..., rank)
        return out + self.scale * F.linear(low, self.lora_B)
        # END SOLUTION

    def delta_weight(self) -> torch.Tensor:
        """The update as one matrix, scale * lora_B @ lora_A: (out_features, in_features)."""
        # BEGIN SOLUTION
        return self.scale * (self.lora_B @ self.lora_A)
        # END SOLUTION

    def merge(self) -> None:
        """Fold the update into base.weight in place; the output stays the same.

        In place: base.weight is the same Parameter afterwards. Merging twice changes nothing.
        While merged the factors are not changed, and no state is saved or loaded.
        Source: LoRA, section 4.1, "No Additional Inference Latency".
        """
        # BEGIN SOLUTION
        if not self.merged:
            with torch.no_grad():
                self.base.weight += self.delta_weight()
            self.merged = True
        # END SOLUTION

    def unmerge(self) -> None:
        """Take the update out of base.weight again; training then goes on as before.

        Unmerging a layer that is not merged changes nothing.
        """
        # BEGIN SOLUTION
        if self.merged:
            with torch.no_grad():
                self.base.weight -= self.delta_weight()
            self.merged = False
        # END SOLUTION
