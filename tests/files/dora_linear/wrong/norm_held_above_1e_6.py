# wrong: norms below 1e-6 count as 1e-6
# bug: norm-with-eps
import math
import torch
import torch.nn as nn
import torch.nn.functional as F

class DoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0):
        super().__init__()
        self.base = base
        base.requires_grad_(False)
        self.scale = alpha / rank
        kw = {"dtype": base.weight.dtype, "device": base.weight.device}
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, **kw))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, **kw))
        self.magnitude = nn.Parameter(base.weight.detach().norm(dim=1))
    def _weight(self):
        v = self.base.weight + self.scale * self.lora_B @ self.lora_A
        norm = v.norm(dim=1, keepdim=True).detach()
        return self.magnitude[:, None] * v / norm.clamp_min(1e-6)
    def forward(self, x):
        return F.linear(x, self._weight(), self.base.bias)
    @torch.no_grad()
    def to_linear(self):
        has_bias = self.base.bias is not None
        out = nn.Linear(self.base.in_features, self.base.out_features, bias=has_bias, dtype=self.base.weight.dtype, device=self.base.weight.device)
        out.weight.copy_(self._weight())
        if has_bias:
            out.bias.copy_(self.base.bias)
        return out
