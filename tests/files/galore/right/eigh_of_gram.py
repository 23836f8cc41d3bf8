"""Eigenvectors of the smaller Gram matrix, smallest first."""
import torch


class GaLoreProjector:
    def __init__(self, rank: int, update_interval: int = 200, scale: float = 1.0):
        if not rank >= 1:
            raise ValueError("rank < 1")
        self.rank = rank
        self.every = update_interval
        self.scale = scale
        self.wait = 0

    def project(self, grad):
        wide = grad.shape[1] >= grad.shape[0]
        if self.wait == 0:
            gram = grad @ grad.T if wide else grad.T @ grad
            vectors = torch.linalg.eigh(gram).eigenvectors
            self.basis = vectors[:, -min(self.rank, len(gram)) :]
            self.wait = self.every
        self.wait -= 1
        self.wide = wide
        return torch.einsum("ir,ij->rj" if wide else "jr,ij->ir", self.basis, grad)

    def project_back(self, low):
        form = "ir,rj->ij" if self.wide else "jr,ir->ij"
        return torch.einsum(form, self.basis, low).mul(self.scale)


def galore_adam_step(weight, grad, state, projector, lr, betas=(0.9, 0.999), eps=1e-8):
    with torch.no_grad():
        R = projector.project(grad)
        t, M, V = state.get("adam", (0, 0.0, 0.0))
        t += 1
        M = betas[0] * M + (1 - betas[0]) * R
        V = betas[1] * V + (1 - betas[1]) * R**2
        state["adam"] = (t, M, V)
        N = M.div(1 - betas[0] ** t) / (V.div(1 - betas[1] ** t).sqrt() + eps)
        weight.data -= lr * projector.project_back(N)
