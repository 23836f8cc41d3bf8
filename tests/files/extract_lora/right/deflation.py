# right: one rank at a time: best pair of what is left
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
    left, bs, rows = dW.double(), [], []
    for _ in range(rank):
        U, S, Vh = torch.linalg.svd(left, full_matrices=False)
        bs.append(U[:, 0] * S[0])
        rows.append(Vh[0])
        left = left - torch.outer(bs[-1], rows[-1])
    B, A = torch.stack(bs, 1).to(dW), torch.stack(rows).to(dW)
    err = float((dW - B @ A).norm() / dW.norm())
    return B.to(W0.dtype), A.to(W0.dtype), err
