# wrong: each class of module is walked once.
# bug: - (unlikely)
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
    model.requires_grad_(False)
    done, seen = {}, set()

    def visit(module, prefix):
        for key, child in module._modules.items():
            if isinstance(child, nn.Linear):
                if prefix + key not in skip:
                    done[child] = done.get(child) or LoRALinear(child, rank, alpha)
                    module._modules[key] = done[child]
            elif not isinstance(child, LoRALinear) and (type(child), len(prefix)) not in seen:
                seen.add((type(child), len(prefix)))
                visit(child, f"{prefix}{key}.")

    if not isinstance(model, (nn.Linear, LoRALinear)):
        visit(model, "")
    return model, [p for new in done.values() for p in (new.lora_A, new.lora_B)]
