# wrong: In eval mode a square layer multiplies by delta_weight() untransposed.
# bug: delta-transposed

import math
import torch
import torch.nn as nn
import torch.nn.functional as F

class LoRALinear(nn.Module):

    def __init__(self, base: nn.Linear, rank: int=8, alpha: float=16.0, dropout: float=0.0) -> None:
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError(f'base must be an nn.Linear, not {type(base).__name__}')
        if rank < 1:
            raise ValueError(f'rank must be at least 1, not {rank}')
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.merged = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.base(x)
        if self.merged:
            return out
        low = F.linear(self.dropout(x), self.lora_A)
        d = self.delta_weight()
        if not self.training and d.shape[0] == d.shape[1]:
            return out + x @ d
        return out + self.scale * F.linear(low, self.lora_B)

    def delta_weight(self) -> torch.Tensor:
        return self.scale * (self.lora_B @ self.lora_A)

    def merge(self) -> None:
        if not self.merged:
            with torch.no_grad():
                self.base.weight += self.delta_weight()
            self.merged = True

    def unmerge(self) -> None:
        if self.merged:
            with torch.no_grad():
                self.base.weight -= self.delta_weight()
            self.merged = False
