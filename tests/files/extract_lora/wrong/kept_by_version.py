# wrong: memoised by identity and _version: a change through .data is missed
# bug: -
import torch

_C = {}


def extract_lora(W0, W1, rank):
    if not 1 <= rank <= min(W0.shape):
        raise ValueError(f"rank must be in 1..{min(W0.shape)}, got {rank}")
    key = (id(W0), W0._version, id(W1), W1._version, rank)
    if key in _C:
        return _C[key][0]
    wide = torch.float64 if W0.dtype == torch.float64 else torch.float32
    dW = W1.detach().to(wide) - W0.detach().to(wide)
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
    _C[key] = ((B.to(W0.dtype), A.to(W0.dtype), err), W0, W1)
    return _C[key][0]
