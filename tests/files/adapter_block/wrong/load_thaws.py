# wrong: load_state_dict makes the sublayer trainable again
# bug: sublayer-thawed-again

import torch.nn as nn


class AdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer.requires_grad_(False)
        self.adapter = adapter

    def forward(self, x):
        h = x + self.sublayer(x)
        return h + self.adapter.forward_delta(h)

    def load_state_dict(self, sd, *a, **k):
        r = super().load_state_dict(sd, *a, **k)
        for p in self.parameters():
            p.requires_grad_(True)
        return r
