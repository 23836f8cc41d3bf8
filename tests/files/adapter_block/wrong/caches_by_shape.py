# wrong: sublayer output cached by shape
# bug: - (unlikely)

import torch.nn as nn


class AdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer
        self.adapter = adapter
        self.sublayer.requires_grad_(False)

    def forward(self, x):
        h = x + self._sub(x)
        return h + self.adapter.forward_delta(h)

    def _sub(self, x):
        c = self.__dict__.setdefault("_c", {})
        if x.shape not in c:
            c[x.shape] = self.sublayer(x)
        return c[x.shape]
