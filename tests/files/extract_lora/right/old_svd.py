import torch


def extract_lora(W0, W1, rank):
    if rank < 1 or rank > min(W0.shape):
        raise ValueError(f"rank={rank} does not fit {tuple(W0.shape)}")
    delta = (W1 - W0).to(torch.promote_types(torch.float32, W0.dtype))  # 16 bits are enough for this
    U, S, V = torch.svd(delta)
    B = torch.mm(U.narrow(1, 0, rank), torch.diag(S.narrow(0, 0, rank)))
    A = V.narrow(1, 0, rank).t().contiguous()
    total = torch.dot(S, S).sqrt()
    tail = torch.dot(S[rank:], S[rank:]).sqrt()
    error = (tail / total.clamp_min(torch.finfo(total.dtype).tiny)).item()
    return B.type_as(W0), A.type_as(W0), error
