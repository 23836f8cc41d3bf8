# wrong: bfloat16 goes through float16: large and tiny changes overflow or vanish
# bug: -
import torch


def extract_lora(W0, W1, rank):
    if not 1 <= rank <= min(W0.shape):
        raise ValueError(f"rank must be in 1..{min(W0.shape)}, got {rank}")
    if W0.dtype == torch.bfloat16:
        W0_, W1_ = W0.detach().half().float(), W1.detach().half().float()
    else:
        W0_, W1_ = W0.detach(), W1.detach()
    dW = W1_ - W0_
    if not dW.any():
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
