import math

import torch


def _dot(u, v):
    return sum(a * b for a, b in zip(u, v))


def phi(A1, A2, i, j):
    if i < 1 or i > A1.shape[0]:
        raise ValueError(f"i={i} is not in 1..{A1.shape[0]}")
    if j < 1 or j > A2.shape[0]:
        raise ValueError(f"j={j} is not in 1..{A2.shape[0]}")
    U = torch.linalg.svd(A1.detach(), full_matrices=False)[2].tolist()
    V = torch.linalg.svd(A2.detach(), full_matrices=False)[2].tolist()
    total = 0.0
    for m in range(i):
        for n in range(j):
            total += _dot(U[m], V[n]) ** 2
    return total / min(i, j)


def amplification(W, B, A):
    update = B.detach() @ A.detach()
    U, S, Vh = torch.linalg.svd(update, full_matrices=False)
    r, below = len(A), 0.0
    for m in range(r):
        for n in range(r):
            below += float(U[:, m] @ W.detach() @ Vh[n]) ** 2
    return math.sqrt(sum(float(s) ** 2 for s in S[:r]) / below)
