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
    m = dict(model.named_modules(remove_duplicate=False))
    model.requires_grad_(False)
    w = {}
    inner = [x.base for x in m.values() if isinstance(x, LoRALinear)]
    for n, l in m.items():
        if n and isinstance(l, nn.Linear) and n not in skip and not any(l is i for i in inner):
            w[l] = w[l] if l in w else LoRALinear(l, rank, alpha)
            setattr(m[n[: max(n.rfind("."), 0)]], n.split(".")[-1], w[l])
    return model, sum(([x.lora_A, x.lora_B] for x in w.values()), [])
