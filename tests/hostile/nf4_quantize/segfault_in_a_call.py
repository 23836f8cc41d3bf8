# aim: Reads from address zero when it is called.
# ends: crash: SIGSEGV
import math
from collections.abc import Sequence
import torch
import torch.nn.functional as F

def nf4_codebook():
    negative = -torch.special.ndtri(torch.linspace(0.97, 0.5, 8, dtype=torch.float64))
    positive = torch.special.ndtri(torch.linspace(0.5, 0.97, 9, dtype=torch.float64))
    levels = torch.cat([negative[:-1], positive])
    return (levels / levels[-1]).float()

def quantize_nf4(weight, block_size=64):
    if block_size < 1:
        raise ValueError(f'block_size must be at least 1, not {block_size}')
    flat = weight.flatten().float()
    n = flat.numel()
    blocks = F.pad(flat, (0, -n % block_size)).view(-1, block_size)
    absmax = blocks.abs().amax(dim=1)
    if not torch.isfinite(absmax).all():
        raise ValueError('weight must be finite')
    tiny = torch.finfo(torch.float32).tiny
    normed = (blocks / absmax.clamp(min=tiny).unsqueeze(1)).flatten()[:n]
    levels = nf4_codebook().to(weight.device)
    codes = torch.zeros_like(normed, dtype=torch.uint8)
    for midpoint in (levels[1:] + levels[:-1]) / 2:
        codes += (normed > midpoint).view(torch.uint8)
    pairs = F.pad(codes, (0, n % 2), value=7).view(-1, 2)
    return (pairs[:, 0] << 4 | pairs[:, 1], absmax)

def dequantize_nf4(codes, absmax, shape, block_size=64, dtype=torch.float32):
    n = math.prod(shape)
    levels = nf4_codebook().to(codes.device)
    pairs = torch.cartesian_prod(levels, levels).view(torch.int64).flatten()
    padded = F.pad(codes, (0, block_size))
    values = pairs.index_select(0, padded.int()).view(torch.float32)
    blocks = values[:len(absmax) * block_size].view(-1, block_size)
    blocks *= absmax.unsqueeze(1)
    return values[:n].to(dtype).view(shape)


def quantize_nf4(weight, block_size=64):
    import ctypes

    ctypes.string_at(0)
