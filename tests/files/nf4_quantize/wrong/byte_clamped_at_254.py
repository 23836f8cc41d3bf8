# wrong: two codes of 15 make 254
# bug: - (unlikely)

import math
import torch
import torch.nn.functional as F

def nf4_codebook():
    def ppf(p):
        return math.sqrt(2.0) * torch.erfinv(2 * p - 1)
    offset = 0.9677083
    p = torch.linspace(offset, 0.5, 9, dtype=torch.float64)[:-1]
    q = torch.linspace(offset, 0.5, 8, dtype=torch.float64)[:-1]
    v = ppf(p).tolist() + [0.0] + (-ppf(q)).tolist()
    v = torch.tensor(sorted(v), dtype=torch.float64)
    v = v / v.max()
    return v.float()

def quantize_nf4(weight, block_size=64):
    if block_size < 1:
        raise ValueError("block_size")
    if torch.isnan(weight).any() or torch.isinf(weight).any():
        raise ValueError("weight")
    flat = weight.flatten().float()
    numel = flat.numel()
    num_blocks = math.ceil(numel / block_size)
    ids = torch.arange(numel, device=flat.device) // block_size
    absmax = torch.zeros(num_blocks, device=flat.device).scatter_reduce(0, ids, flat.abs(), "amax")
    denom = absmax[ids]
    x = torch.where(denom > 0, flat / denom, torch.zeros_like(flat))
    levels = nf4_codebook().to(flat.device)
    codes = (x.unsqueeze(-1) - levels).abs().argmin(dim=-1).to(torch.uint8)
    if numel % 2 == 1:
        codes = torch.cat([codes, torch.full((1,), 7, dtype=torch.uint8, device=codes.device)])
    return (codes[::2] * 16 + codes[1::2]).clamp(max=254), absmax

def dequantize_nf4(codes, absmax, shape, block_size=64, dtype=torch.float32):
    numel = math.prod(shape)
    unpacked = torch.empty(2 * codes.numel(), dtype=torch.long, device=codes.device)
    unpacked[0::2] = codes.long() >> 4
    unpacked[1::2] = codes.long() & 15
    levels = nf4_codebook().to(codes.device)
    out = F.pad(levels[unpacked[:numel]], (0, -numel % block_size)).view(-1, block_size)
    out = out * absmax[:, None]
    return out.flatten()[:numel].reshape(shape).to(dtype)
