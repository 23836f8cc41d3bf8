# wrong: eval() is called on the sublayer as a part of freezing.
# bug: eval-at-the-start

import torch.nn as nn


class AdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer.eval()
        self.adapter = adapter
        for p in self.sublayer.parameters():
            p.requires_grad_(False)

    def forward(self, x):
        h = x + self.sublayer(x)
        return h + self.adapter.forward_delta(h)
