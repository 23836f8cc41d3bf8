# right: left vectors as G V / S, which needs singular values apart from zero, as the contract has them
import torch


class GaLoreProjector:
    def __init__(self, rank: int, update_interval: int = 200, scale: float = 1.0) -> None:
        if rank < 1:
            raise ValueError(f"rank must be at least 1, got {rank}")
        self.rank = rank
        self.update_interval = update_interval
        self.scale = scale
        self.calls = 0
        self.basis = None
        self.left = True

    def find(self, grad):
        self.left = grad.shape[0] <= grad.shape[1]
        U, S, Vh = torch.linalg.svd(grad, full_matrices=False)
        self.basis = (grad @ Vh[: self.rank].T / S[: self.rank]) if self.left else Vh[: self.rank].T

    @torch.no_grad()
    def project(self, grad: torch.Tensor) -> torch.Tensor:
        if self.calls % self.update_interval == 0:
            self.find(grad)
        self.calls += 1
        return self.basis.T @ grad if self.left else grad @ self.basis

    @torch.no_grad()
    def project_back(self, low: torch.Tensor) -> torch.Tensor:
        full = self.basis @ low if self.left else low @ self.basis.T
        return full * self.scale


@torch.no_grad()
def galore_adam_step(weight, grad, state, projector, lr, betas=(0.9, 0.999), eps=1e-8):
    low = projector.project(grad)
    if not state:
        state["step"] = 0
        state["m"] = torch.zeros_like(low)
        state["v"] = torch.zeros_like(low)
    b1, b2 = betas
    state["step"] += 1
    t = state["step"]
    m, v = state["m"], state["v"]
    m.mul_(b1).add_(low, alpha=1 - b1)
    v.mul_(b2).addcmul_(low, low, value=1 - b2)
    m_hat = m / (1 - b1**t)
    v_hat = v / (1 - b2**t)
    step = m_hat / (v_hat.sqrt() + eps)
    weight.sub_(lr * projector.project_back(step))
