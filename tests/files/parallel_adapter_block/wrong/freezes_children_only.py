# wrong: only the children's parameters
# bug: sublayer-partly-frozen

import torch.nn as nn


class ParallelAdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer
        self.adapter = adapter
        for m in self.sublayer.children():
            m.requires_grad_(False)

    def forward(self, x):
        return self.sublayer(x) + self.adapter.forward_delta(x)
