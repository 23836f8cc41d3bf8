"""No matrix product in the branch: broadcasting and sums."""
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
        if adapter_ids.shape[0] != x.shape[0]:
            raise ValueError("adapter_ids")
        if ((adapter_ids < -1) | (adapter_ids >= len(self.lora_A))).any():
            raise IndexError("adapter_ids")
        ids = adapter_ids.to(x.device)
        A, B = self.lora_A[ids], self.lora_B[ids] * (ids > -1).view(-1, 1, 1)
        between = x.dim() - 2
        A = A.view(len(x), *[1] * between, *A.shape[1:])
        B = B.view(len(x), *[1] * between, *B.shape[1:])
        low = (x.unsqueeze(-2) * A).sum(-1)  # (B, ..., r)
        return self.base(x) + self.scale * (low.unsqueeze(-2) * B).sum(-1)
