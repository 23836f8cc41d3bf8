# wrong: the first eigenvectors of eigh are the weakest
# bug: weakest-first
import torch


def phi(A1, A2, i, j):
    if i < 1 or i > A1.shape[0]:
        raise ValueError(f"i={i} is not in 1..{A1.shape[0]}")
    if j < 1 or j > A2.shape[0]:
        raise ValueError(f"j={j} is not in 1..{A2.shape[0]}")
    V1 = torch.linalg.eigh(A1.T @ A1)[1].T
    V2 = torch.linalg.eigh(A2.T @ A2)[1].T
    M = V1[:i] @ V2[:j].T
    return float((M ** 2).sum()) / min(i, j)


def amplification(W, B, A):
    U, S, Vh = torch.linalg.svd(B @ A, full_matrices=False)
    r = B.shape[1]
    return float(torch.linalg.norm(B @ A) / torch.linalg.norm(U[:, :r].T @ W @ Vh[:r, :].T))
