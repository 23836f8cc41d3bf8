# wrong: a rank that is too large is clamped
# bug: rank-unchecked
import torch


def extract_lora(W0, W1, rank):
    if rank < 1:
        raise ValueError('rank must be at least 1')
    rank = min(rank, *W0.shape)
    kind = torch.float64 if W0.dtype == torch.float64 else torch.float32
    dW = W1.detach().to(kind) - W0.detach().to(kind)
    U, S, Vh = torch.linalg.svd(dW, full_matrices=False)
    B = U[:, :rank] * S[:rank]
    A = Vh[:rank]
    norm = torch.linalg.norm(dW)
    lost = torch.linalg.norm(dW - B @ A)
    rel_error = float(lost / norm) if norm > 0 else 0.0
    return B.to(W0.dtype), A.to(W0.dtype), rel_error
