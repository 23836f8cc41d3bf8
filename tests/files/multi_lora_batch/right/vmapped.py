"""Written for one row, mapped over the batch."""
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
        if adapter_ids.shape != (x.shape[0],):
            raise ValueError("adapter_ids must be (B,)")
        if adapter_ids.amin() < -1 or adapter_ids.amax() >= len(self.lora_A):
            raise IndexError("adapter_ids out of range")
        ids = adapter_ids.to(x.device)

        def one(row, a, b, on):
            return on * (row @ a.T @ b.T)

        gate = (ids >= 0).to(x.dtype)
        delta = torch.vmap(one)(x, self.lora_A[ids], self.lora_B[ids], gate)
        return self.base(x) + self.scale * delta
