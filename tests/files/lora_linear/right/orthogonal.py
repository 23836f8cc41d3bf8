import torch
import torch.nn as nn
import torch.nn.functional as F


def orthonormal_rows(rank, features):
    """Drawn in float32 on the CPU, since QR exists neither for bfloat16 nor without data."""
    return nn.init.orthogonal_(torch.empty(rank, features, device="cpu", dtype=torch.float32))


class LoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0, dropout=0.0):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError("base: not an nn.Linear")
        if rank < 1:
            raise ValueError("rank: smaller than 1")
        self.base = base.requires_grad_(False)
        A = orthonormal_rows(rank, base.in_features)
        self.lora_A = nn.Parameter(A.to(device=base.weight.device, dtype=base.weight.dtype))
        self.lora_B = nn.Parameter(torch.zeros_like(base.weight)[:, :1].repeat(1, rank))
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.merged = False

    def forward(self, x):
        out = self.base(x)
        if not self.merged:
            out += self.scale * F.linear(F.linear(self.dropout(x), self.lora_A), self.lora_B)
        return out

    def delta_weight(self):
        with torch.no_grad():
            return self.lora_B @ self.lora_A * self.scale

    def merge(self):
        if not self.merged:
            # A new tensor under the same Parameter.
            self.base.weight.data = self.base.weight.data + self.delta_weight()
            self.merged = True

    def unmerge(self):
        if self.merged:
            self.base.weight.data = self.base.weight.data - self.delta_weight()
            self.merged = False
