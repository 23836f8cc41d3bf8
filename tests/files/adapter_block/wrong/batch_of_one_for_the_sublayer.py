# wrong: an x of two dimensions gets a third for the sublayer
# bug: leading-dims-lost

from torch import nn


class AdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer.requires_grad_(False)
        self.adapter = adapter

    def forward(self, x):
        rows = x.unsqueeze(0) if x.dim() == 2 else x
        h = x + self.sublayer(rows).reshape(x.shape)
        return h + self.adapter.forward_delta(h)
