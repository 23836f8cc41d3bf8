import torch
import torch.nn as nn


class ParallelAdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer
        self.adapter = adapter
        self.sublayer.requires_grad_(False)

    def forward(self, x):
        params = {n: p.detach() for n, p in self.sublayer.named_parameters()}
        h = torch.func.functional_call(self.sublayer, params, (x,))
        return h + self.adapter.forward_delta(x)
