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
    """Replaces by identity: wherever a listed layer stands, under listed names or others."""
    if rank <= 0:
        raise ValueError("rank must be positive")
    table = {path: m for path, m in model.named_modules(remove_duplicate=False)}
    targets = []
    for path in linear_names:
        m = table[path]  # KeyError of its own
        if not isinstance(m, nn.Linear):
            raise TypeError(path)
        if not any(m is t for t in targets):
            targets.append(m)
    model.requires_grad_(False)
    new = [LoRALinear(t, rank, alpha) for t in targets]
    for parent in list(model.modules()):
        for key, child in parent._modules.items():
            for t, n in zip(targets, new):
                if child is t and parent not in new:
                    parent._modules[key] = n
    return model, [getattr(n, k) for n in new for k in ("lora_A", "lora_B")]
