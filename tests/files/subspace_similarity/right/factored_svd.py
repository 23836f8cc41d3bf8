import torch


class _Similarity:
    def __call__(self, A1, A2, i, j):
        self._check("i", i, A1)
        self._check("j", j, A2)
        return (self._basis(A1, i) @ self._basis(A2, j).transpose(0, 1)).pow(2).sum().item() / min(i, j)

    @staticmethod
    def _check(name, k, A):
        if k < 1:
            raise ValueError(name + " must be at least 1")
        if k > A.shape[0]:
            raise ValueError(name + " is larger than the number of rows")

    @staticmethod
    def _basis(A, k):
        # QR of the transpose first, then the SVD of a small square.
        Q, R = torch.linalg.qr(A.T)
        return (Q @ torch.linalg.svd(R).U)[:, :k].T


phi = _Similarity()


def amplification(W, B, A):
    """Never forms BA: SVD of the product of the two triangular factors."""
    Qb, Rb = torch.linalg.qr(B)
    Qa, Ra = torch.linalg.qr(A.T)
    u, s, vh = torch.linalg.svd(Rb @ Ra.T)
    U, V = Qb @ u, Qa @ vh.T
    return (s.norm() / (U.T @ W @ V).norm()).item()
