# aim: A loop over the rows in NumPy, with gradients worked out by hand.
# ends: failed: outside of torch
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
        if flat.device.type == "meta":
            u = flat.new_empty(*flat.shape[:2], self.lora_B.shape[1])
        else:
            u = _Rows.apply(flat, self.lora_A, self.lora_B, k)
        u = torch.where(on[:, None, None], self.scale * u, torch.zeros((), dtype=u.dtype, device=u.device))
        return y + u.reshape(y.shape)


import numpy as np
class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, A, B, k):
        ctx.save_for_backward(x, A, B, k)
        d = torch.float32 if x.dtype == torch.bfloat16 else x.dtype
        xn, An, Bn = (t.detach().to(d).numpy() for t in (x, A, B))
        out = np.stack([xn[i] @ An[j].T @ Bn[j].T for i, j in enumerate(k.tolist())])
        return torch.from_numpy(out).to(x.dtype)
    @staticmethod
    def backward(ctx, g):
        x, A, B, k = ctx.saved_tensors
        d = torch.float32 if x.dtype == torch.bfloat16 else x.dtype
        gn, xn, An, Bn = (t.detach().to(d).numpy() for t in (g, x, A, B))
        gx, gA, gB = np.zeros_like(xn), np.zeros_like(An), np.zeros_like(Bn)
        for i, j in enumerate(k.tolist()):
            gx[i] = gn[i] @ Bn[j] @ An[j]
            gA[j] += (gn[i] @ Bn[j]).T @ xn[i]
            gB[j] += gn[i].T @ (xn[i] @ An[j].T)
        return (*(torch.from_numpy(t).to(x.dtype) for t in (gx, gA, gB)), None)
