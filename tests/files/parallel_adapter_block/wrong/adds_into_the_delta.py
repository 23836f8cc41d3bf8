# wrong: delta += sublayer
# bug: needed-by-backward

import torch.nn as nn


class ParallelAdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer
        self.adapter = adapter
        self.sublayer.requires_grad_(False)

    def forward(self, x):
        d = self.adapter.forward_delta(x)
        d += self.sublayer(x)
        return d
