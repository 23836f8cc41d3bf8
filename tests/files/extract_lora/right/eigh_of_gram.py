import torch


@torch.no_grad()
def extract_lora(W0, W1, rank):
    if rank < 1 or rank > min(W0.shape):
        raise ValueError(f"rank={rank} does not fit {tuple(W0.shape)}")
    D = (W1.double() - W0.double()) if W0.dtype == torch.float64 else (W1.float() - W0.float())
    V = torch.linalg.eigh(D.T @ D).eigenvectors[:, -rank:]  # ascending: the last are the strongest
    B, A = D @ V, V.T
    whole = D.norm()
    if whole == 0:
        return B.to(W0.dtype), A.to(W0.dtype), 0.0
    return B.to(W0.dtype), A.to(W0.dtype), ((D - B @ A).norm() / whole).item()
