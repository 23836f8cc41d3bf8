# wrong: adapter biases frozen
# bug: adapter-frozen

import torch.nn as nn


class ParallelAdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer
        self.adapter = adapter
        self.sublayer.requires_grad_(False)
        for n, p in adapter.named_parameters():
            if "bias" in n:
                p.requires_grad = False

    def forward(self, x):
        return self.sublayer(x) + self.adapter.forward_delta(x)
