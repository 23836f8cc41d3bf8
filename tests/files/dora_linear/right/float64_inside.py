# norms in float64, a tiny eps, factors not contiguous
import torch
from torch import nn
from torch.nn import functional as F


def norms(weight):
    return (weight.double().pow(2).sum(1) + 1e-24).sqrt().clamp_min(1e-12).to(weight.dtype)


class DoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        w = base.weight
        self.lora_A = nn.Parameter(nn.init.normal_(w.new_empty(w.shape[1], rank), std=0.1).T)
        self.lora_B = nn.Parameter(w.new_zeros(rank, w.shape[0]).T)
        self.magnitude = nn.Parameter(norms(w))
        self.scale = alpha / rank

    def extra_repr(self):
        return f"scale={self.scale}"

    def adapted(self):
        V = self.base.weight.add(self.lora_B.matmul(self.lora_A).mul(self.scale))
        return V * torch.div(self.magnitude, norms(V.detach()))[:, None]

    def forward(self, x):
        return F.linear(x, weight=self.adapted(), bias=self.base.bias)

    def to_linear(self):
        new = nn.Linear(1, 1, bias=self.base.bias is not None)
        new.in_features, new.out_features = self.base.in_features, self.base.out_features
        new.weight = nn.Parameter(self.adapted().detach().clone())
        if self.base.bias is not None:
            new.bias = nn.Parameter(self.base.bias.detach().clone())
        return new
