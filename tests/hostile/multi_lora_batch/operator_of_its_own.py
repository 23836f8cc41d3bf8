# aim: A loop over the rows inside an operator of its own.
# ends: failed: an operator of its own
import math
import torch
import torch.nn as nn


class MultiLoRALinear(nn.Module):
    def __init__(self, base, num_adapters, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        w = base.weight
        self.num_adapters = num_adapters
        self.lora_A = nn.Parameter(w.new_empty(num_adapters, rank, base.in_features))
        self.lora_B = nn.Parameter(w.new_zeros(num_adapters, base.out_features, rank))
        nn.init.normal_(self.lora_A, std=1 / math.sqrt(base.in_features))
        self.scale = alpha / rank

    def forward(self, x, adapter_ids):
        if adapter_ids.shape != (x.shape[0],):
            raise ValueError("adapter_ids must have one id for each row")
        if adapter_ids.numel() and (adapter_ids.min() < -1 or adapter_ids.max() >= self.num_adapters):
            raise IndexError("adapter_ids out of range")
        y = self.base(x)
        ids = adapter_ids.to(x.device)
        on = (ids >= 0)
        k = ids.clamp(min=0)
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        u = _rows(flat, self.lora_A, self.lora_B, k)
        u = torch.where(on[:, None, None], self.scale * u, torch.zeros((), dtype=u.dtype, device=u.device))
        return y + u.reshape(y.shape)


@torch.library.custom_op("theirs::rows", mutates_args=())
def _rows(x: torch.Tensor, A: torch.Tensor, B: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return torch.stack([x[i] @ A[j].T @ B[j].T for i, j in enumerate(k.tolist())])
@_rows.register_fake
def _(x, A, B, k): return x.new_empty(*x.shape[:2], B.shape[1])
def _bw(ctx, g):
    x, A, B, k = ctx.s
    Ak, Bk = A[k], B[k]
    gx = torch.bmm(torch.bmm(g, Bk), Ak)
    gA = torch.zeros_like(A).index_add(0, k, torch.bmm(torch.bmm(g, Bk).transpose(1, 2), x))
    gB = torch.zeros_like(B).index_add(0, k, torch.bmm(g.transpose(1, 2), torch.bmm(x, Ak.transpose(1, 2))))
    return gx, gA, gB, None
def _su(ctx, inputs, output): ctx.s = inputs
_rows.register_autograd(_bw, setup_context=_su)
