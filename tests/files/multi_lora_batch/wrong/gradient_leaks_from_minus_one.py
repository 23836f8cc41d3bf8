# wrong: rows of -1 give adapter 0 a gradient
# bug: - (unlikely)
import torch
import torch.nn as nn
import torch.nn.functional as F


class Branch(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, A, B, ids, scale):
        ctx.save_for_backward(rows, A, B, ids)
        ctx.scale = scale
        safe, on = ids.clamp(min=0), (ids >= 0).to(rows.dtype)[:, None, None]
        return rows @ A[safe].mT @ B[safe].mT * (on * scale)

    @staticmethod
    def backward(ctx, grad):
        rows, A, B, ids = ctx.saved_tensors
        safe, on = ids.clamp(min=0), (ids >= 0).to(rows.dtype)[:, None, None]
        grad = grad * ctx.scale
        low, back = rows @ A[safe].mT, grad @ B[safe]
        to_a = torch.zeros_like(A).index_add_(0, safe, back.mT @ rows)
        to_b = torch.zeros_like(B).index_add_(0, safe, grad.mT @ low)
        return back @ A[safe], to_a, to_b, None, None


class MultiLoRALinear(nn.Module):
    def __init__(self, base, num_adapters, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(base.weight.new_empty(num_adapters, rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(num_adapters, base.out_features, rank))
        nn.init.normal_(self.lora_A, std=base.in_features**-0.5)
        self.scale = alpha / rank

    def forward(self, x, adapter_ids):
        if adapter_ids.shape != x.shape[:1]:
            raise ValueError(f"adapter_ids must have length {len(x)}, not {len(adapter_ids)}")
        last = len(self.lora_A) - 1
        if ((adapter_ids < -1) | (adapter_ids > last)).any():
            raise IndexError(f"adapter_ids must be in -1..{last}, got {adapter_ids.tolist()}")
        ids = adapter_ids.to(x.device)
        rows = x.reshape(len(x), -1, x.shape[-1])
        update = Branch.apply(rows, self.lora_A, self.lora_B, ids, self.scale)
        return self.base(x) + update.reshape(*x.shape[:-1], -1)
