# the gradient is stopped by subtracting what should not flow; the new layer keeps its dtype by .to()
import torch
from torch import nn
from torch.nn import functional as F


class DoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(torch.zeros(rank, base.in_features).to(base.weight).normal_() * 0.2)
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank).to(base.weight))
        self.magnitude = nn.Parameter(torch.sqrt(torch.einsum("oi,oi->o", base.weight, base.weight)))
        self.scale = alpha / rank

    def forward(self, x):
        with torch.no_grad():
            fixed = self.base.weight + self.scale * self.lora_B @ self.lora_A
            unit = fixed.norm(dim=1)
        h = F.linear(x, self.base.weight)
        h = h + self.scale * F.linear(F.linear(x, self.lora_A), self.lora_B)
        h = h * self.magnitude / unit
        if self.base.bias is not None:
            h = h + self.base.bias
        return h

    def to_linear(self):
        with torch.no_grad():
            columns = torch.eye(self.base.in_features).to(self.base.weight)
            weight = self(columns)
            if self.base.bias is not None:
                weight = weight - self.base.bias
        new = nn.Linear(self.base.in_features, self.base.out_features, self.base.bias is not None)
        new = new.to(self.base.weight)
        new.weight.data = weight.T.contiguous()
        if self.base.bias is not None:
            new.bias.data = self.base.bias.data.clone()
        return new
