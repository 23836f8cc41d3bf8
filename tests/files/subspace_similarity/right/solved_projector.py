# right: projectors by solve in float64, no singular vectors
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
    W, B, A = (t.detach().to(torch.float64) for t in (W, B, A))
    P = B @ torch.linalg.solve(B.T @ B, B.T)
    Q = A.T @ torch.linalg.solve(A @ A.T, A)
    return (B @ A).norm().item() / (P @ W @ Q).norm().item()
