# wrong: parameters whose names hold lora_ stay as they are, as in loralib.
# bug: own-names-taken
"""Putting LoRA into every linear layer of a model.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1, equation 3, for
the layer; Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs", section 4, for
adapting all linear layers and not only the attention projections.
"""

import math
from collections.abc import Collection

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
    for n, p in model.named_parameters():
        if "lora_" not in n:
            p.requires_grad_(False)
    params = []
    if isinstance(model, (nn.Linear, LoRALinear)):
        return model, params
    names = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if type(module) is nn.Linear:
            names.setdefault(module, []).append(name)
    existing = {m.base for m in model.modules() if isinstance(m, LoRALinear)}
    for layer, places in names.items():
        if layer in existing or all(n in skip for n in places):
            continue
        new = LoRALinear(layer, rank, alpha)
        params += [new.lora_A, new.lora_B]
        for n in places:
            parent, _, child = n.rpartition(".")
            model.get_submodule(parent)._modules[child] = new
    return model, params
