"""A convolution of kernel size 1 with one group for each row."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class MultiLoRALinear(nn.Module):
    def __init__(self, base, num_adapters, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(base.weight.new_empty(num_adapters, rank, base.in_features).uniform_(-0.2, 0.2))
        self.lora_B = nn.Parameter(base.weight.new_zeros(num_adapters, base.out_features, rank))
        self.scale = alpha / rank

    def forward(self, x, adapter_ids):
        if adapter_ids.shape[:1] != x.shape[:1]:
            raise ValueError("adapter_ids and x differ in length")
        n = self.lora_A.shape[0]
        if ((adapter_ids >= n) | (adapter_ids < -1)).any():
            raise IndexError("adapter_ids")
        rows, ids = len(x), adapter_ids.to(x.device)
        A, B = self.lora_A[ids], self.lora_B[ids] * (ids >= 0)[:, None, None]
        h = x.reshape(rows, -1, x.shape[-1]).mT.reshape(1, rows * x.shape[-1], -1)
        h = F.conv1d(h, A.flatten(0, 1).unsqueeze(-1), groups=rows)
        h = F.conv1d(h, B.flatten(0, 1).unsqueeze(-1), groups=rows)
        delta = h.view(rows, self.base.out_features, -1).mT
        return self.base(x) + self.scale * delta.reshape(*x.shape[:-1], -1)
