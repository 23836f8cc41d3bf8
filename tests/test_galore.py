"""GaLore's reference against another route: NumPy's SVD in float64, and torch's own Adam on a
stand-in of the low-rank shape."""

from typing import Any

import numpy as np
import pytest
import torch
from models import solution
from torch import Tensor

SHAPES = [(4, 7), (7, 4), (5, 5)]
State = dict[str, Any]
WORDS: dict[str, Any] = {"betas": (0.8, 0.95), "eps": 1e-3}


@pytest.fixture
def galore() -> Any:
    return solution("galore")


def _gradients(shape: tuple[int, int], count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]


def _by_torch(weight: Tensor, grads: list[Tensor], rank: int, scale: float, lr: float) -> Tensor:
    """The weight after all steps along the directions of the first gradient."""
    u, _, vh = np.linalg.svd(grads[0].numpy())
    left = weight.shape[0] <= weight.shape[1]
    basis = torch.from_numpy((u if left else vh.T)[:, :rank].copy())
    lows = [basis.T @ grad if left else grad @ basis for grad in grads]
    point = torch.zeros_like(lows[0], requires_grad=True)
    adam = torch.optim.Adam([point], lr=lr, **WORDS)
    for low in lows:
        point.grad = low
        adam.step()
    moved = point.detach()
    return weight + scale * (basis @ moved if left else moved @ basis.T)


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_as_torchs_adam_in_the_subspace(galore: Any, shape: tuple[int, int], rank: int) -> None:
    """Steps are those of torch.optim.Adam on the projected gradients."""
    grads, weight = _gradients(shape, 6), torch.ones(shape, dtype=torch.float64)
    want = _by_torch(weight, grads, rank, scale=0.25, lr=0.1)
    projector, state = galore.GaLoreProjector(rank, 100, 0.25), State()
    for grad in grads:
        galore.galore_adam_step(weight, grad, state, projector, lr=0.1, **WORDS)
    torch.testing.assert_close(weight, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_moments_go_on_with_new_directions(galore: Any, shape: tuple[int, int]) -> None:
    """Where new directions are the old ones again, a renewal is not to be seen."""
    grads = [factor * _gradients(shape, 1)[0] for factor in (1.0, 4.0, 0.5, 2.0, 8.0)]
    weight = torch.zeros(shape, dtype=torch.float64)
    want = _by_torch(weight, grads, 2, scale=1.0, lr=0.1)
    projector, state = galore.GaLoreProjector(2, update_interval=2), State()
    for grad in grads:
        galore.galore_adam_step(weight, grad, state, projector, lr=0.1, **WORDS)
    torch.testing.assert_close(weight, want, rtol=1e-10, atol=1e-10)


def test_state_is_small(galore: Any) -> None:
    """Moments of a weight (m, n) at rank r take 2 r max(m, n) values."""
    weight, state = torch.zeros(6, 10), State()
    projector = galore.GaLoreProjector(2)
    galore.galore_adam_step(weight, torch.randn(6, 10), state, projector, lr=0.1)
    sizes = [value.numel() for value in state.values() if isinstance(value, Tensor)]
    assert sum(sizes) == 2 * 2 * 10
