"""Gathers where the batch is small, the whole stack at once where it is large; skips both if idle."""
import torch
import torch.nn as nn


class MultiLoRALinear(nn.Module):
    def __init__(self, base, num_adapters, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(base.weight.new_empty(num_adapters, rank, base.in_features).uniform_(-0.2, 0.2))
        self.lora_B = nn.Parameter(base.weight.new_zeros(num_adapters, base.out_features, rank))
        self.scale = alpha / rank

    def forward(self, x, adapter_ids):
        rows, n = len(x), len(self.lora_A)
        if len(adapter_ids) != rows:
            raise ValueError(f"adapter_ids: {len(adapter_ids)} for {rows} rows")
        low, high = adapter_ids.aminmax()
        if low < -1 or high >= n:
            raise IndexError(f"adapter_ids: {low}..{high} of {n}")
        out = self.base(x)
        if high < 0:
            return out
        ids = adapter_ids.to(x.device)
        flat = x.reshape(rows, -1, x.shape[-1])
        if low == high:
            delta = flat @ self.lora_A[low].T @ self.lora_B[low].T
        elif rows <= n:
            delta = flat @ self.lora_A[ids].mT @ self.lora_B[ids].mT
        else:
            hidden = torch.tensordot(flat, self.lora_A, dims=([2], [2]))  # (B, L, n, r)
            mine = ids[:, None] == torch.arange(n, device=x.device)
            hidden = hidden * mine[:, None, :, None]
            delta = torch.tensordot(hidden, self.lora_B, dims=([2, 3], [0, 2]))
        delta = delta * (ids >= 0)[:, None, None]
        return out + self.scale * delta.reshape(out.shape)
