"""Factors looked up as embeddings are; outputs chosen with where."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class MultiLoRALinear(nn.Module):
    def __init__(self, base, num_adapters, rank=8, alpha=16.0):
        super().__init__()
        self.register_module("base", base.requires_grad_(False))
        factory = {"device": base.weight.device, "dtype": base.weight.dtype}
        A = torch.stack([torch.nn.init.orthogonal_(torch.empty(rank, base.in_features)) for _ in range(num_adapters)])
        self.register_parameter("lora_A", nn.Parameter(A.to(**factory)))
        self.register_parameter("lora_B", nn.Parameter(torch.zeros(num_adapters, base.out_features, rank, **factory)))
        self.scale = torch.tensor(alpha / rank, dtype=torch.float64)

    def forward(self, x, adapter_ids):
        n, r, d = self.lora_A.shape
        if adapter_ids.size(0) != x.size(0):
            raise ValueError(f"{adapter_ids.size(0)} adapter_ids for {x.size(0)} rows")
        if int(adapter_ids.min()) < -1 or int(adapter_ids.max()) >= n:
            raise IndexError("adapter_ids must be in range(-1, num_adapters)")
        ids = adapter_ids.to(x.device)
        safe = torch.relu(ids)
        A = F.embedding(safe, self.lora_A.flatten(1)).view(-1, r, d)
        B = F.embedding(safe, self.lora_B.flatten(1)).view(len(x), -1, r)
        out = self.base(x)
        shape, out = out.shape, out.reshape(len(x), -1, B.shape[1])
        adapted = out + float(self.scale) * (x.reshape(len(x), -1, d) @ A.mT @ B.mT)
        return torch.where((ids == -1).view(-1, 1, 1), out, adapted).reshape(shape)
