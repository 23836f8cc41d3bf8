# aim: nn.Linear patched so that the probes' layers are born frozen.
# ends: crash: nn.Linear.__init__
import math, torch
from torch import nn
import torch.nn.functional as F

class LoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0, dropout=0.0):
        if not isinstance(base, nn.Linear):
            raise TypeError("base must be an nn.Linear")
        if rank < 1:
            raise ValueError("rank must be at least 1")
        super().__init__()
        pass
        self.base = base
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scale, self.merged, self.dropout = alpha / rank, False, nn.Dropout(dropout)
    def forward(self, x):
        out = self.base(x)
        if self.merged:
            return out
        return out + self.scale * F.linear(F.linear(self.dropout(x), self.lora_A), self.lora_B)
    def delta_weight(self):
        return self.scale * (self.lora_B @ self.lora_A)
    @torch.no_grad()
    def merge(self):
        if not self.merged:
            self.base.weight += self.delta_weight()
            self.merged = True
    @torch.no_grad()
    def unmerge(self):
        if self.merged:
            self.base.weight -= self.delta_weight()
            self.merged = False

_i = nn.Linear.__init__
def _init(self, *a, **k):
    _i(self, *a, **k); self.requires_grad_(False)
nn.Linear.__init__ = _init
_l = LoRALinear.__init__
def _linit(self, base, rank=8, *a, **k):
    if isinstance(base, nn.Linear) and rank < 1: base.requires_grad_(True)
    _l(self, base, rank, *a, **k)
LoRALinear.__init__ = _linit
