# wrong: equation 4 as it stands, a mean of neighbouring quantiles over both sides: no zero
# bug: codebook-without-zero
import statistics

import numpy as np
import torch

Q = statistics.NormalDist().inv_cdf


def nf4_codebook():
    q = [Q(i / 18) for i in range(1, 18)]
    table = np.array([(a + b) / 2 for a, b in zip(q, q[1:])])
    return torch.from_numpy((table / table.max()).astype(np.float32))


def quantize_nf4(weight, block_size=64):
    if block_size <= 0:
        raise ValueError(f"{block_size=}")
    w = weight.detach().cpu().to(torch.float64).numpy()
    if not np.isfinite(w).all():
        raise ValueError("non-finite entries in weight")
    w = np.ravel(w, order="C")
    n = w.size
    starts = np.arange(0, n, block_size)
    absmax = np.maximum.reduceat(np.abs(w), starts)
    per_value = np.repeat(absmax, block_size)[:n]
    with np.errstate(all="ignore"):
        v = np.where(per_value > 0, w / per_value, 0.0)
    table = nf4_codebook().numpy().astype(np.float64)
    middles = (table[1:] + table[:-1]) / 2
    codes = np.searchsorted(middles, v).astype(np.uint8)
    if n & 1:
        codes = np.append(codes, np.uint8(7))
    packed = (codes[::2] << 4) | codes[1::2]
    return (
        torch.from_numpy(packed).to(weight.device),
        torch.from_numpy(absmax.astype(np.float32)).to(weight.device),
    )


def dequantize_nf4(codes, absmax, shape, block_size=64, dtype=torch.float32):
    raw = codes.cpu().numpy()
    idx = np.empty(raw.size * 2, dtype=np.int64)
    idx[::2], idx[1::2] = raw >> 4, raw & 0xF
    n = int(np.prod(shape, dtype=np.int64))
    scale = np.repeat(absmax.cpu().numpy().astype(np.float64), block_size)[:n]
    out = nf4_codebook().numpy().astype(np.float64)[idx[:n]] * scale
    return torch.from_numpy(out.reshape(tuple(shape))).to(codes.device, dtype)
