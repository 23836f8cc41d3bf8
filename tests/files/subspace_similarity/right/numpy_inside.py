import numpy as np


def _top(M, k):
    M = M.detach().cpu().numpy()
    return np.linalg.svd(M, full_matrices=True)[2][:k]


def phi(A1, A2, i, j):
    if not (0 < i <= A1.size(0)):
        raise ValueError("`i` must be between 1 and the number of rows of A1")
    if not (0 < j <= A2.size(0)):
        raise ValueError("`j` must be between 1 and the number of rows of A2")
    return np.float64(np.sum((_top(A1, i) @ _top(A2, j).T) ** 2) / min(i, j))


def amplification(W, B, A):
    W, B, A = (M.detach().cpu().numpy() for M in (W, B, A))
    D = np.dot(B, A)
    u, s, vh = np.linalg.svd(D)
    r = A.shape[0]
    return float(np.sqrt((s[:r] ** 2).sum()) / np.linalg.norm(u[:, :r].T.dot(W).dot(vh[:r].T)))
