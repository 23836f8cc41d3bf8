# wrong: keeps what is called lora trainable
# bug: sublayer-partly-frozen

import torch.nn as nn


class ParallelAdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer
        self.adapter = adapter
        for n, p in sublayer.named_parameters():
            if "lora" not in n:
                p.requires_grad = False

    def forward(self, x):
        return self.sublayer(x) + self.adapter.forward_delta(x)
