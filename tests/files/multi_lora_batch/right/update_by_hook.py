"""A hook that is on the base for the call alone adds the updates."""
from functools import partial

import torch
import torch.nn as nn


def add_updates(layer, ids, module, args, out):
    (x,) = args
    flat = x.reshape(len(x), -1, x.shape[-1])
    A = layer.lora_A.take_along_dim(ids.clamp(min=0).view(-1, 1, 1), 0)
    B = layer.lora_B.take_along_dim(ids.clamp(min=0).view(-1, 1, 1), 0)
    on = ids.ne(-1).view(-1, 1, 1).to(x.dtype)
    delta = torch.matmul(torch.matmul(flat, A.transpose(-2, -1)), B.transpose(-2, -1)) * on
    return out + delta.reshape(out.shape) * layer.scale


class MultiLoRALinear(nn.Module):
    def __init__(self, base, num_adapters, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(base.weight.new_empty(num_adapters, rank, base.in_features).uniform_(-0.2, 0.2))
        self.lora_B = nn.Parameter(base.weight.new_zeros(num_adapters, base.out_features, rank))
        self.scale = alpha / rank

    def forward(self, *args, **kwargs):
        return self._forward(*args, **kwargs)

    def _forward(self, x, adapter_ids):
        if len(adapter_ids) != len(x):
            raise ValueError("adapter_ids")
        if adapter_ids.lt(-1).any() or adapter_ids.ge(len(self.lora_A)).any():
            raise IndexError("adapter_ids")
        handle = self.base.register_forward_hook(partial(add_updates, self, adapter_ids.to(x.device)))
        try:
            return self.base(x)
        finally:
            handle.remove()
