from torch import nn


class AdapterBlock(nn.Module):
    """Lists inside; the agreed names registered too."""

    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer
        self.adapter = adapter
        list(map(lambda p: p.requires_grad_(False), sublayer.parameters()))

    @property
    def parts(self):
        return self.sublayer, self.adapter

    def forward(self, x):
        sublayer, adapter = self.parts
        h = x + sublayer(x)
        return h + adapter.forward_delta(h)
