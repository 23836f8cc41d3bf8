"""The cut is made with numpy; importance keeps its graph and is detached by whoever uses it."""
import numpy as np

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
    def s(w):
        return torch.abs(w * w.grad)

    return s(layer.lora_E) + s(layer.lora_P).sum(dim=0) / layer.lora_P.shape[0] + s(layer.lora_Q).sum(dim=-1) / layer.lora_Q.shape[-1]


def prune_to_budget(layers, scores, budget):
    if len(layers) != len(scores):
        raise ValueError("layers, scores")
    if budget < 0:
        raise ValueError("budget is negative")
    flat = np.concatenate([s.detach().double().cpu().numpy() for s in scores])
    order = np.argsort(-flat, kind="stable")
    mask = np.zeros(flat.shape, dtype=bool)
    mask[order[:budget]] = True
    for layer, part in zip(layers, np.split(mask, np.cumsum([len(s) for s in scores])[:-1])):
        with torch.no_grad():
            layer.lora_E.copy_(torch.where(torch.from_numpy(part).to(layer.lora_E.device), layer.lora_E, 0))
    return int((~mask).sum())
