"""Both moments in one tensor, in a dataclass; signs are fixed by the largest entry."""
import itertools
from dataclasses import dataclass, field

import torch


@dataclass
class Moments:
    both: torch.Tensor
    clock: itertools.count = field(default_factory=lambda: itertools.count(1))


class GaLoreProjector:
    def __init__(self, rank, update_interval=200, scale=1.0):
        if rank < 1:
            raise ValueError("`rank` should be 1 or more")
        self.rank, self.scale = rank, scale
        self.due = itertools.cycle([True] + [False] * (update_interval - 1))

    def project(self, grad):
        m, n = grad.shape
        if next(self.due):
            r = min(self.rank, m, n)
            full = torch.linalg.svd(grad)
            basis = full.U[:, :r] if m <= n else full.Vh.T[:, :r]
            top = basis.gather(0, basis.abs().argmax(0, keepdim=True))
            self.basis = basis * top.sign()
            self.left = m <= n
        if self.left:
            return torch.matmul(self.basis.transpose(0, 1), grad)
        return torch.matmul(grad, self.basis)

    def project_back(self, low):
        parts = (self.basis, low) if self.left else (low, self.basis.transpose(0, 1))
        return self.scale * torch.matmul(*parts)


@torch.no_grad()
def galore_adam_step(weight, grad, state, projector, lr, betas=(0.9, 0.999), eps=1e-8):
    low = projector.project(grad)
    if "x" not in state:
        state["x"] = Moments(low.new_zeros(2, *low.shape))
    own = state["x"]
    t = next(own.clock)
    beta = low.new_tensor(betas, dtype=torch.float64).view(2, 1, 1)
    own.both = (beta * own.both + (1 - beta) * torch.stack([low, low**2])).to(low.dtype)
    m, v = (own.both / (1 - beta**t)).to(low.dtype)
    weight.copy_(weight - lr * projector.project_back(m / (v.sqrt() + eps)))
