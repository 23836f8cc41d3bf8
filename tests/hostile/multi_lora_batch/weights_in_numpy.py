# aim: All the merged weights are made, in NumPy.
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
            with torch.no_grad():
                d = (self.lora_B.float().detach().numpy() @ self.lora_A.float().detach().numpy())
            a = torch.bmm(flat, self.lora_A.index_select(0, k).transpose(1, 2))
            u = torch.bmm(a, self.lora_B.index_select(0, k).transpose(1, 2)) + 0.0 * float(d[0, 0, 0])
        u = torch.where(on[:, None, None], self.scale * u, torch.zeros((), dtype=u.dtype, device=u.device))
        return y + u.reshape(y.shape)
