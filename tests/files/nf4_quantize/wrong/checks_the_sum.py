# wrong: checks the sum: +inf and -inf fine, large finite refused
# bug: finite-by-sum
import math

import torch
import torch.nn.functional as F


def nf4_codebook():
    p = torch.linspace(0.9677083, 0.5, 8, dtype=torch.float64)
    neg = -torch.special.ndtri(p)
    pos = torch.special.ndtri(torch.linspace(0.5, 0.9677083, 9, dtype=torch.float64))
    levels = torch.cat([neg[:-1], pos])
    return (levels / levels.max()).float()


@torch.no_grad()
def quantize_nf4(weight, block_size=64):
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, not {block_size}")
    if not math.isfinite(weight.float().sum()):
        raise ValueError("weight must be finite")
    flat = weight.reshape(-1).float()
    n = flat.numel()
    blocks = F.pad(flat, (0, -n % block_size)).view(-1, block_size)
    absmax = blocks.abs().amax(1)
    safe = torch.where(absmax > 0, absmax, torch.ones_like(absmax))
    normed = (blocks / safe[:, None]).reshape(-1)[:n]
    levels = nf4_codebook()
    idx = torch.bucketize(normed, (levels[1:] + levels[:-1]) / 2).to(torch.uint8)
    if n % 2:
        idx = torch.cat([idx, idx.new_full((1,), 7)])
    return idx[0::2] * 16 + idx[1::2], absmax


def dequantize_nf4(codes, absmax, shape, block_size=64, dtype=torch.float32):
    n = math.prod(shape)
    idx = torch.stack([codes >> 4, codes & 15], dim=1).reshape(-1)[:n]
    scale = absmax.repeat_interleave(block_size)[:n]
    return (nf4_codebook()[idx.long()] * scale).to(dtype).reshape(tuple(shape))
