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


def inject_lora(model, linear_names, rank=8, alpha=16.0):
    if rank < 1:
        raise ValueError(f"{rank=}")
    order = {}
    for name in linear_names:
        order.setdefault(name, len(order))
    found = {}

    def look(module, prefix, up):
        for key, child in module._modules.items():
            if child is None:
                continue
            path = prefix + key
            if path in order:
                found[path] = (module, key, child)
            if child not in up:
                look(child, path + ".", [*up, child])

    look(model, "", [model])
    for name in order:
        if name not in found:
            raise KeyError(f"no such layer: {name}")
        kind = type(found[name][2])
        if not issubclass(kind, nn.Linear):
            raise TypeError(f"{name} is of type {kind}")
    [p.requires_grad_(False) for p in model.parameters()]
    cache = {}
    params = []
    for name in sorted(order, key=order.get):
        module, key, child = found[name]
        fresh = child not in cache
        layer = cache.setdefault(child, LoRALinear(child, rank, alpha) if fresh else None)
        module.register_module(key, layer)
        if fresh:
            params.extend([layer.lora_A, layer.lora_B])
    return (model, params)
