# wrong: a mutable default keeps the factors of earlier calls.
# bug: earlier-factors-returned
import math
from collections.abc import Iterable

import torch
import torch.nn as nn
import torch.nn.functional as F

# Given


class LoRALinear(nn.Module):
    def __init__(self, base: nn.Linear, rank: int = 8, alpha: float = 16.0) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scale = alpha / rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.scale * F.linear(F.linear(x, self.lora_A), self.lora_B)


def inject_lora(
    model: nn.Module,
    linear_names: Iterable[str],
    rank: int = 8,
    alpha: float = 16.0,
    lora_params: list = [],
) -> tuple[nn.Module, list[nn.Parameter]]:
    if rank < 1:
        raise ValueError(f"rank must be at least 1, not {rank}")
    names = list(linear_names)
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in names:
        if name not in modules:
            raise KeyError(f"the model has no module {name!r}")
        if not isinstance(modules[name], nn.Linear):
            raise TypeError(f"{name!r} is a {type(modules[name]).__name__}, no nn.Linear")

    model.requires_grad_(False)
    wrapped: dict[nn.Module, LoRALinear] = {}
    for name in names:
        base = modules[name]
        if base not in wrapped:
            wrapped[base] = LoRALinear(base, rank, alpha)
        parent, _, child = name.rpartition(".")
        setattr(modules[parent], child, wrapped[base])
    lora_params += [p for layer in wrapped.values() for p in (layer.lora_A, layer.lora_B)]
    return model, lora_params
