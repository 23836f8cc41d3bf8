# wrong: All whose name has 'adapter' in it stay trainable.
# bug: sublayer-partly-frozen

import torch.nn as nn


class ParallelAdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer
        self.adapter = adapter
        for name, p in self.named_parameters():
            if 'adapter' not in name:
                p.requires_grad = False

    def forward(self, x):
        return self.sublayer(x) + self.adapter.forward_delta(x)
