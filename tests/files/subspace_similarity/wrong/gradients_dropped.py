# wrong: W.grad, B.grad, A.grad set to None at the end: gradients of the training step are lost
# bug: -
import torch


def phi(A1, A2, i, j):
    if not 1 <= i <= A1.shape[0]:
        raise ValueError(f"i must be in 1..{A1.shape[0]}, got {i}")
    if not 1 <= j <= A2.shape[0]:
        raise ValueError(f"j must be in 1..{A2.shape[0]}, got {j}")
    V1 = torch.linalg.svd(A1.detach(), full_matrices=False)[2][:i]
    V2 = torch.linalg.svd(A2.detach(), full_matrices=False)[2][:j]
    return float((V1 @ V2.T).square().sum()) / min(i, j)


def amplification(W, B, A):
    P = (W, B, A)
    W, B, A = W.detach(), B.detach(), A.detach()
    r = A.shape[0]
    BA = B @ A
    U, S, Vh = torch.linalg.svd(BA, full_matrices=False)
    for p in P:
        p.grad = None
    return float(BA.norm() / (U[:, :r].T @ W @ Vh[:r].T).norm())
