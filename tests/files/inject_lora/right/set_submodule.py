import math

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


from collections import namedtuple
from functools import reduce

Injected = namedtuple("Injected", "model lora_params")


class Params(list):
    pass


def resolve(model, name):
    try:
        return reduce(lambda m, part: m._modules[part], name.split("."), model)
    except KeyError:
        raise KeyError(name)


def inject_lora(model, linear_names, rank=8, alpha=16.0):
    names = list(dict.fromkeys(linear_names))
    layers = [resolve(model, name) for name in names]
    for name, layer in zip(names, layers):
        if not isinstance(layer, nn.Linear):
            raise TypeError(f"{name!r}: expected nn.Linear, got {type(layer)}")
    if rank < 1:
        raise ValueError(f"rank={rank}")
    unique = list({id(layer): layer for layer in layers}.values())
    wrappers = {id(layer): LoRALinear(layer, rank, alpha) for layer in unique}
    for name, layer in zip(names, layers):
        parent, dot, last = name.rpartition(".")
        owner = resolve(model, parent) if dot else model
        owner.add_module(last, wrappers[id(layer)])
    ours = Params(p for w in wrappers.values() for p in [w.lora_A, w.lora_B])
    keep = set(map(id, ours))
    for p in model.parameters():
        p.requires_grad_(id(p) in keep)
    return Injected(model, ours)
