import torch


def _directions(A, k):
    """Eigenvectors of the Gram matrix; eigenvalues ascend, so the last are the strongest."""
    values, vectors = torch.linalg.eigh(A.T @ A)
    return vectors[:, -k:]


def phi(A1, A2, i, j):
    if i < 1 or i > A1.shape[0]:
        raise ValueError(f"i={i} is not in 1..{A1.shape[0]}")
    if j < 1 or j > A2.shape[0]:
        raise ValueError(f"j={j} is not in 1..{A2.shape[0]}")
    U1, U2 = _directions(A1, i), _directions(A2, j)
    return torch.linalg.matrix_norm(U1.T @ U2).pow(2).div(min(i, j)).item()


def amplification(W, B, A):
    D, r = B @ A, B.size(1)
    U = torch.linalg.eigh(D @ D.T).eigenvectors[:, -r:]
    V = torch.linalg.eigh(D.T @ D).eigenvectors[:, -r:]
    return (torch.linalg.matrix_norm(D) / torch.linalg.matrix_norm(U.T @ W @ V)).item()
