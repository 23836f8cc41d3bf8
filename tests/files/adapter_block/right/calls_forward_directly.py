from torch import nn


class AdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer, self.adapter = sublayer, adapter
        self.sublayer.requires_grad_(False)

    def forward(self, x):
        h = x + self.sublayer.forward(x)
        return type(self.adapter).forward_delta(self.adapter, h) + h
