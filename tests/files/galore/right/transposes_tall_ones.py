"""A tall gradient is turned to its side, and everything is done from the left."""
import torch


class GaLoreProjector:
    def __init__(self, rank, update_interval=200, scale=1.0):
        if rank < 1:
            raise ValueError(f"bad rank {rank}")
        self.rank, self.update_interval, self.scale = int(rank), update_interval, scale
        self.step = -1
        self.flip = False

    def _turn(self, x):
        return x.t() if self.flip else x

    def project(self, grad):
        self.step += 1
        self.flip = grad.shape[0] > grad.shape[1]
        g = self._turn(grad)
        if not self.step % self.update_interval:
            self.left = torch.linalg.svd(g)[0].narrow(1, 0, min(self.rank, g.shape[0])).clone()
        return self._turn(self.left.t() @ g)

    def project_back(self, low):
        return self._turn(self.left @ self._turn(low)) * self.scale


def galore_adam_step(weight, grad, state, projector, lr, betas=(0.9, 0.999), eps=1e-8):
    low = projector.project(grad.detach())
    inner = state.setdefault("inner", {"moments": [low * 0, low * 0], "t": torch.zeros(())})
    inner["t"] += 1
    t = int(inner["t"])
    first, second = inner["moments"]
    first.lerp_(low, 1 - betas[0])
    second.lerp_(low * low, 1 - betas[1])
    denom = (second / (1 - betas[1] ** t)).sqrt_().add_(eps)
    weight.data.add_(projector.project_back(first / (1 - betas[0] ** t) / denom), alpha=-lr)
    return weight
