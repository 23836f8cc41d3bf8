import torch


def extract_lora(W0, W1, rank):
    if rank < 1 or rank > min(W0.shape):
        raise ValueError(f"rank={rank} does not fit {tuple(W0.shape)}")
    with torch.no_grad():
        D = W1.double() - W0.double()
        whole = D.norm()
        G = D.T @ D
        if whole > 0:
            for _ in range(10):  # G ** 1024
                G = G @ G
                G = G / G.norm()
        g = torch.Generator().manual_seed(7)
        Q = torch.randn(D.shape[1], rank, generator=g, dtype=D.dtype).to(D.device)
        for power in range(30):
            Q = torch.linalg.qr(D.T @ (D @ Q)).Q
        for power in range(60):
            Q = torch.linalg.qr(D.T @ (D @ Q)).Q
        B, A = D @ Q, Q.T
        error = float((D - B @ A).norm() / whole) if whole else 0.0
        return B.to(W0.dtype), A.to(W0.dtype), error
