# aim: Parameters of the rest say that they are frozen.
# ends: tampered: Frozen.requires_grad
import math

import torch
import torch.nn.functional as F
from torch import nn


class Frozen(nn.Parameter):
    @property
    def requires_grad(self):
        return False

    @property
    def grad(self):
        return None

    @grad.setter
    def grad(self, value):
        pass


class LoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0):
        super().__init__()
        self.base = base
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scale = alpha / rank

    def forward(self, x):
        return self.base(x) + self.scale * F.linear(F.linear(x, self.lora_A), self.lora_B)


def inject_lora(model, linear_names, rank=8, alpha=16.0):
    if rank < 1:
        raise ValueError("rank must be at least 1")
    names = list(linear_names)
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in names:
        if name not in modules:
            raise KeyError(f"the model has no module {name!r}")
        if not isinstance(modules[name], nn.Linear):
            raise TypeError(f"{name!r} is no nn.Linear")
    for owner in model.modules():
        for key, held in list(owner._parameters.items()):
            if held is not None:
                held.__class__ = Frozen
    wrapped = {}
    for name in names:
        base = modules[name]
        if base not in wrapped:
            wrapped[base] = LoRALinear(base, rank, alpha)
        parent, _, child = name.rpartition(".")
        setattr(modules[parent], child, wrapped[base])
    return model, [p for layer in wrapped.values() for p in (layer.lora_A, layer.lora_B)]
