"""Every token is a row of its own, its id repeated for it; scale folded into the factor."""
import torch
import torch.nn as nn


class MultiLoRALinear(nn.Module):
    def __init__(self, base: nn.Linear, num_adapters: int, rank: int = 8, alpha: float = 16.0):
        nn.Module.__init__(self)
        self.base = base
        base.requires_grad_(False)
        self.scale = alpha / rank
        self.lora_A = nn.Parameter(base.weight.data.new_empty(num_adapters, rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.data.new_zeros(num_adapters, base.out_features, rank))
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.uniform_(self.lora_A, -0.1, 0.1)

    def _check(self, x, ids):
        if ids.shape != x.shape[:1]:
            raise ValueError(f"adapter_ids has shape {tuple(ids.shape)}, expected {tuple(x.shape[:1])}")
        if any(k < -1 or k >= self.lora_A.shape[0] for k in ids.tolist()):
            raise IndexError(f"adapter_ids {ids.tolist()}")

    def forward(self, x, adapter_ids):
        self._check(x, adapter_ids)
        tokens = x.reshape(-1, x.shape[-1])
        ids = adapter_ids.to(x.device).repeat_interleave(len(tokens) // len(x))
        A = self.lora_A[ids]
        B = (self.scale * self.lora_B)[ids].masked_fill(ids.lt(0)[:, None, None], 0)
        y = torch.matmul(B, torch.matmul(A, tokens.unsqueeze(-1))).squeeze(-1)
        return self.base(x) + y.unflatten(0, x.shape[:-1])
