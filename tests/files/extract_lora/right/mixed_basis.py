import math

import torch


class _Extractor:
    """Any invertible matrix may stand between the factors."""

    def __call__(self, W0, W1, rank):
        limit = W0.shape[0] if W0.shape[0] < W0.shape[1] else W0.shape[1]
        if not isinstance(rank, int) or rank > limit or rank <= 0:
            raise ValueError("bad rank: %r" % (rank,))
        D = torch.sub(W1.double(), W0.double())
        U, S, Vh = torch.linalg.svd(D, full_matrices=False)
        Q = torch.linalg.qr(torch.eye(rank, dtype=D.dtype, device=D.device) + 0.5).Q
        B, A = U[:, :rank] @ S[:rank].pow(0.3).diag() @ Q, Q.T @ S[:rank].pow(0.7).diag() @ Vh[:rank]
        s = S.tolist()
        whole = math.hypot(*s)
        lost = math.hypot(*s[rank:], 0.0)
        return tuple(M.to(W0.dtype) for M in (B, A)) + (lost / whole if whole else 0.0,)


extract_lora = _Extractor()
