"""As a mixture of experts does it: rows dispatched to a block for each adapter and combined again."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class MultiLoRALinear(nn.Module):
    def __init__(self, base, num_adapters, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(torch.normal(0.0, 0.02, (num_adapters, rank, base.in_features)).to(base.weight))
        self.lora_B = nn.Parameter(torch.zeros(num_adapters, base.out_features, rank).to(base.weight))
        self.scale = alpha / rank

    def forward(self, x, adapter_ids):
        n = len(self.lora_A)
        if len(adapter_ids) != len(x):
            raise ValueError("adapter_ids")
        if ((adapter_ids < -1) | (adapter_ids >= n)).any():
            raise IndexError("adapter_ids")
        hot = (adapter_ids.unsqueeze(1) == torch.arange(n, device=adapter_ids.device)).to(x)
        flat = x.reshape(len(x), -1, x.shape[-1])
        blocks = torch.einsum("bn,bli->nbli", hot, flat).flatten(1, 2)
        done = (blocks @ self.lora_A.mT @ self.lora_B.mT).view(n, *flat.shape[:2], -1)
        delta = torch.einsum("bn,nblo->blo", hot, done)
        return self.base(x) + self.scale * delta.reshape(*x.shape[:-1], -1)
