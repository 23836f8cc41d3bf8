import torch
from torch import nn


class IA3Linear(nn.Module):
    def __init__(self, base):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError("`base` should be nn.Linear, got " + type(base).__name__)
        self.base = base
        self.scale = nn.Parameter(torch.ones_like(base.weight).select(1, 0).contiguous())
        self.base.weight.requires_grad = False
        if self.base.bias is not None:
            self.base.bias.requires_grad = False

    def forward(self, x):
        return torch.mul(self.scale, self.base(x))

    def to_linear(self):
        weight = torch.diag(self.scale.detach()) @ self.base.weight.detach()
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=self.base.bias is not None)
        linear.weight = nn.Parameter(weight)
        if self.base.bias is not None:
            linear.bias = nn.Parameter(self.base.bias.detach() * self.scale.detach())
        return linear
