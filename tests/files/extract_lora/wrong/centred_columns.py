# wrong: the mean of each row is taken out
# bug: -
import torch


def extract_lora(W0, W1, rank):
    if rank < 1 or rank > min(W0.shape):
        raise ValueError(f"rank={rank} does not fit {tuple(W0.shape)}")
    kind = torch.float64 if W0.dtype == torch.float64 else torch.float32
    dW = W1.detach().to(kind) - W0.detach().to(kind)
    dW = dW - dW.mean(1, keepdim=True)
    U, S, Vh = torch.linalg.svd(dW, full_matrices=False)
    B = U[:, :rank] * S[:rank]
    A = Vh[:rank]
    norm = torch.linalg.norm(dW)
    lost = torch.linalg.norm(dW - B @ A)
    rel_error = float(lost / norm) if norm > 0 else 0.0
    return B.to(W0.dtype), A.to(W0.dtype), rel_error
