# wrong: project gives a full-size gradient
# bug: state-as-large-as-weight
import torch


class GaLoreProjector:
    def __init__(self, rank, update_interval=200, scale=1.0):
        if rank < 1:
            raise ValueError(f"rank must be positive, got {rank}")
        self.rank, self.gap, self.scale = rank, update_interval, scale
        self.seen, self.P, self.left = 0, None, True

    def project(self, grad):
        if self.seen % self.gap == 0:
            self.left = grad.size(0) <= grad.size(1)
            U, S, Vh = torch.linalg.svd(grad, full_matrices=False)
            self.P = U[:, : self.rank] if self.left else Vh[: self.rank].mT
        self.seen += 1
        return self.P @ (self.P.mT @ grad) if self.left else (grad @ self.P) @ self.P.mT

    def project_back(self, low):
        return self.scale * low


@torch.no_grad()
def galore_adam_step(weight, grad, state, projector, lr, betas=(0.9, 0.999), eps=1e-8):
    low = projector.project(grad)
    b1, b2 = betas
    t = state["t"] = state.get("t", 0) + 1
    m = state.setdefault("m", torch.zeros_like(low))
    v = state.setdefault("v", torch.zeros_like(low))
    m.mul_(b1).add_(low, alpha=1 - b1)
    v.mul_(b2).addcmul_(low, low, value=1 - b2)
    step = (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps)
    weight.sub_(projector.project_back(step), alpha=lr)
