"""The SVD in float64 whatever the gradient is, and NumPy's."""
import numpy as np
import torch


class GaLoreProjector:
    def __init__(self, rank, update_interval=200, scale=1.0):
        if rank < 1:
            raise ValueError("rank")
        self.settings = dict(rank=rank, update_interval=update_interval, scale=scale)
        self.number = 0

    def project(self, grad):
        if self.number == 0 or self.number >= self.settings["update_interval"]:
            u, _, vh = np.linalg.svd(grad.detach().double().numpy(), full_matrices=False)
            self.left = grad.shape[0] <= grad.shape[1]
            basis = u if self.left else vh.T
            self.basis = torch.from_numpy(basis[:, : self.settings["rank"]].copy()).to(grad)
            self.number = 0
        self.number += 1
        return self.basis.T.mm(grad) if self.left else grad.mm(self.basis)

    def project_back(self, low):
        out = self.basis.mm(low) if self.left else low.mm(self.basis.T)
        return out * self.settings["scale"]


@torch.no_grad()
def galore_adam_step(
    weight, grad, state, projector, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0
):
    low = projector.project(grad).double()
    state.setdefault("exp_avg", torch.zeros_like(low))
    state.setdefault("exp_avg_sq", torch.zeros_like(low))
    state["step"] = t = state.get("step", 0) + 1
    state["exp_avg"] += (1 - betas[0]) * (low - state["exp_avg"])
    state["exp_avg_sq"] += (1 - betas[1]) * (low**2 - state["exp_avg_sq"])
    m = state["exp_avg"] / (1 - betas[0] ** t)
    v = state["exp_avg_sq"] / (1 - betas[1] ** t)
    weight.mul_(1 - lr * weight_decay)
    weight.sub_(lr * projector.project_back((m / (v.sqrt() + eps)).to(grad)))
