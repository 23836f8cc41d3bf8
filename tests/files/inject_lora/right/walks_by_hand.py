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


def step(module, part, name):
    children = module._modules
    if part not in children or children[part] is None:
        raise KeyError(f"{part!r} of {name!r} is not in the model")
    return children[part]


def inject_lora(model, linear_names, rank=8, alpha=16.0):
    if not rank >= 1:
        raise ValueError(f"bad rank {rank}")
    plan = {}
    for name in linear_names:
        parts = name.split(".")
        parent = model
        for part in parts[:-1]:
            parent = step(parent, part, name)
        target = step(parent, parts[-1], name)
        if not isinstance(target, nn.Linear):
            raise TypeError(f"{name} is {target}")
        plan[name] = parent, parts[-1], target
    for module in model.modules():
        for p in module._parameters.values():
            if p is not None:
                p.requires_grad_(False)
    made = []
    for parent, key, target in plan.values():
        known = [new for new in made if new.base is target]
        if not known:
            known = [LoRALinear(target, rank, alpha)]
            made += known
        parent._modules[key] = known[0]
    params = []
    for new in made:
        params.append(new.lora_A)
        params.append(new.lora_B)
    return model, params
