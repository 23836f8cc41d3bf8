import torch
import torch.nn as nn


class LoRALinear(nn.Module):
    """Walks over the rows of x a few at a time, and over the ranks one by one."""

    CHUNK = 4

    def __init__(self, base, rank=8, alpha=16.0, dropout=0.0):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError("base needs to be nn.Linear")
        if rank < 1:
            raise ValueError("rank needs to be positive")
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(torch.rand(rank, base.in_features).sub(0.5).to(base.weight))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        self.rank = rank
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.merged = False

    def forward(self, x):
        out = self.base(x)
        if self.merged:
            return out
        rows = self.dropout(x).reshape(-1, self.base.in_features)
        parts = []
        for piece in rows.split(self.CHUNK):
            total = 0
            for k in range(self.rank):
                inner = (piece * self.lora_A[k]).sum(-1, keepdim=True)
                total = total + inner * self.lora_B[:, k]
            parts.append(total)
        update = torch.cat(parts).reshape(out.shape)
        return out + self.scale * update

    def delta_weight(self):
        return self.scale * sum(torch.outer(self.lora_B[:, k], self.lora_A[k]) for k in range(self.rank))

    def merge(self):
        if self.merged:
            return
        with torch.no_grad():
            for k in range(self.rank):
                self.base.weight.addr_(self.lora_B[:, k], self.lora_A[k], alpha=self.scale)
        self.merged = True

    def unmerge(self):
        if not self.merged:
            return
        with torch.no_grad():
            for k in range(self.rank):
                self.base.weight.addr_(self.lora_B[:, k], self.lora_A[k], alpha=-self.scale)
        self.merged = False
