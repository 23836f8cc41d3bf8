import torch
from torch import nn


class AdapterSwitcher(nn.Module):
    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.original = linear.weight.detach().clone()
        self.numbers, self.store = {}, nn.ModuleList()
        self.active = None

    def register(self, name, lora_A, lora_B, scale):
        if lora_A.shape != (lora_A.shape[0], self.linear.in_features):
            raise ValueError("lora_A")
        if lora_B.shape != (self.linear.out_features, lora_A.shape[0]):
            raise ValueError("lora_B")
        entry = nn.Module()
        entry.register_buffer("A", lora_A.detach())
        entry.register_buffer("B", lora_B.detach())
        entry.scale = scale
        self.numbers[name] = len(self.store)
        self.store.append(entry)

    def forward(self, x):
        return self.linear(x)

    @torch.no_grad()
    def activate(self, name):
        weight = self.original
        if name is not None:
            entry = self.store[self.numbers[name]]
            weight = weight + (entry.B @ entry.A).mul(entry.scale)
        for target in (self.linear.weight,):
            target.copy_(weight)
        self.active = name
