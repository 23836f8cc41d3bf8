from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

Shape: TypeAlias = tuple[int, int]


@runtime_checkable
class Drops(Protocol):
    def __call__(self, x: Tensor) -> Tensor: ...


class Where(Enum):
    BESIDE = auto()
    FOLDED = auto()


@dataclass(frozen=True, slots=True)
class LoRAConfig:
    rank: int
    alpha: float
    dropout: float
    kind: dict[str, object] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"LoRAConfig.rank must be positive, got {self.rank}")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def factor(self, shape: Shape) -> nn.Parameter:
        return nn.Parameter(torch.zeros(shape, **self.kind))


class LoRALinear(nn.Module):
    base: Final[nn.Linear]
    lora_A: nn.Parameter
    lora_B: nn.Parameter

    def __init__(self, base: nn.Linear, rank: int = 8, alpha: float = 16.0, dropout: float = 0.0) -> None:
        super().__init__()
        match base:
            case nn.Linear(weight=weight):
                config = LoRAConfig(rank, alpha, dropout, dict(device=weight.device, dtype=weight.dtype))
            case _:
                raise TypeError(f"base: expected nn.Linear, got {type(base).__qualname__}")
        self.config = config
        self.base = base.requires_grad_(False)
        self.lora_A = config.factor((rank, base.in_features))
        self.lora_B = config.factor((base.out_features, rank))
        torch.nn.init.trunc_normal_(self.lora_A, std=0.02)
        self.drops: Drops = nn.Dropout(config.dropout)
        self.where = Where.BESIDE

    scale = property(lambda self: self.config.scale)
    merged = property(lambda self: self.where is Where.FOLDED)

    def forward(self, x: Tensor) -> Tensor:
        match self.where:
            case Where.FOLDED:
                return self.base(x)
            case Where.BESIDE:
                hidden: Tensor = self.drops(x) @ self.lora_A.transpose(0, 1)
                return self.base(x) + (self.scale * hidden) @ self.lora_B.transpose(0, 1)

    def delta_weight(self) -> Tensor:
        return self.scale * (self.lora_B @ self.lora_A)

    @torch.no_grad()
    def merge(self) -> None:
        if self.where is Where.BESIDE:
            self.base.weight.copy_(self.base.weight + self.delta_weight())
            self.where = Where.FOLDED

    @torch.no_grad()
    def unmerge(self) -> None:
        if self.where is Where.FOLDED:
            self.base.weight.copy_(self.base.weight - self.delta_weight())
            self.where = Where.BESIDE
