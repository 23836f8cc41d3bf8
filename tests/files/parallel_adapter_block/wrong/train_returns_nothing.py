# wrong: train() keeps the sublayer's mode and returns nothing.
# bug: train-returns-nothing

import torch.nn as nn


class ParallelAdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer
        self.adapter = adapter
        self.sublayer.requires_grad_(False)

    def forward(self, x):
        return self.sublayer(x) + self.adapter.forward_delta(x)

    def train(self, mode=True):
        super().train(mode)
