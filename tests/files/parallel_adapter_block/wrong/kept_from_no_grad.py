# wrong: What was computed under no_grad is used again with gradients.
# bug: - (unlikely)

import torch
import torch.nn as nn


class ParallelAdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer
        self.adapter = adapter
        self.sublayer.requires_grad_(False)
        self._kept = (None, None)

    def forward(self, x):
        return self._sub(x) + self.adapter.forward_delta(x)

    def _sub(self, x):
        seen, value = self._kept
        self._kept = (None, None)
        if seen is x and torch.is_grad_enabled():
            return value
        value = self.sublayer(x)
        if not torch.is_grad_enabled():
            self._kept = (x, value)
        return value
