# wrong: a replacement is undone in the order it was made, so a repeat leaves the first adapter.
# bug: replaced-before-check
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


def inject_lora(
    model: nn.Module, linear_names: Iterable[str], rank: int = 8, alpha: float = 16.0
) -> tuple[nn.Module, list[nn.Parameter]]:
    if rank < 1:
        raise ValueError(f"rank must be at least 1, not {rank}")
    names = list(linear_names)  # read more than once below, and an iterator can't be
    # Without remove_duplicate=False a layer is found under the first of its names alone.
    modules = dict(model.named_modules(remove_duplicate=False))
    flags = {p: p.requires_grad for p in model.parameters()}
    undo: list = []

    def back():
        for parent, child, old in undo:
            setattr(parent, child, old)
        for p, flag in flags.items():
            p.requires_grad_(flag)

    model.requires_grad_(False)  # before there are factors that must train
    wrapped: dict[nn.Module, LoRALinear] = {}
    for name in names:
        if name not in modules or not isinstance(modules[name], nn.Linear):
            back()
            if name not in modules:
                raise KeyError(f"the model has no module {name!r}")
            raise TypeError(f"{name!r} is no nn.Linear")
        base = modules[name]
        if base not in wrapped:
            wrapped[base] = LoRALinear(base, rank, alpha)
        parent, _, child = name.rpartition(".")  # the root is called ""
        undo.append((modules[parent], child, getattr(modules[parent], child)))
        setattr(modules[parent], child, wrapped[base])
    lora_params = [p for layer in wrapped.values() for p in (layer.lora_A, layer.lora_B)]
    return model, lora_params
