"""The projector as a module with buffers; sums of weighted gradients in place of averages."""
import torch
import torch.nn as nn


class GaLoreProjector(nn.Module):
    def __init__(self, rank, update_interval=200, scale=1.0):
        super().__init__()
        if rank <= 0:
            raise ValueError("rank has to be at least one")
        self.rank, self.update_interval, self.scale = rank, update_interval, scale
        self.register_buffer("P", None)
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def project(self, grad):
        if int(self.count) % self.update_interval == 0:
            tall = grad.shape[0] > grad.shape[1]
            self.tall = tall
            u, _, _ = torch.linalg.svd(grad.T if tall else grad, full_matrices=False)
            self.P = u[:, : self.rank].contiguous()
        self.count += 1
        return (grad @ self.P) if self.tall else (self.P.T @ grad)

    @torch.no_grad()
    def project_back(self, low):
        return (low @ self.P.T if self.tall else self.P @ low) * self.scale


def galore_adam_step(weight, grad, state, projector, lr, betas=(0.9, 0.999), eps=1e-8):
    """Sums S1 = sum b1^(t-i) R_i and their weights; a mean is their ratio."""
    low = projector.project(grad)
    for key, beta, value in ((1, betas[0], low), (2, betas[1], low.pow(2))):
        total, weights = state.get(key, (torch.zeros_like(low), 0.0))
        state[key] = (beta * total + value, beta * weights + 1.0)
    m, v = (state[key][0] / state[key][1] for key in (1, 2))
    with torch.no_grad():
        weight -= lr * projector.project_back(m / (torch.sqrt(v) + eps))
