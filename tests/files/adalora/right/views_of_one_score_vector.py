"""Masks by torch.split; topk of the lowest; E multiplied in place."""
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
        self.lora_P = nn.Parameter(torch.randn(rank, base.out_features, **kw).T)
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


def prune_to_budget(layers, scores, budget):
    if budget < 0 or len(layers) != len(scores):
        raise ValueError("budget must be >= 0, and layers and scores of one length")
    everything = torch.cat([s.detach().flatten() for s in scores])
    excess = max(everything.numel() - budget, 0)
    mask = torch.ones_like(everything)
    mask[everything.topk(excess, largest=False).indices] = 0
    with torch.no_grad():
        for layer, m in zip(layers, mask.split([s.numel() for s in scores])):
            layer.lora_E *= m
    return excess
