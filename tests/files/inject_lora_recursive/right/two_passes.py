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
    adapted = [m for m in model.modules() if isinstance(m, LoRALinear)]
    bases = {id(m.base) for m in adapted}
    old = {id(p) for m in adapted for p in (m.lora_A, m.lora_B)}
    names = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if name and isinstance(module, nn.Linear) and id(module) not in bases:
            if name not in skip:
                names.setdefault(module, []).append(name)
    for module, paths in names.items():
        new = LoRALinear(module, rank, alpha)
        for path in paths:
            model.set_submodule(path, new)
    fresh = []
    for name, p in model.named_parameters():
        adapter = name.endswith((".lora_A", ".lora_B"))
        p.requires_grad_(adapter)
        if adapter and id(p) not in old:
            fresh.append(p)
    return model, fresh[::-1]
