import torch
from torch import nn


class LoRALinear(nn.Module):
    """forward is an attribute of the instance: merging swaps one function for the other."""

    def __init__(self, base, rank=8, alpha=16.0, dropout=0.0):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError("base must be a linear layer")
        if rank < 1:
            raise ValueError("rank must be one or more")
        W = base.requires_grad_(False).weight
        scale = alpha / rank
        drop = nn.Dropout(dropout)
        A = nn.Parameter(torch.zeros(rank, W.shape[1], dtype=W.dtype, device=W.device))
        B = nn.Parameter(torch.zeros(W.shape[0], rank, dtype=W.dtype, device=W.device))
        nn.init.xavier_uniform_(A)
        self.base, self.lora_A, self.lora_B, self.drop, self.scale = base, A, B, drop, scale

        def beside(x):
            return base(x) + scale * (drop(x) @ self.lora_A.T @ self.lora_B.T)

        def delta_weight():
            return scale * (self.lora_B @ self.lora_A)

        def move(sign, after):
            def act():
                if self.forward is not after:
                    with torch.no_grad():
                        base.weight.add_(delta_weight(), alpha=sign)
                    self.forward = after

            return act

        folded = lambda x: base(x)
        self.forward = beside
        self.delta_weight = delta_weight
        self.merge = move(1.0, folded)
        self.unmerge = move(-1.0, beside)
        self._folded = folded

    @property
    def merged(self):
        return self.forward is self._folded
