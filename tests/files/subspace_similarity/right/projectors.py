import torch


def _projector(rows):
    return rows.T @ rows


def phi(A1, A2, i, j):
    if i < 1 or i > A1.shape[0]:
        raise ValueError(f"i={i} is not in 1..{A1.shape[0]}")
    if j < 1 or j > A2.shape[0]:
        raise ValueError(f"j={j} is not in 1..{A2.shape[0]}")
    P1 = _projector(torch.linalg.svd(A1.double())[2][:i])
    P2 = _projector(torch.linalg.svd(A2.double())[2][:j])
    return torch.trace(P1 @ P2).item() / min(i, j)


def amplification(W, B, A):
    W, B, A = W.double(), B.double(), A.double()
    inside = B @ torch.linalg.pinv(B) @ W @ torch.linalg.pinv(A) @ A
    return ((B @ A).norm() / inside.norm()).item()
