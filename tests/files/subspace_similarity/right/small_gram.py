import torch


def _rows(A, k):
    """Right-singular vectors from the (r, r) Gram matrix."""
    values, Q = torch.linalg.eigh(A @ A.mT)
    order = values.argsort(descending=True)[:k]
    V = A.mT @ Q[:, order] / values[order].sqrt()
    return V.mT


def phi(A1, A2, i, j):
    if i < 1 or i > A1.shape[0]:
        raise ValueError(f"i={i} is not in 1..{A1.shape[0]}")
    if j < 1 or j > A2.shape[0]:
        raise ValueError(f"j={j} is not in 1..{A2.shape[0]}")
    with torch.no_grad():
        return (torch.einsum("id,jd->ij", _rows(A1, i), _rows(A2, j)) ** 2).sum().item() / min(i, j)


@torch.no_grad()
def amplification(W, B, A):
    Qb, _ = torch.linalg.qr(B)  # the update has rank r: its left-singular vectors span what B spans
    Qa, _ = torch.linalg.qr(A.T)
    return ((B @ A).norm() / (Qb.T @ W @ Qa).norm()).item()
