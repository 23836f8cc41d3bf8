import torch
from torch import nn


class LoRALinear(nn.Module):
    """What is not stored is worked out by __getattr__ when it is asked for."""

    def __init__(self, base, rank=8, alpha=16.0, dropout=0.0):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError("base?")
        if rank < 1:
            raise ValueError("rank?")
        self.__dict__["settings"] = {"alpha": alpha, "rank": rank, "times": 0}
        self.base = base.requires_grad_(False)
        self.dropout = nn.Dropout(dropout)
        weight = base.weight
        self.lora_A = nn.Parameter(torch.normal(0.0, 0.1, (rank, base.in_features)).to(weight))
        self.lora_B = nn.Parameter(torch.zeros((base.out_features, rank)).to(weight))

    def __getattr__(self, name):
        if name == "scale":
            return self.settings["alpha"] / self.settings["rank"]
        if name == "merged":
            return self.settings["times"]
        return super().__getattr__(name)

    def forward(self, x):
        if self.merged > 0:
            return self.base(x)
        return self.base(x) + self.dropout(x) @ (self.lora_A.T @ self.lora_B.T * self.scale)

    def delta_weight(self):
        return torch.einsum("r...,or->o...", self.lora_A, self.lora_B) * self.scale

    def merge(self):
        if self.settings["times"] < 1:
            self.settings["times"] += 1
            self.base.weight.data[:] += self.delta_weight().data

    def unmerge(self):
        if self.settings["times"] > 0:
            self.settings["times"] -= 1
            self.base.weight.data[:] -= self.delta_weight().data
