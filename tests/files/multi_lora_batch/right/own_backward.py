"""An autograd function that saves ids in place of gathered factors."""
import torch
import torch.nn as nn


class Branch(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, A, B, ids, scale):
        ctx.save_for_backward(rows, A, B, ids)
        ctx.scale = scale
        safe, on = ids.clamp(min=0), (ids >= 0).to(rows.dtype)[:, None, None]
        return torch.bmm(torch.bmm(rows, A[safe].mT), B[safe].mT) * (on * scale)

    @staticmethod
    def backward(ctx, grad):
        rows, A, B, ids = ctx.saved_tensors
        safe, on = ids.clamp(min=0), (ids >= 0).to(rows.dtype)[:, None, None]
        grad = grad * (on * ctx.scale)
        low, back = rows @ A[safe].mT, grad @ B[safe]
        to_a = torch.zeros_like(A).index_add_(0, safe, back.mT @ rows)
        to_b = torch.zeros_like(B).index_add_(0, safe, grad.mT @ low)
        return back @ A[safe], to_a, to_b, None, None


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
        rows = x.reshape(len(x), -1, x.shape[-1])
        delta = Branch.apply(rows, self.lora_A, self.lora_B, adapter_ids.to(x.device), self.scale)
        return self.base(x) + delta.view(*x.shape[:-1], -1)
