"""torch's own Adam on a stand-in of the low-rank shape, kept in the state."""
import torch


class GaLoreProjector:
    def __init__(self, rank, update_interval=200, scale=1.0):
        if rank < 1:
            raise ValueError("rank")
        self.rank, self.k, self.scale, self.t = rank, update_interval, scale, 0

    def project(self, grad):
        if self.t % self.k == 0:
            u, _, vh = torch.linalg.svd(grad, full_matrices=False)
            self.side = "right" if grad.shape[0] > grad.shape[1] else "left"
            self.basis = vh[: self.rank] if self.side == "right" else u[:, : self.rank]
        self.t += 1
        return grad @ self.basis.T if self.side == "right" else self.basis.T @ grad

    def project_back(self, low):
        full = low @ self.basis if self.side == "right" else self.basis @ low
        return full * self.scale


def galore_adam_step(weight, grad, state, projector, lr, betas=(0.9, 0.999), eps=1e-8):
    low = projector.project(grad)
    if "optimizer" not in state:
        state["stand-in"] = torch.zeros_like(low).requires_grad_()
        state["optimizer"] = torch.optim.Adam([state["stand-in"]], lr=1.0, betas=betas, eps=eps)
    point = state["stand-in"]
    with torch.no_grad():
        point.zero_()
        point.grad = low
        state["optimizer"].step()
        weight.add_(projector.project_back(point.detach()), alpha=lr)
        point.grad = None
