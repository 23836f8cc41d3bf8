# wrong: The sublayer is hidden from the module.
# bug: module-not-registered

import torch.nn as nn


class ParallelAdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.__dict__['sublayer'] = sublayer
        self.adapter = adapter
        self.sublayer.requires_grad_(False)

    def forward(self, x):
        return self.sublayer(x) + self.adapter.forward_delta(x)
