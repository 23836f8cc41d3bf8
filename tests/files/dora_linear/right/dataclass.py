# a dataclass; the magnitude is a column inside
from dataclasses import dataclass

import torch
import torch.nn as nn


@dataclass(eq=False, repr=False)
class DoRALinear(nn.Module):
    base: nn.Linear
    rank: int = 8
    alpha: float = 16.0

    def __new__(cls, *args, **words):
        self = object.__new__(cls)
        nn.Module.__init__(self)
        return self

    def __post_init__(self):
        self.base.requires_grad_(False)
        w = self.base.weight
        self.column = nn.Parameter(w.norm(dim=1, keepdim=True).squeeze(1))
        self.lora_A = nn.Parameter(w.new_empty(self.rank, w.size(1)).normal_(0, 0.05))
        self.lora_B = nn.Parameter(w.new_zeros(w.size(0), self.rank))
        self.register_parameter("magnitude", self.column)

    def forward(self, x):
        V = self.base.weight + self.lora_B @ self.lora_A * self.alpha / self.rank
        with torch.no_grad():
            inverse = V.pow(2).sum(1).rsqrt()
        out = (x @ V.T) * (inverse * self.magnitude)
        return out if self.base.bias is None else out + self.base.bias

    def to_linear(self):
        with torch.no_grad():
            V = self.base.weight + self.lora_B @ self.lora_A * self.alpha / self.rank
            V = V * (self.magnitude * V.pow(2).sum(1).rsqrt())[:, None]
        new = nn.Linear(V.shape[1], V.shape[0], self.base.bias is not None, V.device, V.dtype)
        state = {"weight": V} | ({} if self.base.bias is None else {"bias": self.base.bias})
        new.load_state_dict(state)
        return new
