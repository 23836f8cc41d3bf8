# wrong: adds into the adapter's delta under no_grad
# bug: -

import torch
from torch import nn


class ParallelAdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer.requires_grad_(False)
        self.adapter = adapter

    def forward(self, x):
        h = self.sublayer(x)
        delta = self.adapter.forward_delta(x)
        return delta + h if torch.is_grad_enabled() else delta.add_(h)
