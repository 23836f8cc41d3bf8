# wrong: a call under no_grad leaves grad mode on
# bug: -

import torch
import torch.nn as nn


class ParallelAdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer.requires_grad_(False)
        self.adapter = adapter

    def forward(self, x):
        torch.set_grad_enabled(True)
        return self.sublayer(x) + self.adapter.forward_delta(x)
