# wrong: numpy() without detach(): a Parameter fails
# bug: gradient-refused

import math
from statistics import NormalDist
import numpy as np
import torch

def nf4_codebook():
    ppf = NormalDist().inv_cdf
    off = 0.9677083
    pos = [ppf(0.5 + (off - 0.5) * i / 8) for i in range(1, 9)]
    neg = [-ppf(0.5 + (off - 0.5) * i / 7) for i in range(7, 0, -1)]
    v = np.array(neg + [0.0] + pos)
    return torch.from_numpy((v / v.max()).astype(np.float32))

def quantize_nf4(weight, block_size=64):
    if block_size < 1:
        raise ValueError("block_size < 1")
    w = weight.cpu().to(torch.float64).numpy().ravel()
    if not np.isfinite(w).all():
        raise ValueError("weight not finite")
    n = len(w)
    starts = np.arange(0, n, block_size)
    absmax = np.maximum.reduceat(np.abs(w), starts)
    scale = np.repeat(absmax, block_size)[:n]
    normed = np.divide(w, scale, out=np.zeros_like(w), where=scale != 0)
    book = nf4_codebook().numpy().astype(np.float64)
    codes = np.searchsorted((book[1:] + book[:-1]) / 2, normed).astype(np.uint8)
    if n % 2:
        codes = np.append(codes, np.uint8(7))
    packed = (codes[0::2] << 4) | codes[1::2]
    return torch.from_numpy(packed).to(weight.device), torch.from_numpy(absmax.astype(np.float32)).to(weight.device)

def dequantize_nf4(codes, absmax, shape, block_size=64, dtype=torch.float32):
    c = codes.cpu().numpy()
    n = math.prod(shape)
    idx = np.stack([c >> 4, c & 15], 1).ravel()[:n]
    vals = nf4_codebook().numpy()[idx] * np.repeat(absmax.cpu().numpy(), block_size)[:n]
    return torch.from_numpy(vals.reshape(tuple(shape))).to(codes.device, dtype)
