# F.normalize gives the length, which is kept apart; the bias is added by hand
import torch
import torch.nn as nn
import torch.nn.functional as F


class DoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0):
        nn.Module.__init__(self)
        self.base = base
        base.weight.requires_grad_(False)
        if base.bias is not None:
            base.bias.requires_grad_(False)
        self.lora_A = nn.Parameter(torch.empty_like(base.weight[:1]).repeat(rank, 1))
        nn.init.uniform_(self.lora_A, -0.3, 0.3)
        self.lora_B = nn.Parameter(torch.zeros_like(base.weight[:, :1]).repeat(1, rank))
        self.magnitude = nn.Parameter(torch.linalg.vector_norm(base.weight, dim=1))
        self.scale = alpha / rank

    @property
    def V(self):
        return torch.addmm(self.base.weight, self.lora_B, self.lora_A, alpha=self.scale)

    def forward(self, x):
        V = self.V
        unit = F.normalize(V.detach(), dim=1)
        # a constant length: the unit rows as they are, the graph from V
        length = (V.detach() * unit).sum(1)
        out = x @ (V / length.unsqueeze(1)).t() * self.magnitude
        if self.base.bias is not None:
            out = out + self.base.bias
        return out

    def to_linear(self):
        weight = F.normalize(self.V.detach(), dim=1) * self.magnitude.detach().unsqueeze(1)
        bias = self.base.bias
        layer = nn.Linear(*reversed(weight.shape), bias=bias is not None)
        layer.weight = nn.Parameter(weight)
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach().clone())
        return layer
