# wrong: in eval mode to_linear() gives the weight of its first call
# bug: to-linear-cached
import torch
import torch.nn as nn


class IA3Linear(nn.Module):
    def __init__(self, base):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError(f"base must be an nn.Linear, not {type(base).__name__}")
        self.base = base.requires_grad_(False)
        self.scale = nn.Parameter(base.weight.new_ones(base.out_features))

    def forward(self, x):
        return self.base(x) * self.scale

    @torch.no_grad()
    def to_linear(self):
        w, b = self.base.weight, self.base.bias
        new = nn.Linear(w.shape[1], w.shape[0], bias=b is not None, device=w.device, dtype=w.dtype)
        if self.training or not hasattr(self, "made"):
            self.made = w * self.scale[:, None], b if b is None else b * self.scale
        new.weight.copy_(self.made[0])
        if b is not None:
            new.bias.copy_(self.made[1])
        return new
