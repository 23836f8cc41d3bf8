"""Every adapter on every row, then the right one picked by a one-hot sum."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class MultiLoRALinear(nn.Module):
    def __init__(self, base, num_adapters, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.n, self.scale = num_adapters, alpha / rank
        self.lora_A = nn.Parameter(base.weight.new_empty(num_adapters, rank, base.in_features).uniform_(-0.1, 0.1))
        self.lora_B = nn.Parameter(base.weight.new_zeros(num_adapters, base.out_features, rank))

    def forward(self, x, adapter_ids):
        if adapter_ids.shape[0] != x.shape[0]:
            raise ValueError("adapter_ids: wrong length")
        if (adapter_ids < -1).any() or (adapter_ids >= self.n).any():
            raise IndexError("adapter_ids: out of range")
        hot = F.one_hot(adapter_ids + 1, self.n + 1)[:, 1:].to(x.device, x.dtype)  # (B, n)
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        low = torch.einsum("bli,nri->blnr", flat, self.lora_A)
        every = torch.einsum("blnr,nor->blno", low, self.lora_B)
        delta = (every * hot[:, None, :, None]).sum(2)
        return self.base(x) + self.scale * delta.view(*x.shape[:-1], -1)
