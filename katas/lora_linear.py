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
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """base(x) + scale * (dropout(x) @ lora_A.T @ lora_B.T)

        x: (..., in_features), any number of leading dimensions, also none; left unchanged.
        Returns (..., out_features). Dropout acts on the LoRA branch only, in training only.
        While merged, the base matmul alone gives the output.
        """
        raise NotImplementedError

    def delta_weight(self) -> torch.Tensor:
        """The update as one matrix, scale * lora_B @ lora_A: (out_features, in_features)."""
        raise NotImplementedError

    def merge(self) -> None:
        """Fold the update into base.weight in place; the output stays the same.

        In place: base.weight is the same Parameter afterwards. Merging twice changes nothing.
        While merged the factors are not changed, and no state is saved or loaded.
        Source: LoRA, section 4.1, "No Additional Inference Latency".
        """
        raise NotImplementedError

    def unmerge(self) -> None:
        """Take the update out of base.weight again; training then goes on as before.

        Unmerging a layer that is not merged changes nothing.
        """
        raise NotImplementedError
