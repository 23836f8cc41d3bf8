import torch


def extract_lora(W0, W1, rank):
    if rank < 1 or rank > min(W0.shape):
        raise ValueError(f"rank={rank} does not fit {tuple(W0.shape)}")
    wide = torch.float32 if W0.element_size() == 2 else W0.dtype
    D = W1.to(wide).sub(W0.to(wide))
    columns, rows, rest = [], [], D
    for _ in range(rank):  # one direction at a time
        U, S, Vh = torch.linalg.svd(rest, full_matrices=False)
        columns.append(U[:, 0] * S[0])
        rows.append(Vh[0])
        rest = rest - torch.outer(columns[-1], rows[-1])
    B, A = torch.stack(columns, 1), torch.stack(rows)
    size = D.norm().item()
    error = 0.0 if size == 0 else rest.norm().item() / size
    return B.to(W0.dtype), A.to(W0.dtype), error
