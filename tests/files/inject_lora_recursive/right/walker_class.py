"""A layer of its own with the product in one matrix, a base in eval mode and an extra buffer; a
class that does the walking; parameters set through .data."""

from dataclasses import dataclass, field

import torch
import torch.nn as nn
import torch.nn.functional as F


class Adapted(nn.Module):
    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base = base.eval()
        out, wide = base.weight.shape
        kind = {"device": base.weight.device, "dtype": base.weight.dtype}
        self.lora_A = nn.Parameter(torch.zeros(rank, wide, **kind))
        self.lora_B = nn.Parameter(torch.ones(out, rank, **kind))
        self.lora_A.data.uniform_(-0.3, 0.3)
        self.lora_B.data.zero_()
        self.register_buffer("seen", torch.zeros(1, dtype=torch.long))
        self.alpha, self.rank = alpha, rank

    def forward(self, x):
        delta = torch.einsum("or,ri->oi", self.lora_B, self.lora_A) * (self.alpha / self.rank)
        return F.linear(x, self.base.weight + delta, self.base.bias)


@dataclass
class Walk:
    rank: int
    alpha: float
    skip: tuple
    done: dict = field(default_factory=dict)

    def below(self, module, name=""):
        match module:
            case Adapted():
                return
            case _:
                for key, child in module._modules.items():
                    full = f"{name}.{key}" if name else key
                    match child:
                        case Adapted():
                            continue
                        case nn.Linear():
                            if full not in self.skip:
                                module._modules[key] = self.layer(child)
                        case nn.Module():
                            self.below(child, full)

    def layer(self, old):
        if id(old) not in self.done:
            self.done[id(old)] = Adapted(old, self.rank, self.alpha)
        return self.done[id(old)]


def inject_lora_recursive(model, rank=8, alpha=16.0, skip=()):
    walk = Walk(rank, alpha, tuple(skip))
    for p in model.parameters():
        p.requires_grad = False
    if not isinstance(model, nn.Linear):
        walk.below(model)
    found = [p for layer in walk.done.values() for p in (layer.lora_A, layer.lora_B)]
    return (model, found)
