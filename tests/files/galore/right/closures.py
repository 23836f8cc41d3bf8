"""Two closures made with each basis."""
import torch


class GaLoreProjector:
    def __init__(self, rank, update_interval=200, scale=1.0):
        if rank < 1:
            raise ValueError(f"rank={rank}")
        self.calls = 0

        def project(grad):
            if self.calls % update_interval == 0:
                self._down, self._up = make(grad)
            self.calls += 1
            return self._down(grad)

        def make(grad):
            U, _, Vh = torch.svd(grad)[0], None, torch.svd(grad)[2].T
            if grad.shape[0] > grad.shape[1]:
                V = Vh[:rank].T
                return (lambda g: g @ V), (lambda low: scale * (low @ V.T))
            P = U[:, :rank]
            return (lambda g: P.T @ g), (lambda low: scale * (P @ low))

        self.project = project
        self.project_back = lambda low: self._up(low)


def galore_adam_step(weight, grad, state, projector, lr, betas=(0.9, 0.999), eps=1e-8):
    R = projector.project(grad)
    old = state.get("m"), state.get("v"), state.get("t", 0)
    m = R * (1 - betas[0]) + (0 if old[0] is None else betas[0] * old[0])
    v = R * R * (1 - betas[1]) + (0 if old[1] is None else betas[1] * old[1])
    t = old[2] + 1
    state.update({"m": m, "v": v, "t": t})
    c1, c2 = 1 - betas[0] ** t, 1 - betas[1] ** t
    N = m / c1 / ((v / c2) ** 0.5 + eps)
    weight.data = weight.data - lr * projector.project_back(N)
