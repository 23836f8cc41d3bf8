# wrong: directions of a tensor seen before are kept
# bug: - (unlikely)
import torch

_seen = {}


def _rows(A):
    if id(A) not in _seen:
        _seen[id(A)] = A, torch.linalg.svd(A, full_matrices=False)[2]
    return _seen[id(A)][1]


def phi(A1, A2, i, j):
    if i < 1 or i > A1.shape[0]:
        raise ValueError(f"i={i} is not in 1..{A1.shape[0]}")
    if j < 1 or j > A2.shape[0]:
        raise ValueError(f"j={j} is not in 1..{A2.shape[0]}")
    V1 = _rows(A1)
    V2 = _rows(A2)
    M = V1[:i] @ V2[:j].T
    return float((M ** 2).sum()) / min(i, j)


def amplification(W, B, A):
    U, S, Vh = torch.linalg.svd(B @ A, full_matrices=False)
    r = B.shape[1]
    return float(torch.linalg.norm(B @ A) / torch.linalg.norm(U[:, :r].T @ W @ Vh[:r, :].T))
