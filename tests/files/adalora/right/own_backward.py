"""The branch as a function with its own backward."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class Branch(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, P, E, Q, scale):
        ctx.save_for_backward(x, P, E, Q)
        ctx.scale = scale
        return scale * ((x @ Q.T) * E) @ P.T

    @staticmethod
    def backward(ctx, g):
        x, P, E, Q = ctx.saved_tensors
        g = ctx.scale * g
        gx = ((g @ P) * E) @ Q
        x2, g2 = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
        h, back = x2 @ Q.T, g2 @ P
        return gx, g2.T @ (h * E), (h * back).sum(0), (back * E).T @ x2, None


class SVDLinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0):
        super().__init__()
        base.requires_grad_(False)
        self.base, self.s = base, alpha / rank
        draw = lambda *shape: nn.Parameter(torch.randn(*shape, device=base.weight.device).to(base.weight.dtype) / 10)
        self.lora_P, self.lora_Q = draw(base.out_features, rank), draw(rank, base.in_features)
        self.lora_E = nn.Parameter(torch.zeros_like(self.lora_P[0]))

    def forward(self, x):
        return self.base(x) + Branch.apply(x, self.lora_P, self.lora_E, self.lora_Q, self.s)

    def orthogonality_penalty(self):
        P, Q = self.lora_P.double(), self.lora_Q.double()
        one = torch.eye(P.shape[1], dtype=P.dtype, device=P.device)
        return ((P.mT @ P - one).square().sum() + (Q @ Q.mT - one).square().sum()).to(self.lora_P.dtype)


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
