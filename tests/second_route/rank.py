"""The numeric answers of questions/rank.yaml once more, by trying ranks and by an SVD."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn


def where_to_inject(budget: int, types: int) -> float:
    """Raise the rank until the modules, counted on meta, no longer fit."""
    rank = 0
    while True:
        pair = nn.ModuleList(
            [
                nn.Linear(12_288, rank + 1, bias=False, device="meta"),
                nn.Linear(rank + 1, 12_288, bias=False, device="meta"),
            ]
        )
        one = sum(p.numel() for p in pair.parameters())
        if sum(one for _ in range(96) for _ in range(types)) > budget * 1_000_000:
            return rank
        rank += 1


def eckart_young(percent: int, r: int) -> float:
    """Truncate the SVD of a matrix with such a spectrum."""
    u, s, vh, delta = _decomposed(percent)
    best = u[:, :r] @ torch.diag(s[:r]) @ vh[:r]
    lost = torch.linalg.norm(delta - best) / torch.linalg.norm(delta)
    return 100 * float(lost)


@cache
def _decomposed(percent: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A random matrix with a spectrum that decays so, and its SVD."""
    generator = torch.Generator().manual_seed(0)
    n = 160  # beyond that the tail is below 1e-7 even at 90 %
    spectrum = torch.ones(n, dtype=torch.float64)
    for k in range(1, n):
        spectrum[k] = spectrum[k - 1] * percent / 100
    left, right = (
        torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator))[0]
        for _ in range(2)
    )
    delta = left @ torch.diag(spectrum) @ right.T
    u, s, vh = torch.linalg.svd(delta)
    return u, s, vh, delta


ROUTES: dict[str, Callable[..., float]] = {
    "rank-where-to-inject": where_to_inject,
    "rank-eckart-young": eckart_young,
}
