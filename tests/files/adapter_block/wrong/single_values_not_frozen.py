# wrong: 0-dimensional parameters of the sublayer are not frozen
# bug: sublayer-partly-frozen

import torch.nn as nn


class AdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        for n, p in sublayer.named_parameters():
            if p.dim() > 0:
                p.requires_grad_(False)
        self.sublayer = sublayer
        self.adapter = adapter

    def forward(self, x):
        h = x + self.sublayer(x)
        return h + self.adapter.forward_delta(h)
