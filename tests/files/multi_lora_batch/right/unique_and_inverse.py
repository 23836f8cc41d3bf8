"""The adapters in the batch once each, all rows through all of them, the right one taken."""
import torch
import torch.nn as nn


class MultiLoRALinear(nn.Module):
    def __init__(self, base, num_adapters, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(base.weight.new_empty(num_adapters, rank, base.in_features).uniform_(-0.2, 0.2))
        self.lora_B = nn.Parameter(base.weight.new_zeros(num_adapters, base.out_features, rank))
        self.alpha, self.rank = alpha, rank

    @property
    def scale(self):
        return self.alpha / self.rank

    def forward(self, x, adapter_ids):
        if adapter_ids.shape[0] != x.shape[0]:
            raise ValueError("adapter_ids")
        there, inverse = torch.unique(adapter_ids, return_inverse=True)
        if there[0] < -1 or there[-1] >= self.lora_A.shape[0]:
            raise IndexError(f"adapter_ids: {there}")
        there, inverse = there.to(x.device), inverse.to(x.device)
        A, B = self.lora_A[there], self.lora_B[there]
        B = B.masked_fill((there < 0).view(-1, 1, 1), 0)
        flat = x.reshape(1, -1, x.shape[-1])
        every = (flat @ A.mT @ B.mT).view(len(there), len(x), -1, B.shape[1])
        delta = every[inverse, torch.arange(len(x), device=x.device)]
        return self.base(x) + self.scale * delta.reshape(*x.shape[:-1], -1)
