"""Pruning with plain Python: pairs sorted, indices written one by one."""
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
    scores = []
    for i in range(layer.lora_E.shape[0]):
        s = (layer.lora_E[i] * layer.lora_E.grad[i]).abs()
        s = s + (layer.lora_P[:, i] * layer.lora_P.grad[:, i]).abs().mean()
        s = s + (layer.lora_Q[i] * layer.lora_Q.grad[i]).abs().mean()
        scores.append(s)
    return torch.stack(scores)


def prune_to_budget(layers, scores, budget):
    if len(layers) != len(scores):
        raise ValueError(f"got {len(layers)} layers but {len(scores)} scores")
    if budget < 0:
        raise ValueError(f"budget={budget}")
    pairs = [(float(s), k, i) for k, layer in enumerate(scores) for i, s in enumerate(layer)]
    pairs.sort(reverse=True)
    gone = pairs[budget:]
    with torch.no_grad():
        for _, k, i in gone:
            layers[k].lora_E[i] = 0.0
    return len(gone)
