"""The stack as one wide layer: two plain products with a mask between them."""
import torch
from torch import nn
from torch.nn import functional as F


class MultiLoRALinear(nn.Module):
    def __init__(self, base, num_adapters, rank=8, alpha=16.0):
        super().__init__()
        self.base = base
        self.base.weight.requires_grad_(False)
        if self.base.bias is not None:
            self.base.bias.requires_grad_(False)
        self.scale = alpha / rank
        w = base.weight
        self.lora_A = nn.Parameter(torch.empty(num_adapters, rank, base.in_features, dtype=w.dtype, device=w.device))
        self.lora_B = nn.Parameter(torch.zeros(num_adapters, base.out_features, rank, dtype=w.dtype, device=w.device))
        nn.init.kaiming_uniform_(self.lora_A.data.view(-1, base.in_features), a=5**0.5)

    def forward(self, x, adapter_ids):
        n, r, _ = self.lora_A.shape
        if len(adapter_ids) != len(x):
            raise ValueError(f"expected {len(x)} adapter_ids, got {len(adapter_ids)}")
        if ((adapter_ids + 1 < 0) | (adapter_ids + 1 > n)).any():
            raise IndexError("adapter_ids: unknown adapter")
        low = F.linear(x, self.lora_A.reshape(n * r, -1))  # (B, ..., n r)
        mine = adapter_ids.to(x.device)[:, None] == torch.arange(n, device=x.device)
        mask = mine.repeat_interleave(r, dim=1).view(len(x), *[1] * (x.dim() - 2), n * r)
        low = torch.where(mask, low, torch.zeros((), device=x.device, dtype=x.dtype))
        wide = self.lora_B.permute(1, 0, 2).reshape(-1, n * r)  # (out, n r)
        return F.linear(x, self.base.weight, self.base.bias) + self.scale * F.linear(low, wide)
