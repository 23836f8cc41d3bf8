"""An nn.Linear itself, whose weight is the base's."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class SVDLinear(nn.Linear):
    def __init__(self, base, rank=8, alpha=16.0):
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        base.requires_grad_(False)
        self.base = base
        self.weight, self.bias = base.weight, base.bias
        self.scale = float(alpha) / rank
        w = base.weight
        self.lora_E = nn.Parameter(torch.zeros(rank, device=w.device, dtype=w.dtype))
        self.lora_P = nn.Parameter(torch.empty(w.shape[0], rank, device=w.device, dtype=w.dtype).uniform_(-0.3, 0.3))
        self.lora_Q = nn.Parameter(torch.empty(rank, w.shape[1], device=w.device, dtype=w.dtype).uniform_(-0.3, 0.3))

    def forward(self, x):
        h = torch.matmul(x, self.lora_Q.transpose(0, 1)).mul(self.lora_E).mul(self.scale)
        return super().forward(x) + h.matmul(self.lora_P.transpose(0, 1))

    def orthogonality_penalty(self):
        P, Q = self.lora_P, self.lora_Q
        a, b = P.T @ P, Q @ Q.T
        a = a - torch.diag_embed(torch.ones_like(self.lora_E))
        b = b - torch.diag_embed(torch.ones_like(self.lora_E))
        return torch.stack([a, b]).square().sum()


def importance(layer):
    P, E, Q = ((w * w.grad).detach().abs() for w in (layer.lora_P, layer.lora_E, layer.lora_Q))
    return E + P.mean(0) + Q.mean(1)


def prune_to_budget(layers, scores, budget):
    if budget < 0:
        raise ValueError("budget < 0")
    if len(layers) != len(scores):
        raise ValueError("layers and scores differ in length")
    flat = torch.cat(list(scores))
    keep = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    keep[flat.argsort(descending=True)[:budget]] = True
    start = 0
    for layer in layers:
        r = layer.lora_E.numel()
        layer.lora_E.data.mul_(keep[start:start + r].to(layer.lora_E))
        start += r
    return int((~keep).sum())
