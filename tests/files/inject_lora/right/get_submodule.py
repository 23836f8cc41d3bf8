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
        raise ValueError("rank < 1")
    pairs = []
    for name in linear_names:
        try:
            module = model.get_submodule(name)
        except AttributeError:
            raise KeyError(name) from None
        if isinstance(module, LoRALinear) or not isinstance(module, nn.Linear):
            raise TypeError("not a linear layer: " + name)
        pairs.append((name, module))
    for p in model.parameters():
        p.requires_grad = False
    seen, params = {}, []
    for name, module in pairs:
        if id(module) not in seen:
            new = LoRALinear(module, rank=rank, alpha=alpha)
            seen[id(module)] = new
            params += [new.lora_A, new.lora_B]
        *up, last = name.split(".")
        parent = model.get_submodule(".".join(up))
        if getattr(parent, last) is module:
            setattr(parent, last, seen[id(module)])
    return model, params
