"""The weight of the update is made, with diag(E) written out."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class SVDLinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        w = base.weight
        self.lora_P = nn.Parameter(nn.init.orthogonal_(torch.empty(w.shape[0], rank)).to(w) if not w.is_meta else w.new_empty(w.shape[0], rank))
        self.lora_Q = nn.Parameter(nn.init.orthogonal_(torch.empty(rank, w.shape[1])).to(w) if not w.is_meta else w.new_empty(rank, w.shape[1]))
        self.lora_E = nn.Parameter(w.new_zeros(rank))
        self.alpha, self.rank = alpha, rank

    @property
    def scale(self):
        return self.alpha / self.rank

    def forward(self, x):
        delta = self.scale * self.lora_P @ torch.diag(self.lora_E) @ self.lora_Q
        return F.linear(x, self.base.weight + delta, self.base.bias)

    def orthogonality_penalty(self):
        def off(gram):
            return F.mse_loss(gram, torch.eye(self.rank).to(gram), reduction="sum")

        return off(self.lora_P.T @ self.lora_P) + off(self.lora_Q @ self.lora_Q.T)


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
