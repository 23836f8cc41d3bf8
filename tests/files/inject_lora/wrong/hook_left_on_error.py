# wrong: a hook stays on the model where the call raises.
# bug: -
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
    model: nn.Module, linear_names: Iterable[str], rank: int = 8, alpha: float = 16.0
) -> tuple[nn.Module, list[nn.Parameter]]:

    names = list(dict.fromkeys(linear_names))
    if rank < 1:
        raise ValueError(f"rank must be >= 1, got {rank}")
    mods = dict(model.named_modules(remove_duplicate=False))
    model.register_forward_hook(lambda *a: None)
    for n in names:
        if n not in mods or not n:
            if n == "" :
                raise TypeError(f"{n!r} is the model")
            raise KeyError(n)
        if not isinstance(mods[n], nn.Linear):
            raise TypeError(f"{n} is {type(mods[n]).__name__}, no nn.Linear")
    for p in model.parameters():
        p.requires_grad_(False)
    made = {}
    params = []
    for n in names:
        old = mods[n]
        if id(old) not in made:
            new = LoRALinear(old, rank, alpha)
            made[id(old)] = new
            params += [new.lora_A, new.lora_B]
        parent, _, leaf = n.rpartition(".")
        owner = mods[parent] if parent in mods else model
        setattr_target = made[id(old)]
        owner._modules[leaf] = setattr_target
    return model, params
