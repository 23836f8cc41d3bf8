# wrong: a Python loop over groups of 8 blocks
# bug: loop-over-blocks

import math
import torch
import torch.nn.functional as F

def nf4_codebook():
    n = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))
    off = 0.9677083
    pos = n.icdf(torch.linspace(0.5, off, 9, dtype=torch.float64))[1:]
    neg = -n.icdf(torch.linspace(off, 0.5, 8, dtype=torch.float64))[:-1]
    vals = torch.cat([neg, torch.zeros(1, dtype=torch.float64), pos])
    return (vals / vals.max()).to(torch.float32)

def quantize_nf4(weight, block_size=64):
    if block_size < 1:
        raise ValueError("block_size must be positive")
    if not torch.isfinite(weight).all():
        raise ValueError("weight contains non-finite values")
    flat = weight.detach().reshape(-1).to(torch.float32)
    n = flat.numel()
    nb = -(-n // block_size)
    padded = torch.zeros(nb * block_size, dtype=torch.float32, device=flat.device)
    padded[:n] = flat
    blocks = padded.reshape(nb, block_size)
    absmax = torch.cat([b.abs().amax(1) for b in blocks.split(8)])
    safe = torch.where(absmax == 0, torch.ones_like(absmax), absmax)
    normed = blocks / safe[:, None]
    book = nf4_codebook().to(flat.device)
    mids = (book[:-1] + book[1:]) * 0.5
    idx = torch.searchsorted(mids, normed.contiguous()).reshape(-1)[:n]
    if n % 2:
        idx = torch.cat([idx, idx.new_tensor([7])])
    idx = idx.to(torch.uint8)
    codes = (idx[0::2] << 4) | idx[1::2]
    return codes, absmax

def dequantize_nf4(codes, absmax, shape, block_size=64, dtype=torch.float32):
    n = 1
    for s in shape:
        n *= s
    hi = codes >> 4
    lo = codes & 0x0F
    idx = torch.stack((hi, lo), dim=-1).reshape(-1)[:n].long()
    vals = nf4_codebook().to(codes.device)[idx]
    pos = torch.arange(n, device=codes.device) // block_size
    return (vals * absmax[pos]).to(dtype).reshape(tuple(shape))
