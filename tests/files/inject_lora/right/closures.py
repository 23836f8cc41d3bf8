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


from operator import attrgetter


def inject_lora(model, linear_names, rank=8, alpha=16.0):
    if rank < 1:
        raise ValueError("the rank must be at least one")

    def find(name):
        try:
            module = attrgetter(name)(model)
        except AttributeError as error:
            raise KeyError(f"{name}: {error}") from error
        if not isinstance(module, nn.Linear):
            raise TypeError(f"{name}: {type(module)}")
        return module

    def swap(name, new):
        up, _, last = name.rpartition(".")
        setattr(attrgetter(up)(model) if up else model, last, new)

    found = {name: find(name) for name in linear_names}
    model.requires_grad_(requires_grad=False)
    layers = {base: LoRALinear(base, alpha=alpha, rank=rank) for base in found.values()}
    for name, base in found.items():
        swap(name, layers[base])
    params = [p for layer in layers.values() for p in (layer.lora_A, layer.lora_B)]
    assert all(p.requires_grad for p in params)
    return model, params
