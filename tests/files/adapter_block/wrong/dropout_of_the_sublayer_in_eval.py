# wrong: train() leaves the sublayer's dropout in eval mode
# bug: -

import torch.nn as nn


class AdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer.requires_grad_(False)
        self.adapter = adapter

    def forward(self, x):
        h = x + self.sublayer(x)
        return h + self.adapter.forward_delta(h)

    def train(self, mode=True):
        super().train(mode)
        for m in self.sublayer.modules():
            if isinstance(m, nn.Dropout):
                m.eval()
        return self
