"""Second names, extra state, a property for base, and a subclass that carries it all."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class Triplet(nn.Module):
    def __init__(self, out, into, rank, like):
        super().__init__()
        self.lora_P = nn.Parameter(like.new_empty(out, rank))
        self.lora_Q = nn.Parameter(like.new_empty(rank, into))
        self.lora_E = nn.Parameter(like.new_zeros(rank))
        for p in (self.lora_P, self.lora_Q):
            nn.init.normal_(p, std=0.02)


class SVDLinear(Triplet):
    def __init__(self, base, rank=8, alpha=16.0):
        super().__init__(base.out_features, base.in_features, rank, base.weight)
        self.base_layer = base.requires_grad_(False)
        self.base = base
        self.P, self.Q = self.lora_P, self.lora_Q
        self.scale = alpha / rank
        self.name = "default"

    def get_extra_state(self):
        return {"name": self.name}

    def set_extra_state(self, state):
        self.name = state["name"]

    def forward(self, x):
        out = F.linear(x, self.base.weight, self.base.bias)
        hidden = F.linear(x, self.lora_Q)
        return out + F.linear(hidden, self.lora_P * (self.lora_E * self.scale))

    def orthogonality_penalty(self):
        total = 0.0
        for rows in (self.P.T, self.Q):
            total = total + (rows @ rows.T - torch.eye(rows.shape[0], out=torch.empty_like(rows @ rows.T))).pow(2).sum() if not rows.is_meta else total + (rows @ rows.T).pow(2).sum()
        return total


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
