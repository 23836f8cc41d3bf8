"""GaLore: the optimizer's state of a full weight, kept in the gradient's own few directions.

Zhao et al. 2024, "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection",
sections 3 and 4, algorithm 2: the gradient is projected onto its top singular vectors, Adam runs
there, and its step is projected back. Unlike LoRA every weight trains, and only a step has low
rank. Adam: Kingma and Ba 2015, algorithm 1.
"""

import torch


class GaLoreProjector:
    """Projects the gradients of one weight to `rank` directions, and back.

    rank: how many directions; more than min(m, n) count as min(m, n).
    update_interval: the directions are computed at the first call of `project` and every
        update_interval calls after it (calls 1, 1 + update_interval, ...), and kept in between.
    scale: what `project_back` multiplies with; `project` does not.

    The directions are the top singular vectors of the gradient of that call: the left ones where
    m <= n, a square gradient included, else the right ones; in any order and of any sign, but the
    same for the same gradient. Another basis of their span will not do: Adam works entry by entry.

    Raises ValueError, naming `rank`, if rank < 1. One projector sees gradients of one shape.
    """

    def __init__(self, rank: int, update_interval: int = 200, scale: float = 1.0) -> None:
        # BEGIN SOLUTION
        if rank < 1:
            raise ValueError(f"rank must be at least 1, not {rank}")
        self.rank, self.update_interval, self.scale = rank, update_interval, scale
        self.calls = 0
        # END SOLUTION

    def project(self, grad: torch.Tensor) -> torch.Tensor:
        """grad (m, n), float32 or float64 -> (r, n) where m <= n, else (m, r), in its dtype."""
        # BEGIN SOLUTION
        if self.calls % self.update_interval == 0:
            U, _, Vh = torch.linalg.svd(grad, full_matrices=False)
            self.from_left = grad.shape[0] <= grad.shape[1]
            self.basis = U[:, : self.rank] if self.from_left else Vh[: self.rank].T
        self.calls += 1
        return self.basis.T @ grad if self.from_left else grad @ self.basis
        # END SOLUTION

    def project_back(self, low: torch.Tensor) -> torch.Tensor:
        """low, of the shape that `project` gives -> (m, n), times scale."""
        # BEGIN SOLUTION
        full = self.basis @ low if self.from_left else low @ self.basis.T
        return self.scale * full
        # END SOLUTION


def galore_adam_step(
    weight: torch.Tensor,
    grad: torch.Tensor,
    state: dict,
    projector: GaLoreProjector,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> None:
    """One step of Adam in the projector's low-rank space; weight is lowered in place.

    weight: (m, n), a Parameter or a tensor; grad: (m, n), left unchanged.
    state: empty before the first step. Afterwards it holds all that the next step needs: both
        moments, of the low-rank shape, and the number of steps. When the projector takes new
        directions they go on as they are.

    The gradient is projected once; m_hat / (sqrt(v_hat) + eps), both moments corrected for their
    bias, is projected back, and lr times that is subtracted from weight.
    """
    # BEGIN SOLUTION
    low = projector.project(grad)
    if not state:
        state.update(step=0, m=torch.zeros_like(low), v=torch.zeros_like(low))
    state["step"] += 1
    for moment, value, beta in (("m", low, betas[0]), ("v", low.square(), betas[1])):
        state[moment] = beta * state[moment] + (1 - beta) * value
    m_hat, v_hat = (state[k] / (1 - beta ** state["step"]) for k, beta in zip("mv", betas))
    with torch.no_grad():  # a Parameter cannot be changed in place otherwise
        weight.sub_(lr * projector.project_back(m_hat / (v_hat.sqrt() + eps)))
    # END SOLUTION
