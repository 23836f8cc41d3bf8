"""The ids stay where they are: only indices are made of them."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class MultiLoRALinear(nn.Module):
    def __init__(self, base, num_adapters, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(nn.init.xavier_normal_(base.weight.new_empty(num_adapters, rank, base.in_features)))
        self.lora_B = nn.Parameter(base.weight.new_zeros(num_adapters, base.out_features, rank))
        self.scale = alpha / rank

    def forward(self, x, adapter_ids):
        if x.shape[0] != adapter_ids.shape[0]:
            raise ValueError(f"x has {x.shape[0]} rows, adapter_ids {adapter_ids.shape[0]} entries")
        if not torch.equal(adapter_ids, adapter_ids.clamp(-1, self.lora_A.shape[0] - 1)):
            raise IndexError("adapter_ids must be -1 or the number of an adapter")
        out = self.base(x)
        on = adapter_ids >= 0
        if not on.any():
            return out
        ids, some = adapter_ids[on], x[on]
        if x.dim() == 2:
            low = torch.einsum("bi,bri->br", some, self.lora_A[ids])
            delta = torch.einsum("br,bor->bo", low, self.lora_B[ids])
        else:
            tokens = some.flatten(1, -2)
            delta = tokens @ self.lora_A[ids].mT @ self.lora_B[ids].mT
            delta = delta.unflatten(1, some.shape[1:-1])
        out = out.clone()
        out[on] = out[on] + self.scale * delta
        return out
