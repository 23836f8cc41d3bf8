"""One einsum over gathered factors, an ellipsis for the dimensions between."""
import torch
import torch.nn as nn


class MultiLoRALinear(nn.Module):
    def __init__(self, base, num_adapters, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        w = base.weight
        self.lora_A = nn.Parameter(torch.randn(num_adapters, rank, w.shape[1], device=w.device, dtype=w.dtype) * 0.02)
        self.lora_B = nn.Parameter(torch.zeros(num_adapters, w.shape[0], rank, device=w.device, dtype=w.dtype))
        self.scale = alpha / rank

    def forward(self, x, adapter_ids):
        if adapter_ids.numel() != x.shape[0]:
            raise ValueError("adapter_ids does not fit the batch")
        if not bool(((-1 <= adapter_ids) & (adapter_ids < self.lora_A.shape[0])).all()):
            raise IndexError("adapter_ids holds an id that is not there")
        ids = adapter_ids.to(x.device)
        gate = (ids != -1).type_as(x)
        delta = torch.einsum(
            "b,b...i,bri,bor->b...o", gate, x, self.lora_A[ids], self.lora_B[ids]
        )
        return self.base(x).add(delta, alpha=self.scale)
