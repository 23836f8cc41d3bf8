import torch
import torch.nn as nn
import torch.nn.functional as F


class LoRALinear(nn.Module):
    """Draws the dropout mask itself; keeps 1 - p of the entries and rescales those."""

    def __init__(self, base, rank=8, alpha=16.0, dropout=0.0):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError("base is of the wrong type")
        if rank < 1:
            raise ValueError("rank is too small")
        self.base = base
        for parameter in (base.weight, base.bias):
            if parameter is not None:
                parameter.requires_grad_(False)
        self.scale = alpha / rank
        self.keep = 1.0 - dropout
        self.merged = False
        self.lora_A = nn.Parameter(torch.empty_like(base.weight[:1].expand(rank, -1).contiguous()))
        self.lora_B = nn.Parameter(torch.zeros_like(base.weight[:, :1].expand(-1, rank).contiguous()))
        nn.init.uniform_(self.lora_A, -0.1, 0.1)

    def thinned(self, x):
        if not self.training or self.keep == 1.0:
            return x
        mask = torch.rand(x.shape, device=x.device) < self.keep
        return torch.where(mask, x / self.keep, torch.zeros_like(x))

    def forward(self, x):
        out = self.base(x)
        if not self.merged:
            out = out + F.linear(F.linear(self.thinned(x), self.lora_A), self.lora_B).mul(self.scale)
        return out

    def delta_weight(self):
        return F.linear(self.lora_B, self.lora_A.T) * self.scale

    def merge(self):
        if not self.merged:
            self.base.weight.data.add_(self.delta_weight().detach())
            self.merged = True

    def unmerge(self):
        if self.merged:
            self.base.weight.data.sub_(self.delta_weight().detach())
            self.merged = False
