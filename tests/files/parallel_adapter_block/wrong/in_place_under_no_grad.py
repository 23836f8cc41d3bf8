# wrong: under no_grad the sum is taken in what the sublayer returned, which may be x
# bug: changes-input-in-place

import torch
import torch.nn as nn


class ParallelAdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer.requires_grad_(False)
        self.adapter = adapter

    def forward(self, x):
        h = self.sublayer(x)
        d = self.adapter.forward_delta(x)
        return h.add_(d) if not torch.is_grad_enabled() else h + d
