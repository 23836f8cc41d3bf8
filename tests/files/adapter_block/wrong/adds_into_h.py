# wrong: h += delta, where the adapter has kept h for its backward
# bug: needed-by-backward

import torch.nn as nn


class AdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer
        self.adapter = adapter
        self.sublayer.requires_grad_(False)

    def forward(self, x):
        h = x + self.sublayer(x)
        h += self.adapter.forward_delta(h)
        return h
