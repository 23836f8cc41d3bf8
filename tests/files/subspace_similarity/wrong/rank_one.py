# wrong: only the strongest pair
# bug: -
import torch


def phi(A1, A2, i, j):
    if i < 1 or i > A1.shape[0]:
        raise ValueError(f"i={i} is not in 1..{A1.shape[0]}")
    if j < 1 or j > A2.shape[0]:
        raise ValueError(f"j={j} is not in 1..{A2.shape[0]}")
    _, _, V1 = torch.linalg.svd(A1, full_matrices=False)
    _, _, V2 = torch.linalg.svd(A2, full_matrices=False)
    M = V1[:i] @ V2[:j].T
    return float((M ** 2).sum()) / min(i, j)


def amplification(W, B, A):
    U, S, Vh = torch.linalg.svd(B @ A, full_matrices=False)
    r = 1
    return float(torch.linalg.norm(B @ A) / torch.linalg.norm(U[:, :r].T @ W @ Vh[:r, :].T))
