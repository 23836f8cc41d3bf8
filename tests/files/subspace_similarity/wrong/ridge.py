# wrong: i = r1 fast path by the inverse of the Gram matrix + 1e-6: not 1e-8 in float64
# bug: -
import torch


def _proj(A, k):
    A = A.detach()
    if k == A.shape[0]:
        G = A @ A.T
        return A.T @ torch.linalg.solve(G + 1e-6 * torch.eye(k, dtype=A.dtype), A)
    V = torch.linalg.svd(A, full_matrices=False)[2][:k]
    return V.T @ V


def phi(A1, A2, i, j):
    if not 1 <= i <= A1.shape[0]:
        raise ValueError(f"i must be in 1..{A1.shape[0]}, got {i}")
    if not 1 <= j <= A2.shape[0]:
        raise ValueError(f"j must be in 1..{A2.shape[0]}, got {j}")
    return float((_proj(A1, i) * _proj(A2, j)).sum()) / min(i, j)


def amplification(W, B, A):
    W, B, A = W.detach(), B.detach(), A.detach()
    r = A.shape[0]
    BA = B @ A
    U, S, Vh = torch.linalg.svd(BA, full_matrices=False)
    return float(BA.norm() / (U[:, :r].T @ W @ Vh[:r].T).norm())
