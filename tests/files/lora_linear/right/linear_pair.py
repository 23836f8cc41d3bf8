import torch
from torch import nn


class LoRALinear(nn.Module):
    """Two bias-free nn.Linear do the work. A tuple holds them, so that only their weights,
    registered under the names of the contract, are parameters of this module."""

    def __init__(self, base, rank=8, alpha=16.0, dropout=0.0):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError(f"base should be nn.Linear, got {type(base).__name__}")
        if rank < 1:
            raise ValueError(f"rank should be positive, got {rank}")
        kind = {"bias": False, "device": base.weight.device, "dtype": base.weight.dtype}
        down = nn.Linear(base.in_features, rank, **kind)
        up = nn.Linear(rank, base.out_features, **kind)
        up.weight.data.zero_()
        self.lora_A, self.lora_B = down.weight, up.weight
        self._pair = (down, up)
        self.base = base
        base.requires_grad_(False)
        self.dropout = nn.Dropout(dropout)
        self.scale = alpha / rank
        self.merged = False

    def forward(self, x):
        out = self.base(x)
        if self.merged:
            return out
        down, up = self._pair
        return out + up(down(self.dropout(x))) * self.scale

    def delta_weight(self):
        down, up = self._pair
        return up.weight @ down.weight * self.scale

    def merge(self):
        self._set(True)

    def unmerge(self):
        self._set(False)

    def _set(self, wanted):
        if bool(self.merged) is wanted:
            return
        sign = 1 if wanted else -1
        self.base.weight.data.add_(sign * self.delta_weight().detach())
        self.merged = wanted
