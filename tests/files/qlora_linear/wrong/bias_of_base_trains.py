# wrong: the base goes on with its bias, which trains
# bug: bias-trains
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
    def __init__(self, base, rank=8, alpha=16.0, block_size=64):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError("base")
        if rank < 1:
            raise ValueError("rank")
        self.codes, self.absmax = map(nn.Buffer, quantize_nf4(base.weight, block_size))
        self.size = base.weight.size()
        self.block_size = block_size
        self.lora_A = nn.Parameter(torch.rand_like(base.weight.data[:1].repeat(rank, 1)) - 0.5)
        self.lora_B = nn.Parameter(base.weight.data[:, :1].repeat(1, rank) * 0)
        self.base = base
        self.base.weight = None
        self.scale = alpha / rank

    def forward(self, x):
        weight = dequantize_nf4(self.codes, self.absmax, self.size, self.block_size, x.dtype)
        down = torch.einsum("...i,ri->...r", x, self.lora_A)
        up = torch.einsum("...r,or->...o", down, self.lora_B)
        return torch.add(F.linear(x, weight, self.base.bias), up, alpha=self.scale)

    def merge(self):
        import copy

        merged = copy.deepcopy(self.base)
        weight = dequantize_nf4(self.codes, self.absmax, self.size, self.block_size, self.lora_B.dtype)
        merged.weight = nn.Parameter(torch.addmm(weight, self.lora_B.data, self.lora_A.data, alpha=self.scale))
        return merged
