# wrong: In eval mode the whole forward runs under no_grad.
# bug: adapter-gets-no-gradient

import torch
import torch.nn as nn


class ParallelAdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer
        self.adapter = adapter
        self.sublayer.requires_grad_(False)

    def forward(self, x):
        with torch.set_grad_enabled(self.training):
            return self.sublayer(x) + self.adapter.forward_delta(x)
