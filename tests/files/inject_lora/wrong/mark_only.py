# wrong: parameters whose names hold lora_ stay as they are, as in loralib.
# bug: own-names-taken
"""Putting LoRA into a model that is already built.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.2: LoRA goes to any
subset of a network's weight matrices (there: the attention projections); all the rest is frozen.
"""

import math
from collections.abc import Iterable

import torch
import torch.nn as nn
import torch.nn.functional as F

# Given


class LoRALinear(nn.Module):
    """A frozen `nn.Linear` with a trainable low-rank update beside it.

    Attributes:
        base      the very layer passed in
        lora_A    Parameter (rank, in_features): starts random
        lora_B    Parameter (out_features, rank): starts at zero
        scale     alpha / rank

    The factors have the device and dtype of base.weight. Arguments are not checked.
    """

    def __init__(self, base: nn.Linear, rank: int = 8, alpha: float = 16.0) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scale = alpha / rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """base(x) + scale * (x @ lora_A.T @ lora_B.T): (..., in) -> (..., out)"""
        return self.base(x) + self.scale * F.linear(F.linear(x, self.lora_A), self.lora_B)


def inject_lora(model, linear_names, rank=8, alpha=16.0):
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")
    names = list(dict.fromkeys(linear_names))
    layers = []
    for name in names:
        try:
            layer = model.get_submodule(name)
        except AttributeError:
            raise KeyError(f"no module {name!r}") from None
        if not isinstance(layer, nn.Linear):
            raise TypeError(f"{name!r} is no nn.Linear")
        layers.append(layer)
    for n, p in model.named_parameters():
        if "lora_" not in n:
            p.requires_grad_(False)
    params, done = [], {}
    for name, layer in zip(names, layers):
        new = done.get(id(layer))
        if new is None:
            new = done[id(layer)] = LoRALinear(layer, rank, alpha)
            params += [new.lora_A, new.lora_B]
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, new)
    return model, params
