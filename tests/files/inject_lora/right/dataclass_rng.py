# right: a dataclass plan with slots; makes factors first; freezes by hand, preserves the RNG with fork_rng
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


import dataclasses
import typing


@dataclasses.dataclass(slots=True, frozen=True)
class Spot:
    owner: nn.Module
    key: str
    layer: nn.Linear


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
        raise ValueError("bad rank")
    plan: dict[str, Spot] = {}
    for name in linear_names:
        owner: typing.Any = model
        for part in name.split("."):
            parent, owner = owner, owner._modules.get(part) if owner is not None else None
            if owner is None:
                raise KeyError(f"{name} is not there")
        if not isinstance(owner, nn.Linear):
            raise TypeError(f"{name} is a {owner}")
        plan[name] = Spot(parent, part, owner)
    for p in model.parameters():
        p.requires_grad = False
        p.grad = None
    made: typing.Dict[int, LoRALinear] = {}
    with torch.random.fork_rng():
        for s in plan.values():
            made.setdefault(id(s.layer), LoRALinear(s.layer, rank, alpha))
            s.owner.add_module(s.key, made[id(s.layer)])
    return model, [x for m in made.values() for x in [m.lora_A, m.lora_B]]
