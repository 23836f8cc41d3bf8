"""Sorted scores and ranks of each; hidden vector in float32 for half precisions only."""
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
    P, E, Q = (w.detach().abs() * w.grad.abs() for w in (layer.lora_P, layer.lora_E, layer.lora_Q))
    return E + P.mean(0) + Q.mean(1)


def prune_to_budget(layers, scores, budget):
    if budget < 0:
        raise ValueError("budget")
    if len(layers) != len(scores):
        raise ValueError("scores")
    flat = torch.cat([s.detach() for s in scores])
    place = flat.argsort(descending=True, stable=True).argsort()
    kept = place < budget
    count, start = 0, 0
    for layer, s in zip(layers, scores):
        with torch.no_grad():
            for i in range(len(s)):
                if not kept[start + i]:
                    layer.lora_E[i].zero_()
                    count += 1
        start += len(s)
    return count
