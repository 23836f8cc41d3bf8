"""A row of zeros after the last adapter, which an index of -1 finds."""
import torch
import torch.nn as nn


class MultiLoRALinear(nn.Module):
    def __init__(self, base, num_adapters, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(base.weight.new_empty(num_adapters, rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(num_adapters, base.out_features, rank))
        torch.nn.init.xavier_uniform_(self.lora_A.data)
        self.scale = alpha / rank

    def forward(self, x, adapter_ids):
        n, r, d = self.lora_A.shape
        if tuple(adapter_ids.shape) != (x.shape[0],):
            raise ValueError(f"adapter_ids must have shape ({x.shape[0]},)")
        if adapter_ids.min() < -1 or adapter_ids.max() > n - 1:
            raise IndexError("an id in adapter_ids is out of range")
        ids = adapter_ids.to(x.device)
        A = torch.cat([self.lora_A, self.lora_A.new_zeros(1, r, d)])[ids]
        B = torch.cat([self.lora_B, self.lora_B.new_zeros(1, self.lora_B.shape[1], r)])[ids]
        between = x.dim() - 2
        for _ in range(max(between - 1, 0)):  # (B, 1, ..., r, d) beside x (B, ..., L, d)
            A, B = A.unsqueeze(1), B.unsqueeze(1)
        rows = x if between else x.unsqueeze(1)
        delta = rows @ A.transpose(-1, -2) @ B.transpose(-1, -2)
        return self.base(x) + (delta if between else delta.squeeze(1)) * self.scale
