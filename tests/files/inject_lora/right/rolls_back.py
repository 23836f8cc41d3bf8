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
    """Changes as it goes, and undoes everything when a name turns out bad."""
    if rank < 1:
        raise ValueError("rank")
    flags = [(p, p.requires_grad) for p in model.parameters()]
    undo = []
    by_base, factors = {}, []
    originals = dict(model.named_modules(remove_duplicate=False))
    try:
        model.requires_grad_(False)
        for name in linear_names:
            if name not in originals:
                raise KeyError(f"unknown layer {name}")
            base = originals[name]
            if not isinstance(base, nn.Linear):
                raise TypeError(f"layer {name} is no nn.Linear")
            head, _, tail = name.rpartition(".")
            parent = originals[head]
            if base not in by_base:
                by_base[base] = LoRALinear(base, rank, alpha)
                factors += [by_base[base].lora_A, by_base[base].lora_B]
            undo.append((parent, tail, getattr(parent, tail)))
            setattr(parent, tail, by_base[base])
    except Exception:
        for parent, tail, old in reversed(undo):
            setattr(parent, tail, old)
        for p, flag in flags:
            p.requires_grad_(flag)
        raise
    return model, factors
