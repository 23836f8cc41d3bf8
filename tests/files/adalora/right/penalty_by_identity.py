"""The penalty expanded: ||G||^2 - 2 tr G + r; einsum everywhere."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class SVDLinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_P = nn.Parameter(torch.empty_like(base.weight[:, :1].expand(-1, rank), memory_format=torch.contiguous_format))
        self.lora_E = nn.Parameter(base.weight.new_zeros(rank))
        self.lora_Q = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        nn.init.kaiming_uniform_(self.lora_P)
        nn.init.xavier_normal_(self.lora_Q)
        self.register_buffer("scale", torch.tensor(alpha / rank, dtype=torch.float64), persistent=False)

    def forward(self, x):
        up = torch.einsum("...i,ri,r,or->...o", x, self.lora_Q, self.lora_E, self.lora_P)
        return self.base(x) + (float(self.scale) if not self.scale.is_meta else 1.0) * up

    def orthogonality_penalty(self):
        def term(v):  # v: (n, r)
            gram = torch.einsum("ni,nj->ij", v, v)
            return (gram * gram).sum() - 2 * (v * v).sum() + v.shape[1]

        return term(self.lora_P) + term(self.lora_Q.T)


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
