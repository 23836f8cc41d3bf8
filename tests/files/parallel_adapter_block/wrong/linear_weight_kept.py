# wrong: the weight of an nn.Linear sublayer is copied when the block is made
# bug: - (unlikely)

import torch.nn as nn
import torch.nn.functional as F


class ParallelAdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer.requires_grad_(False)
        self.adapter = adapter
        self._w = sublayer.weight.detach().clone() if isinstance(sublayer, nn.Linear) else None

    def forward(self, x):
        if self._w is not None:
            return F.linear(x, self._w, self.sublayer.bias) + self.adapter.forward_delta(x)
        return self.sublayer(x) + self.adapter.forward_delta(x)
