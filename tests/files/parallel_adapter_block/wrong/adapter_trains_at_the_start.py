# wrong: making the block puts an adapter that came in eval mode in training mode
# bug: -

import torch.nn as nn


class ParallelAdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer.requires_grad_(False)
        self.adapter = adapter
        adapter.train()

    def forward(self, x):
        return self.sublayer(x) + self.adapter.forward_delta(x)
