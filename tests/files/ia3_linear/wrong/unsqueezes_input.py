# wrong: a vector is unsqueezed in place
# bug: changes-input-in-place
import torch
from torch import nn


class IA3Linear(nn.Module):
    def __init__(self, base: nn.Linear):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError(f"base must be an nn.Linear, not {type(base).__name__}")
        self.base = base
        for p in self.base.parameters():
            p.requires_grad = False
        self.scale = nn.Parameter(torch.ones(base.out_features, device=base.weight.device, dtype=base.weight.dtype))

    def forward(self, x):
        single = x.dim() == 1
        if single:
            x.unsqueeze_(0)
        y = self.base(x) * self.scale
        return y.squeeze(0) if single else y

    @torch.no_grad()
    def to_linear(self):
        base = self.base
        new = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None,
                        device=base.weight.device, dtype=base.weight.dtype)
        new.weight.copy_(base.weight * self.scale.unsqueeze(1))
        if base.bias is not None:
            new.bias.copy_(base.bias * self.scale)
        return new
