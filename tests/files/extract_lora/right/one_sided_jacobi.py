# right: one-sided Jacobi by hand
import torch


def extract_lora(W0, W1, rank):
    if not 1 <= rank <= min(W0.shape):
        raise ValueError(f"rank must be in 1..{min(W0.shape)}, got {rank}")
    wide = torch.float64 if W0.dtype == torch.float64 else torch.float32
    dW = W1.detach().to(wide) - W0.detach().to(wide)
    if not dW.any():
        return (
            W0.new_zeros(W0.shape[0], rank).detach(),
            W0.new_zeros(rank, W0.shape[1]).detach(),
            0.0,
        )
    X = (dW if dW.shape[0] <= dW.shape[1] else dW.T).double().clone()
    m = X.shape[0]
    G = torch.eye(m, dtype=torch.float64)
    for _ in range(30):
        off = 0.0
        for p in range(m):
            for q in range(p + 1, m):
                a, b, c = float(X[p] @ X[p]), float(X[q] @ X[q]), float(X[p] @ X[q])
                if c == 0 or abs(c) <= 1e-14 * (a * b) ** 0.5:
                    continue
                off = 1.0
                z = (b - a) / (2 * c)
                t = (1 if z >= 0 else -1) / (abs(z) + (1 + z * z) ** 0.5)
                co = (1 + t * t) ** -0.5
                si = co * t
                X[p], X[q] = co * X[p] - si * X[q], si * X[p] + co * X[q]
                G[p], G[q] = co * G[p] - si * G[q], si * G[p] + co * G[q]
        if not off:
            break
    top = X.norm(dim=1).argsort(descending=True)[:rank]
    L, Rr = G[top].T, X[top]
    B, A = (L, Rr) if dW.shape[0] <= dW.shape[1] else (Rr.T, L.T)
    B, A = B.to(dW), A.to(dW)
    err = float((dW - B @ A).norm() / dW.norm())
    return B.to(W0.dtype), A.to(W0.dtype), err
