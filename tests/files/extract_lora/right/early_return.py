import torch


def _checked(rank, shape):
    if rank < 1:
        raise ValueError("rank must be positive")
    if rank > min(shape):
        raise ValueError("rank exceeds the rank a matrix of this shape can have")


def extract_lora(W0, W1, rank):
    _checked(rank, W0.shape)
    out, inner = W0.shape
    if torch.equal(W0, W1):
        return (
            torch.zeros(out, rank, dtype=W0.dtype, device=W0.device),
            torch.zeros(rank, inner, dtype=W0.dtype, device=W0.device),
            0.0,
        )
    work = torch.float64
    D = W1.data.to(work) - W0.data.to(work)
    U, S, Vh = torch.linalg.svd(D, full_matrices=False)
    kept = float(S[:rank].square().sum())
    whole = float(S.square().sum())
    error = max(0.0, 1 - kept / whole) ** 0.5  # Pythagoras, in float64
    return (U * S)[:, :rank].to(W0.dtype), Vh[:rank].to(W0.dtype), error
