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
    """By Module.apply, which comes to a parent after its children."""
    paths = {}
    for name, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), []).append(name)
    model.requires_grad_(False)
    known = {}

    def swap(parent):
        if isinstance(parent, LoRALinear):
            return
        for key, child in parent.named_children():
            names = [f"{path}.{key}" if path else key for path in paths.get(id(parent), [])]
            if not isinstance(child, nn.Linear) or any(name in skip for name in names):
                continue
            known[child] = known.get(child) or LoRALinear(child, rank, alpha)
        for key in parent._modules:
            if parent._modules[key] in known:
                parent._modules[key] = known[parent._modules[key]]

    model.apply(swap)
    return model, [p for layer in known.values() for n, p in layer.named_parameters(recurse=False)]
