# wrong: The sublayer gets a flattened x.
# bug: leading-dims-lost

import torch.nn as nn


class AdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer
        self.adapter = adapter
        self.sublayer.requires_grad_(False)

    def forward(self, x):
        h = x + self.sublayer(x.reshape(-1, x.shape[-1])).reshape(x.shape)
        return h + self.adapter.forward_delta(h)
