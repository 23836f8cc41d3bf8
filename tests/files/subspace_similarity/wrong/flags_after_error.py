# wrong: requires_grad off before the checks: stays off where they raise
# bug: -
import torch


def phi(A1, A2, i, j):
    f = (A1.requires_grad, A2.requires_grad)
    A1.requires_grad_(False)
    A2.requires_grad_(False)
    if not 1 <= i <= A1.shape[0]:
        raise ValueError(f"i must be in 1..{A1.shape[0]}, got {i}")
    if not 1 <= j <= A2.shape[0]:
        raise ValueError(f"j must be in 1..{A2.shape[0]}, got {j}")
    A1.requires_grad_(f[0])
    A2.requires_grad_(f[1])
    V1 = torch.linalg.svd(A1.detach(), full_matrices=False)[2][:i]
    V2 = torch.linalg.svd(A2.detach(), full_matrices=False)[2][:j]
    return float((V1 @ V2.T).square().sum()) / min(i, j)


def amplification(W, B, A):
    W, B, A = W.detach(), B.detach(), A.detach()
    r = A.shape[0]
    BA = B @ A
    U, S, Vh = torch.linalg.svd(BA, full_matrices=False)
    return float(BA.norm() / (U[:, :r].T @ W @ Vh[:r].T).norm())
