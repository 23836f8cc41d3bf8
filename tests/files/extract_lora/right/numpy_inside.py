import numpy as np
import torch


def extract_lora(W0, W1, rank):
    out, into = W0.shape
    if rank not in range(1, min(out, into) + 1):
        raise ValueError("`rank` must lie between 1 and the smaller side")
    wide = np.float64 if W0.dtype is torch.float64 else np.float32
    old, new = (W.detach().float() if W.dtype is torch.bfloat16 else W.detach() for W in (W0, W1))
    delta = np.subtract(new.cpu().numpy(), old.cpu().numpy(), dtype=wide)
    u, s, vt = np.linalg.svd(delta, full_matrices=True)
    B = torch.from_numpy(np.ascontiguousarray(u[:, :rank])).to(W0)
    A = torch.from_numpy(s[:rank, None] * vt[:rank]).to(W0)
    total = np.sqrt(np.sum(s**2))
    return B, A, np.float64(0.0 if total == 0 else np.sqrt(np.sum(s[rank:] ** 2)) / total)
