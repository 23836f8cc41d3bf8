from __future__ import annotations

import torch
from torch import nn


class LoRALinear(nn.Module):
    def __init__(self, base: nn.Linear, rank: int = 8, alpha: float = 16.0, dropout: float = 0.0):
        super().__init__()
        _check(base, rank)
        self.base = _frozen(base)
        self.lora_A, self.lora_B = _factors(base, rank)
        self.dropout = nn.Dropout(dropout)
        self.scale = alpha / rank
        self.merged = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _merged(self, x) if self.merged else _beside(self, x)

    def delta_weight(self) -> torch.Tensor:
        return _product(self)

    def merge(self) -> None:
        if not self.merged:
            _shift(self, +1.0)
            self.merged = True

    def unmerge(self) -> None:
        if self.merged:
            _shift(self, -1.0)
            self.merged = False

    def get_extra_state(self):
        return {"scale": self.scale}

    def set_extra_state(self, state):
        self.scale = state["scale"]


def _check(base, rank):
    problems = {
        TypeError: None if isinstance(base, nn.Linear) else "base must be an nn.Linear",
        ValueError: None if rank > 0 else "rank must be greater than zero",
    }
    for kind, text in problems.items():
        if text:
            raise kind(text)


def _frozen(base):
    for name in ("weight", "bias"):
        if getattr(base, name) is not None:
            getattr(base, name).requires_grad = False
    return base


def _factors(base, rank):
    empty = torch.empty_like(base.weight).resize_(0)
    A = empty.new_empty((rank, base.in_features))
    torch.nn.init.normal_(A, mean=0.0, std=base.in_features**-0.5)
    B = empty.new_full((base.out_features, rank), 0.0)
    return nn.Parameter(A), nn.Parameter(B)


def _merged(layer, x):
    return layer.base.forward(x)


def _beside(layer, x):
    A, B = layer.lora_A, layer.lora_B
    return layer.base.forward(x).add(layer.dropout(x).matmul(A.t()).matmul(B.t()), alpha=layer.scale)


def _product(layer):
    return torch.matmul(layer.lora_B, layer.lora_A) * layer.scale


def _shift(layer, sign):
    weight = layer.base.weight
    exact = weight.data.double() + sign * _product(layer).detach().double()
    weight.data.copy_(exact)
