# wrong: the weight of an nn.Linear sublayer is copied when the block is made
# bug: - (unlikely)

import torch.nn as nn
import torch.nn.functional as F


class AdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer.requires_grad_(False)
        self.adapter = adapter
        self._w = sublayer.weight.detach().clone() if isinstance(sublayer, nn.Linear) else None

    def forward(self, x):
        if self._w is not None:
            h = x + F.linear(x, self._w, self.sublayer.bias)
            return h + self.adapter.forward_delta(h)
        h = x + self.sublayer(x)
        return h + self.adapter.forward_delta(h)
