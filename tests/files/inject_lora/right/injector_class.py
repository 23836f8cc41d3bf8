"""An injector class, a layer of its own with merged weights and an extra buffer, and hooks that
set the parameters through .data."""

from dataclasses import dataclass, field

import torch
import torch.nn as nn
import torch.nn.functional as F


class LoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0):
        super().__init__()
        self.register_module("base", base)
        for p in base.parameters():
            p.requires_grad = False
        base.eval()
        kind = {"dtype": base.weight.dtype, "device": base.weight.device}
        self.register_parameter("lora_A", nn.Parameter(torch.zeros(rank, base.in_features, **kind)))
        self.register_parameter("lora_B", nn.Parameter(torch.ones(base.out_features, rank, **kind)))
        self.lora_A.data.normal_(std=1 / rank)
        self.lora_B.data.mul_(0)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.alpha = alpha

    def forward(self, x):
        scale = self.alpha / self.lora_A.size(0)
        return F.linear(
            x, self.base.weight + scale * self.lora_B.matmul(self.lora_A), self.base.bias
        )


@dataclass
class Injector:
    model: nn.Module
    rank: int
    alpha: float
    places: dict = field(default_factory=dict)

    def check(self, names):
        known = {}
        for path, parent in self.model.named_modules(remove_duplicate=False):
            for key, child in parent._modules.items():
                known[f"{path}.{key}" if path else key] = parent, key, child
        for name in names:
            match known.get(name):
                case None:
                    raise KeyError(f"{name} not found")
                case (_, _, nn.Linear()):
                    self.places[name] = known[name]
                case (_, _, other):
                    raise TypeError(f"{name} is a {type(other).__name__}")
        if self.rank < 1:
            raise ValueError("rank should be 1 or more")
        return self

    def run(self):
        for p in self.model.parameters():
            p.requires_grad = False
        layers = {}
        for parent, key, child in self.places.values():
            if child not in layers:
                layers[child] = LoRALinear(child, self.rank, self.alpha)
            parent._modules[key] = layers[child]
        return [p for v in layers.values() for n, p in v.named_parameters(recurse=False)]


def inject_lora(model, linear_names, rank=8, alpha=16.0):
    return [model, Injector(model, rank, alpha).check(linear_names).run()]
