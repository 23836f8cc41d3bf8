# right: both modules are registered under a second name before that of the contract

import torch.nn as nn


class ParallelAdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.parts = nn.ModuleList([adapter, sublayer])
        self.layer = sublayer
        self.sublayer = sublayer
        self.adapter = adapter
        self.sublayer.requires_grad_(False)

    def forward(self, x):
        return self.sublayer(x) + self.adapter.forward_delta(x)
