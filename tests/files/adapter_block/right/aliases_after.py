# right: both modules are registered under a second name too

import torch.nn as nn


class AdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer
        self.adapter = adapter
        self.sublayer.requires_grad_(False)
        self.parts = nn.ModuleDict({'below': sublayer, 'beside': adapter})

    def forward(self, x):
        h = x + self.sublayer(x)
        return h + self.adapter.forward_delta(h)
