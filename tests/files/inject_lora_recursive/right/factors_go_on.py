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


def linears(module, path=()):
    """(parent, key, dotted name) of all plain linears below a module."""
    if not isinstance(module, LoRALinear):
        for key, child in module._modules.items():
            if isinstance(child, nn.Linear):
                yield module, key, ".".join((*path, key))
            elif child is not None:
                yield from linears(child, (*path, key))


def inject_lora_recursive(model, rank=8, alpha=16.0, skip=()):
    """Factors that were there before keep training."""
    before = [m for m in model.modules() if isinstance(m, LoRALinear)]
    layers = {}
    for parent, key, name in list(linears(model)):
        layer = parent._modules[key]
        if name in list(skip) or isinstance(layer, LoRALinear):
            continue
        if layer not in layers:
            layers[layer] = LoRALinear(layer, rank=rank, alpha=alpha)
        parent.register_module(key, layers[layer])
    new = [f for layer in layers.values() for f in (layer.lora_B, layer.lora_A)]
    keep = {id(f) for f in new} | {id(f) for m in before for f in (m.lora_A, m.lora_B)}
    for p in model.parameters():
        p.requires_grad_(id(p) in keep)
    return model, new
