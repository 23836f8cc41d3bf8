"""Direction by direction, with sums of outer products."""
import math

import torch


class GaLoreProjector:
    def __init__(self, rank, update_interval=200, scale=1.0):
        if rank < 1:
            raise ValueError("rank must be >= 1")
        self.rank, self.interval, self.scale = rank, update_interval, scale
        self.next_update, self.calls = 1, 0

    def project(self, grad):
        self.calls += 1
        if self.calls == self.next_update:
            U, S, Vh = torch.linalg.svd(grad, full_matrices=True)
            self.m, self.n = grad.shape
            r = min(self.rank, self.m, self.n)
            columns = U.T if self.m <= self.n else Vh
            self.vectors = [columns[i].clone() for i in range(r)]
            self.next_update += self.interval
        if self.m <= self.n:
            return torch.stack([u @ grad for u in self.vectors])
        return torch.stack([grad @ v for v in self.vectors], dim=1)

    def project_back(self, low):
        full = low.new_zeros(self.m, self.n)
        for i, u in enumerate(self.vectors):
            full += torch.outer(u, low[i]) if self.m <= self.n else torch.outer(low[:, i], u)
        return self.scale * full


@torch.no_grad()
def galore_adam_step(weight, grad, state, projector, lr, betas=(0.9, 0.999), eps=1e-8):
    g = projector.project(grad)
    if len(state) == 0:
        state["history"] = [torch.zeros_like(g), torch.zeros_like(g), 0]
    m, v, t = state["history"]
    t += 1
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * g.square()
    state["history"] = [m, v, t]
    size = math.sqrt(1 - betas[1] ** t)
    step = m * (size / (1 - betas[0] ** t)) / (v.sqrt() + eps * size)
    weight.add_(projector.project_back(step).neg_().mul_(lr))
