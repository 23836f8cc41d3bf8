"""As short as it gets."""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

# Given


def nf4_codebook() -> torch.Tensor:
    negative = -torch.special.ndtri(torch.linspace(0.9677083, 0.5, 8, dtype=torch.float64))
    positive = torch.special.ndtri(torch.linspace(0.5, 0.9677083, 9, dtype=torch.float64))
    levels = torch.cat([negative[:-1], positive])
    return (levels / levels[-1]).float()


@torch.no_grad()
def quantize_nf4(weight: torch.Tensor, block_size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, not {block_size}")
    if weight.device.type != "meta" and not torch.isfinite(weight).all():
        raise ValueError("weight must be finite")
    flat = weight.flatten().float()
    n = flat.numel()
    blocks = F.pad(flat, (0, -n % block_size)).view(-1, block_size)
    absmax = blocks.abs().amax(dim=1)
    normed = blocks / absmax.clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(1)
    levels = nf4_codebook().to(weight.device)
    codes = torch.bucketize(normed.flatten()[:n], (levels[1:] + levels[:-1]) / 2)
    pairs = F.pad(codes, (0, n % 2), value=7).to(torch.uint8).view(-1, 2)
    return pairs[:, 0] << 4 | pairs[:, 1], absmax


def dequantize_nf4(
    codes: torch.Tensor,
    absmax: torch.Tensor,
    shape: tuple,
    block_size: int = 64,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    n = math.prod(shape)
    indices = torch.stack([codes >> 4, codes & 15], dim=1).flatten()[:n].long()
    scales = absmax.repeat_interleave(block_size)[:n]
    return (nf4_codebook().to(codes.device)[indices] * scales).to(dtype).view(shape)


# The kata


class QLoRALinear(nn.Module):
    def __init__(s,base,rank=8,alpha=16.,block_size=64):
        super().__init__()
        if not isinstance(base,nn.Linear):raise TypeError('base')
        if rank<1:raise ValueError('rank')
        w=base.weight.data;R=s.register_buffer;c,a=quantize_nf4(w,block_size);R('codes',c);R('absmax',a);R('b',base.bias if base.bias is None else base.bias.data)
        s.lora_A=nn.Parameter(torch.randn(rank,w.shape[1]).to(w)/9);s.lora_B=nn.Parameter(w.new_zeros(len(w),rank));s.scale=alpha/rank
        s.w=lambda:dequantize_nf4(s.codes,s.absmax,w_shape,block_size,s.lora_A.dtype);w_shape=w.shape;del w,base
    forward=lambda s,x:F.linear(x,s.w(),s.b)+x@s.lora_A.T@s.lora_B.T*s.scale
    def merge(s):
        l=nn.Linear(*s.w().shape[::-1],bias=s.b is not None).to(s.lora_A);l.weight.data=s.w()+(s.lora_B@s.lora_A*s.scale).data
        if s.b is not None:l.bias.data=s.b.clone()
        return l
