import torch


def phi(A1, A2, i, j):
    if i < 1 or i > A1.shape[0]:
        raise ValueError(f"i={i} is not in 1..{A1.shape[0]}")
    if j < 1 or j > A2.shape[0]:
        raise ValueError(f"j={j} is not in 1..{A2.shape[0]}")
    # As many random vectors as rows: the subspace is exact, and so is what follows.
    _, _, V1 = torch.svd_lowrank(A1, q=min(A1.shape), niter=4)
    _, _, V2 = torch.svd_lowrank(A2, q=min(A2.shape), niter=4)
    return (V1[:, :i].T @ V2[:, :j]).square().sum().item() / min(i, j)


def amplification(W, B, A):
    U, S, Vh = torch.linalg.svd(B @ A, full_matrices=False)
    r = B.shape[1]
    return float(torch.linalg.norm(B @ A) / torch.linalg.norm(U[:, :r].T @ W @ Vh[:r, :].T))
