# wrong: The sublayer is put into an nn.Sequential.
# bug: - (unlikely)

import torch.nn as nn


class AdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = nn.Sequential(sublayer)
        self.adapter = adapter
        self.sublayer.requires_grad_(False)

    def forward(self, x):
        h = x + self.sublayer(x)
        return h + self.adapter.forward_delta(h)
