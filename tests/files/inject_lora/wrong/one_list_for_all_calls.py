# wrong: every call empties and fills the list that the last one returned
# bug: -
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


FOUND: list[nn.Parameter] = []


def inject_lora(
    model: nn.Module, linear_names: Iterable[str], rank: int = 8, alpha: float = 16.0
) -> tuple[nn.Module, list[nn.Parameter]]:
    """Replace the named linears of a model by LoRALinear layers, in place; freeze all the rest.

    linear_names: dotted paths such as "blocks.0.attn.q_proj", also through nn.ModuleList,
        nn.Sequential and nn.ModuleDict. Any iterable, a one-shot iterator too. A name given twice
        counts once; a layer reached under two listed names is wrapped once and stays tied.
    rank, alpha: those of every new LoRALinear.

    Returns (model, lora_params): the same model object, and the list of exactly the lora_A and
    lora_B of the layers wrapped by this call, each once, in the order of linear_names, A before B.
    Every other parameter of the model is frozen afterwards, whatever it is called (`lora_gate`,
    for one), also when linear_names is empty.

    Raises, with the model left as it was:
        KeyError      naming a listed name that the model does not have
        TypeError     naming a listed module that is no nn.Linear, an adapted layer included
        ValueError    naming `rank` if rank < 1
    """
    if rank < 1:
        raise ValueError(f"rank must be at least 1, not {rank}")
    names = list(linear_names)  # read more than once below, and an iterator can't be
    # Without remove_duplicate=False a layer is found under the first of its names alone.
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in names:
        if name not in modules:
            raise KeyError(f"the model has no module {name!r}")
        if not isinstance(modules[name], nn.Linear):
            raise TypeError(f"{name!r} is a {type(modules[name]).__name__}, no nn.Linear")

    model.requires_grad_(False)  # before there are factors that must train
    wrapped: dict[nn.Module, LoRALinear] = {}
    for name in names:
        base = modules[name]
        if base not in wrapped:
            wrapped[base] = LoRALinear(base, rank, alpha)
        parent, _, child = name.rpartition(".")  # the root is called ""
        setattr(modules[parent], child, wrapped[base])
    lora_params = FOUND
    lora_params[:] = [p for layer in wrapped.values() for p in (layer.lora_A, layer.lora_B)]
    return model, lora_params
