# wrong: The sublayer's parameters are replaced by frozen copies.
# bug: - (unlikely)

import torch.nn as nn


class ParallelAdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer
        self.adapter = adapter
        for module in sublayer.modules():
            for name, p in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(p.detach().clone(), requires_grad=False))

    def forward(self, x):
        return self.sublayer(x) + self.adapter.forward_delta(x)
