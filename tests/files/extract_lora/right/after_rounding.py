from typing import NamedTuple

import torch


class Extracted(NamedTuple):
    B: torch.Tensor
    A: torch.Tensor
    rel_error: float


def extract_lora(W0, W1, rank):
    """Computed in float64 whatever comes, and measured with the rounded factors."""
    if not 0 < rank <= W0.size(0) or not rank <= W0.size(1):
        raise ValueError(f"{rank=}")
    with torch.no_grad():
        D = W1.to(torch.float64) - W0.to(torch.float64)
        U, S, Vh = torch.linalg.svd(D)
        root = torch.diag(S[:rank].sqrt())
        B, A = (U[:, :rank] @ root).to(W0.dtype), (root @ Vh[:rank, :]).to(W0.dtype)
        if not D.any():
            return Extracted(B, A, 0.0)
        off = D - B.double() @ A.double()
        return Extracted(B, A, float(off.square().sum().sqrt() / D.square().sum().sqrt()))
