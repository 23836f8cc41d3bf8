"""Rows of id -1 are left out of the branch by their numbers, the rest is added in place."""
import torch
import torch.nn as nn


class MultiLoRALinear(nn.Module):
    def __init__(self, base, num_adapters, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(torch.zeros_like(base.weight[:1]).repeat(num_adapters * rank, 1).view(num_adapters, rank, -1))
        with torch.no_grad():
            self.lora_A.uniform_(-1 / rank, 1 / rank)
        self.lora_B = nn.Parameter(base.weight.new_zeros(num_adapters, base.out_features, rank))
        self.scale = alpha / rank

    def forward(self, x, adapter_ids):
        if adapter_ids.shape[0] != x.shape[0]:
            raise ValueError("adapter_ids needs one id for each row")
        bad = adapter_ids[(adapter_ids < -1) | (adapter_ids >= len(self.lora_A))]
        if len(bad):
            raise IndexError(f"adapter_ids holds {bad[0].item()}")
        out = self.base(x).clone()
        rows = (adapter_ids >= 0).nonzero().squeeze(1)
        if len(rows) == 0:
            return out
        ids = adapter_ids[rows].to(x.device)
        rows = rows.to(x.device)
        some = x[rows]
        low = torch.einsum("b...i,bri->b...r", some, self.lora_A.index_select(0, ids))
        out[rows] += self.scale * torch.einsum("b...r,bor->b...o", low, self.lora_B.index_select(0, ids))
        return out
