# itself a subclass of nn.Linear, which shares the base's parameters
import torch
from torch import nn
from torch.nn import functional as F


class DoRALinear(nn.Linear):
    def __init__(self, base, rank=8, alpha=16.0):
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.base = base.requires_grad_(False)
        self.weight, self.bias = base.weight, base.bias
        w = base.weight
        self.lora_A = nn.Parameter(torch.randn_like(w[0].expand(rank, -1)) / rank)
        self.lora_B = nn.Parameter(torch.zeros_like(w[:, :1].expand(-1, rank)))
        self.magnitude = nn.Parameter(w.norm(dim=1))
        self.scaling = float(alpha) / int(rank)

    def forward(self, x):
        weight = self.base.weight + self.scaling * (self.lora_B @ self.lora_A)
        weight = weight * (self.magnitude / weight.data.norm(dim=1)).reshape(-1, 1)
        return F.linear(x, weight, self.base.bias)

    @torch.no_grad()
    def to_linear(self):
        weight = self.base.weight + self.scaling * (self.lora_B @ self.lora_A)
        weight = weight * (self.magnitude / weight.norm(dim=1)).reshape(-1, 1)
        new = nn.Linear(self.in_features, self.out_features, self.bias is not None)
        new.weight = nn.Parameter(weight)
        if self.bias is not None:
            new.bias = nn.Parameter(self.base.bias.clone())
        return new
