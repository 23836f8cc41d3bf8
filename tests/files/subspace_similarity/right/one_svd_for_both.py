import math

import torch


def phi(A1, A2, i, j):
    r1, r2 = A1.shape[0], A2.shape[0]
    if not 1 <= i <= r1:
        raise ValueError(f"expected 1 <= i <= {r1}, got {i}")
    if not 1 <= j <= r2:
        raise ValueError(f"expected 1 <= j <= {r2}, got {j}")
    same = A1 is A2
    V1 = torch.linalg.svd(A1.detach(), full_matrices=False)[2]
    V2 = V1 if same else torch.linalg.svd(A2.detach(), full_matrices=False)[2]
    return math.fsum((V1[:i] @ V2[:j].T).square().flatten().tolist()) / (i if i < j else j)


def amplification(W, B, A):
    W, B, A = W.data, B.data, A.data
    U, S, Vh = torch.linalg.svd(B @ A, full_matrices=False)
    # Weight r pairs by hand: the norm of U U^T W V V^T is that of U^T W V.
    keep = S > S[0] * 1e-3
    U, V = U[:, keep], Vh[keep].T
    return math.hypot(*S[keep].tolist()) / torch.linalg.norm(U @ (U.T @ W @ V) @ V.T).item()
