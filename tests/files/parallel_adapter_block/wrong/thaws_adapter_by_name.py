# wrong: requires_grad follows the first name component.
# bug: adapter-thawed

import torch.nn as nn


class ParallelAdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer
        self.adapter = adapter
        for name, p in self.named_parameters():
            p.requires_grad = name.startswith('adapter.')

    def forward(self, x):
        return self.sublayer(x) + self.adapter.forward_delta(x)
