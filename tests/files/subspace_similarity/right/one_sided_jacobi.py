# right: one-sided Jacobi by hand in float64
import torch


def _jacobi(A, k):
    X = A.detach().double().clone()
    r = X.shape[0]
    for _ in range(40):
        off = 0.0
        for p in range(r):
            for q in range(p + 1, r):
                a, b, c = float(X[p] @ X[p]), float(X[q] @ X[q]), float(X[p] @ X[q])
                if abs(c) <= 1e-15 * (a * b) ** 0.5 or c == 0:
                    continue
                off = max(off, abs(c) / (a * b) ** 0.5)
                z = (b - a) / (2 * c)
                t = (1 if z >= 0 else -1) / (abs(z) + (1 + z * z) ** 0.5)
                co = (1 + t * t) ** -0.5
                si = co * t
                X[p], X[q] = co * X[p] - si * X[q], si * X[p] + co * X[q]
        if off < 1e-13:
            break
    n = X.norm(dim=1)
    order = n.argsort(descending=True)[:k]
    return X[order] / n[order, None]


def phi(A1, A2, i, j):
    if not 1 <= i <= A1.shape[0]:
        raise ValueError(f"i must be in 1..{A1.shape[0]}, got {i}")
    if not 1 <= j <= A2.shape[0]:
        raise ValueError(f"j must be in 1..{A2.shape[0]}, got {j}")
    return float((_jacobi(A1, i) @ _jacobi(A2, j).T).square().sum()) / min(i, j)


def amplification(W, B, A):
    W, B, A = W.detach(), B.detach(), A.detach()
    r = A.shape[0]
    BA = B @ A
    U, S, Vh = torch.linalg.svd(BA, full_matrices=False)
    return float(BA.norm() / (U[:, :r].T @ W @ Vh[:r].T).norm())
