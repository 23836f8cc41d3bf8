import torch
from torch import nn
import torch.nn.functional as F


class LoRALinear(nn.Module):
    """Calls no module: the base is used through its weight and bias. `merged` is a number."""

    def __init__(self, base, rank=8, alpha=16.0, dropout=0.0):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError("base has to be nn.Linear")
        if rank < 1:
            raise ValueError("rank has to be positive")
        out_features, in_features = base.weight.shape
        like = {"device": base.weight.device, "dtype": base.weight.dtype}
        self.base = base
        for p in base.parameters():
            p.requires_grad = False
        self.lora_A = nn.Parameter(torch.empty(rank, in_features, **like))
        self.lora_B = nn.Parameter(torch.zeros(out_features, rank, **like))
        nn.init.kaiming_normal_(self.lora_A)
        self.scale = alpha / rank
        self.p = dropout
        self.merged = 0

    def forward(self, x):
        if self.merged:
            return F.linear(x, self.base.weight, self.base.bias)
        dropped = F.dropout(x, self.p, self.training)
        return F.linear(x, self.base.weight, self.base.bias) + F.linear(dropped, self.delta_weight())

    def delta_weight(self):
        return self.lora_B @ self.lora_A * self.scale

    @torch.no_grad()
    def merge(self):
        if self.merged == 0:
            self.base.weight.add_(self.delta_weight())
            self.merged = 1

    @torch.no_grad()
    def unmerge(self):
        if self.merged == 1:
            self.base.weight.sub_(self.delta_weight())
            self.merged = 0
