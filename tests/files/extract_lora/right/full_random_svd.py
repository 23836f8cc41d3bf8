import torch


def extract_lora(W0, W1, rank):
    if rank < 1 or rank > min(W0.shape):
        raise ValueError(f"rank={rank} does not fit {tuple(W0.shape)}")
    D = W1.to(torch.float64) - W0.to(torch.float64)
    # As many random vectors as there can be directions: exact, but for rounding.
    U, S, V = torch.svd_lowrank(D, q=min(D.shape), niter=2)
    order = S.argsort(descending=True)
    keep, drop = order[:rank], order[rank:]
    B, A = (U[:, keep] * S[keep]).to(W0.dtype), V[:, keep].T.to(W0.dtype)
    total = S.pow(2).sum()
    return B, A, (S[drop].pow(2).sum() / total).sqrt().item() if total else 0.0
