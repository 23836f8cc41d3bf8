# wrong: adapter(x) - x in place of forward_delta, which an adapter without a residual of its own breaks
# bug: calls-adapter-forward

import torch.nn as nn


class ParallelAdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer.requires_grad_(False)
        self.adapter = adapter

    def forward(self, x):
        return self.sublayer(x) + (self.adapter(x) - x)
