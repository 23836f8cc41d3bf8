# wrong: the message names no argument
# bug: error-without-name
import torch


def phi(A1, A2, i, j):
    if not (1 <= i <= len(A1) and 1 <= j <= len(A2)):
        raise ValueError('wrong number of directions')
    _, _, V1 = torch.linalg.svd(A1, full_matrices=False)
    _, _, V2 = torch.linalg.svd(A2, full_matrices=False)
    M = V1[:i] @ V2[:j].T
    return float((M ** 2).sum()) / min(i, j)


def amplification(W, B, A):
    U, S, Vh = torch.linalg.svd(B @ A, full_matrices=False)
    r = B.shape[1]
    return float(torch.linalg.norm(B @ A) / torch.linalg.norm(U[:, :r].T @ W @ Vh[:r, :].T))
