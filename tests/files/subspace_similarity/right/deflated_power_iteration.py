import torch


def _top(A, k):
    G = (A.T @ A).double()
    found = []
    g = torch.Generator().manual_seed(0)
    for _ in range(k):
        v = torch.randn(len(G), generator=g, dtype=torch.float64)
        for _ in range(2):  # squaring: G^64 a step
            v = v / v.norm()
            P = G
            for _ in range(6):
                P = P @ P
                P = P / P.norm()
            v = P @ v
            for u in found:
                v = v - (u @ v) * u
        v = v / v.norm()
        found.append(v)
        G = G - (v @ G @ v) * torch.outer(v, v)
    return torch.stack(found)


def phi(A1, A2, i, j):
    if i < 1 or i > A1.shape[0]:
        raise ValueError(f"i={i} is not in 1..{A1.shape[0]}")
    if j < 1 or j > A2.shape[0]:
        raise ValueError(f"j={j} is not in 1..{A2.shape[0]}")
    with torch.no_grad():
        return (_top(A1, i) @ _top(A2, j).T).square().sum().item() / min(i, j)


def amplification(W, B, A):
    U, S, Vh = torch.linalg.svd(B @ A, full_matrices=False)
    r = B.shape[1]
    return float(torch.linalg.norm(B @ A) / torch.linalg.norm(U[:, :r].T @ W @ Vh[:r, :].T))
