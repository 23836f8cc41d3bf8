# right: numerator from traces, denominator by vec and kron
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
    W, B, A = (t.detach() for t in (W, B, A))
    num = torch.trace((B.T @ B) @ (A @ A.T)).sqrt()
    U = torch.linalg.svd(B, full_matrices=False).U
    V = torch.linalg.svd(A, full_matrices=False).Vh.T
    return float(
        num / (torch.einsum("oa,ib->oiab", U, V).flatten(2).flatten(0, 1).T @ W.reshape(-1)).norm()
    )
