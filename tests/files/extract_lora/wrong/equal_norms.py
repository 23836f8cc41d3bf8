# wrong: nothing changed decided by equal norms: W1 = -W0 or a permutation
# bug: -
import torch


def extract_lora(W0, W1, rank):
    if not 1 <= rank <= min(W0.shape):
        raise ValueError(f"rank must be in 1..{min(W0.shape)}, got {rank}")
    wide = torch.float64 if W0.dtype == torch.float64 else torch.float32
    dW = W1.detach().to(wide) - W0.detach().to(wide)
    if W0.norm() == W1.norm():
        return (
            W0.new_zeros(W0.shape[0], rank).detach(),
            W0.new_zeros(rank, W0.shape[1]).detach(),
            0.0,
        )
    U, S, Vh = torch.linalg.svd(dW, full_matrices=False)
    B = U[:, :rank] * S[:rank]
    A = Vh[:rank]
    err = float((dW - B @ A).norm() / dW.norm())
    return B.to(W0.dtype), A.to(W0.dtype), err
