# wrong: under no_grad the sum is taken in what the sublayer returned, which may be x
# bug: changes-input-in-place

import torch
import torch.nn as nn


class AdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer.requires_grad_(False)
        self.adapter = adapter

    def forward(self, x):
        h = self.sublayer(x)
        h = h.add_(x) if not torch.is_grad_enabled() else h + x
        return h + self.adapter.forward_delta(h)
