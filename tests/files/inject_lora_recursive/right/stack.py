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


def inject_lora_recursive(model, rank=8, alpha=16.0, skip=()):
    """A stack in place of the recursion; every parent is worked through once."""
    for p in model.parameters():
        p.requires_grad = False
    skip = frozenset(skip)
    stack, seen, cache = [("", model)], set(), {}
    while stack:
        prefix, parent = stack.pop()
        if isinstance(parent, LoRALinear):
            continue
        for key in parent._modules:
            child = parent._modules[key]
            path = f"{prefix}.{key}".lstrip(".")
            if type(child) is nn.Linear and path not in skip:
                parent._modules[key] = cache.setdefault(
                    id(child), (cache.get(id(child)) or (LoRALinear(child, rank, alpha), child))
                )[0]
            elif child is not None and id(child) not in seen:
                seen.add(id(child))
                stack.append((path, child))
    layers = [layer for layer, _ in cache.values()]
    return model, [layer.lora_A for layer in layers] + [layer.lora_B for layer in layers]
