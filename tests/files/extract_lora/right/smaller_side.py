import torch


def _factors(D, rank):
    """For out <= in; singular directions of the smaller side alone."""
    if D.shape[0] > D.shape[1]:
        B, A = _factors(D.T, rank)
        return A.T, B.T
    U = torch.linalg.eigh(D @ D.T)[1].flip(-1)[:, :rank]
    return U, U.T @ D


def extract_lora(W0, W1, rank):
    if not 1 <= rank <= min(*W0.shape):
        raise ValueError("rank out of range")
    D = W1.detach().double() - W0.detach().double()
    B, A = _factors(D, rank)
    rest = (D - B @ A).norm().item()
    return B.to(W0.dtype), A.to(W0.dtype), rest / D.norm().item() if D.count_nonzero() else 0.0
