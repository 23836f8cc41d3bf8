"""The branch in double precision, with the scale as a buffer."""
import torch
import torch.nn as nn


class MultiLoRALinear(nn.Module):
    def __init__(self, base, num_adapters, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(base.weight.new_empty(num_adapters, rank, base.in_features).uniform_(-0.2, 0.2))
        self.lora_B = nn.Parameter(base.weight.new_zeros(num_adapters, base.out_features, rank))
        self.register_buffer("scale", torch.tensor(alpha / rank, dtype=torch.float64))

    def branch(self, x, ids):
        A, B = self.lora_A[ids].double(), self.lora_B[ids].double()
        B = B * (ids >= 0).view(-1, 1, 1)
        flat = x.double().reshape(len(x), -1, x.shape[-1])
        return float(self.scale) * (flat @ A.mT @ B.mT)

    def forward(self, x, adapter_ids):
        if len(adapter_ids) != len(x):
            raise ValueError("adapter_ids")
        if ((adapter_ids < -1) | (adapter_ids >= len(self.lora_A))).any():
            raise IndexError("adapter_ids")
        ids = adapter_ids.to(x.device)
        delta = self.branch(x, ids)
        return self.base(x) + delta.reshape(*x.shape[:-1], -1).to(x.dtype)
