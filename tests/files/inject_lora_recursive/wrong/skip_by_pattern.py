# wrong: the names in skip are regular expressions.
# bug: skip-matches-part
import math
from collections.abc import Collection

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


def inject_lora_recursive(
    model: nn.Module, rank: int = 8, alpha: float = 16.0, skip: Collection[str] = ()
) -> tuple[nn.Module, list[nn.Parameter]]:
    modules = dict(model.named_modules(remove_duplicate=False))
    model.requires_grad_(False)
    wrapped: dict[nn.Module, LoRALinear] = {}
    for name, layer in modules.items():
        parent, _, child = name.rpartition(".")
        if (
            not isinstance(layer, nn.Linear)
            or name == ""
            or any(__import__("re").match(s, name) for s in skip)
        ):
            continue
        if isinstance(modules[parent], LoRALinear):
            continue
        if layer not in wrapped:
            wrapped[layer] = LoRALinear(layer, rank, alpha)
        setattr(modules[parent], child, wrapped[layer])
    return model, [p for new in wrapped.values() for p in (new.lora_A, new.lora_B)]
