import torch


def phi(A1, A2, i, j):
    if i < 1 or i > A1.shape[0]:
        raise ValueError(f"i={i} is not in 1..{A1.shape[0]}")
    if j < 1 or j > A2.shape[0]:
        raise ValueError(f"j={j} is not in 1..{A2.shape[0]}")
    U1 = torch.svd(A1).V[:, :i]
    U2 = torch.svd(A2.clone()).V.narrow(1, 0, j)
    return torch.norm(torch.mm(U1.t(), U2), p="fro").item() ** 2 / min(i, j)


def amplification(W, B, A):
    U, S, V = torch.svd(torch.matmul(B, A))
    U, V = U[:, : A.shape[0]], V[:, : A.shape[0]]
    return (torch.norm(S) / torch.norm(U.t().mm(W).mm(V))).item()
