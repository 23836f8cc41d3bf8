# wrong: Under no_grad the sublayer's output is kept for the next call.
# bug: - (unlikely)

import torch
import torch.nn as nn


class AdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer
        self.adapter = adapter
        self.sublayer.requires_grad_(False)
        self._kept = None

    def forward(self, x):
        h = x + self._sub(x)
        return h + self.adapter.forward_delta(h)

    def _sub(self, x):
        if torch.is_grad_enabled():
            return self.sublayer(x)
        if self._kept is None or self._kept[0].shape != x.shape:
            self._kept = (x, self.sublayer(x))
        return self._kept[1]
