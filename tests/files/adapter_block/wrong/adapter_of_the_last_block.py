# wrong: adapter on the class
# bug: - (unlikely)

import torch.nn as nn


class AdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer
        type(self).adapters = nn.ModuleList([adapter])
        self._modules["adapter"] = adapter
        self.sublayer.requires_grad_(False)

    def forward(self, x):
        h = x + self.sublayer(x)
        return h + self.adapters[0].forward_delta(h)
