import torch
from torch import nn


class AdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.add_module("sublayer", sublayer)
        self.add_module("adapter", adapter)
        for p in self.sublayer.parameters():
            p.requires_grad = False

    def forward(self, x):
        h = x + self.sublayer(x)
        return torch.add(h, self.adapter.forward_delta(h))
