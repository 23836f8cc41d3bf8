# wrong: where the weight has a .grad, that is used in the place of grad
# bug: -
import math
import torch
import torch.nn as nn
import torch.nn.functional as F

class GaLoreProjector:
    def __init__(self, rank, update_interval=200, scale=1.0):
        if rank < 1:
            raise ValueError("rank must be at least 1")
        self.rank, self.update_interval, self.scale = rank, update_interval, scale
        self.calls = 0
        self.basis = None
    def project(self, grad):
        m, n = grad.shape
        self.left = m <= n
        if self.calls % self.update_interval == 0:
            r = min(self.rank, m, n)
            U, S, Vh = torch.linalg.svd(grad.detach(), full_matrices=False)
            self.basis = U[:, :r] if self.left else Vh[:r].T
        self.calls += 1
        return self.basis.T @ grad if self.left else grad @ self.basis
    def project_back(self, low):
        full = self.basis @ low if self.left else low @ self.basis.T
        return self.scale * full
@torch.no_grad()
def galore_adam_step(weight, grad, state, projector, lr, betas=(0.9, 0.999), eps=1e-8):
    low = projector.project(weight.grad if weight.grad is not None else grad)
    b1, b2 = betas
    if not state:
        state["m"], state["v"], state["t"] = torch.zeros_like(low), torch.zeros_like(low), 0
    state["t"] += 1
    state["m"] = b1 * state["m"] + (1 - b1) * low
    state["v"] = b2 * state["v"] + (1 - b2) * low * low
    m_hat = state["m"] / (1 - b1 ** state["t"])
    v_hat = state["v"] / (1 - b2 ** state["t"])
    step = projector.project_back(m_hat / (v_hat.sqrt() + eps))
    weight.sub_(lr * step)
