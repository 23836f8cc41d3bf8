"""A threshold as in the authors' code, and ties at it broken by place."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class SVDLinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0):
        super().__init__()
        self.base = base
        for p in base.parameters():
            p.requires_grad = False
        kw = dict(device=base.weight.device, dtype=base.weight.dtype)
        self.lora_P = nn.Parameter(torch.randn(base.out_features, rank, **kw) * 0.02)
        self.lora_Q = nn.Parameter(torch.randn(rank, base.in_features, **kw) * 0.02)
        self.lora_E = nn.Parameter(torch.zeros(rank, **kw))
        self.scaling = alpha / rank

    def forward(self, x):
        return self.base(x) + self.scaling * ((x @ self.lora_Q.T) * self.lora_E) @ self.lora_P.T

    def orthogonality_penalty(self):
        eye = torch.eye(self.lora_E.numel(), device=self.lora_E.device, dtype=self.lora_E.dtype)
        p = torch.linalg.matrix_norm(self.lora_P.T @ self.lora_P - eye) ** 2
        return p + torch.linalg.matrix_norm(self.lora_Q @ self.lora_Q.T - eye) ** 2


def importance(layer):
    P, E, Q = ((w * w.grad).detach().abs() for w in (layer.lora_P, layer.lora_E, layer.lora_Q))
    return E + P.mean(0) + Q.mean(1)


@torch.no_grad()
def prune_to_budget(layers, scores, budget):
    if budget < 0:
        raise ValueError("budget")
    if len(layers) != len(scores):
        raise ValueError("layers")
    total = sum(s.numel() for s in scores)
    n = max(0, total - budget)
    if n == 0:
        return 0
    cut = torch.kthvalue(torch.cat(list(scores)), n)[0]
    left = n - sum(int((s < cut).sum()) for s in scores)  # of those equal to the cut
    for layer, s in zip(layers, scores):
        equal = (s == cut) & ((s == cut).cumsum(0) <= left)
        left -= int(equal.sum())
        layer.lora_E.masked_fill_((s < cut) | equal, 0.0)
    return n
