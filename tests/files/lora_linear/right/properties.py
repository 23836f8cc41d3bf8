import math

import torch
import torch.nn as nn


class LoRALinear(nn.Module):
    """Every attribute of the contract that may be one is a property."""

    def __init__(self, base: nn.Linear, rank: int = 8, alpha: float = 16.0, dropout: float = 0.0):
        if not isinstance(base, nn.Linear):
            raise TypeError(f"LoRALinear: base is a {type(base)}")
        if rank <= 0:
            raise ValueError(f"LoRALinear: rank={rank}")
        super().__init__()
        self.add_module("base", base)
        self._alpha, self._rank = alpha, rank
        self._folded = None
        self._drop = nn.Dropout(p=dropout) if dropout > 0 else nn.Identity()
        bound = 1 / math.sqrt(base.in_features)
        A = torch.empty(rank, base.in_features).uniform_(-bound, bound).to(base.weight)
        self.register_parameter("lora_A", nn.Parameter(A))
        self.register_parameter("lora_B", nn.Parameter(base.weight.new_zeros((base.out_features, rank))))
        base.weight.requires_grad = False
        if base.bias is not None:
            base.bias.requires_grad = False

    @property
    def scale(self) -> float:
        return self._alpha / self._rank

    @property
    def merged(self) -> bool:
        return self._folded is not None

    def delta_weight(self) -> torch.Tensor:
        return torch.matmul(self.scale * self.lora_B, self.lora_A)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.base(x)
        if not self.merged:
            y = y + self._drop(x).matmul(self.lora_A.t()).matmul(self.lora_B.t()).mul(self.scale)
        return y

    def merge(self) -> None:
        if self.merged:
            return
        self._folded = self.delta_weight().detach()
        self.base.weight.data += self._folded

    def unmerge(self) -> None:
        if not self.merged:
            return
        self.base.weight.data -= self._folded
        self._folded = None
