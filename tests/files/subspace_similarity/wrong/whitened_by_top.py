# wrong: directions carry singular values relative to the largest
# bug: weighted
import torch


def phi(A1, A2, i, j):
    if i < 1 or i > A1.shape[0]:
        raise ValueError(f"i={i} is not in 1..{A1.shape[0]}")
    if j < 1 or j > A2.shape[0]:
        raise ValueError(f"j={j} is not in 1..{A2.shape[0]}")
    _, S1, V1 = torch.linalg.svd(A1, full_matrices=False)
    V1 = torch.diag(S1 / S1[0]) @ V1
    _, S2, V2 = torch.linalg.svd(A2, full_matrices=False)
    V2 = torch.diag(S2 / S2[0]) @ V2
    M = V1[:i] @ V2[:j].T
    return float((M ** 2).sum()) / min(i, j)


def amplification(W, B, A):
    U, S, Vh = torch.linalg.svd(B @ A, full_matrices=False)
    r = B.shape[1]
    return float(torch.linalg.norm(B @ A) / torch.linalg.norm(U[:, :r].T @ W @ Vh[:r, :].T))
