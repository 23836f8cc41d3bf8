# wrong: rank above min refused
# bug: large-rank-refused
import math
from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F

# Given


def nf4_codebook() -> torch.Tensor:
    """The 16 NormalFloat levels: (16,) float32, ascending from -1 to 1, 0 at index 7."""
    negative = -torch.special.ndtri(torch.linspace(0.9677083, 0.5, 8, dtype=torch.float64))
    positive = torch.special.ndtri(torch.linspace(0.5, 0.9677083, 9, dtype=torch.float64))
    levels = torch.cat([negative[:-1], positive])
    return (levels / levels[-1]).float()


@torch.no_grad()
def quantize_nf4(weight: torch.Tensor, block_size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """codes, absmax of a weight of any shape, flattened in row order into blocks.

    codes: uint8 (ceil(numel / 2),), two per byte; absmax: float32 (ceil(numel / block_size),).
    Raises ValueError if block_size is below 1 or the weight is not finite.
    """
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
    shape: Sequence[int],
    block_size: int = 64,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """The weight that codes and absmax stand for, of this shape and dtype."""
    n = math.prod(shape)
    indices = torch.stack([codes >> 4, codes & 15], dim=1).flatten()[:n].long()
    scales = absmax.repeat_interleave(block_size)[:n]
    return (nf4_codebook().to(codes.device)[indices] * scales).to(dtype).view(shape)


class QLoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0, block_size=64):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError(f"base must be an nn.Linear, not {type(base).__name__}")
        if rank < 1 or rank > min(base.weight.shape):
            raise ValueError(f"rank must be at least 1, not {rank}")
        self.shape, self.block_size, self.scale = base.weight.shape, block_size, alpha / rank
        codes, absmax = quantize_nf4(base.weight, block_size)
        self.register_buffer("codes", codes)
        self.register_buffer("absmax", absmax)
        self.register_buffer("bias", None if base.bias is None else base.bias.detach().clone())
        w = base.weight
        self.lora_A = nn.Parameter(
            torch.randn(rank, w.shape[1], dtype=w.dtype, device=w.device) / math.sqrt(w.shape[1])
        )
        self.lora_B = nn.Parameter(torch.zeros(w.shape[0], rank, dtype=w.dtype, device=w.device))

    def weight(self):
        return dequantize_nf4(
            self.codes, self.absmax, self.shape, self.block_size, self.lora_A.dtype
        )

    def forward(self, x):
        return F.linear(x, self.weight(), self.bias) + self.scale * (
            x @ self.lora_A.T @ self.lora_B.T
        )

    def merge(self):
        out, inn = self.shape
        made = nn.Linear(
            inn, out, bias=self.bias is not None, device=self.lora_A.device, dtype=self.lora_A.dtype
        )
        with torch.no_grad():
            made.weight.copy_(self.weight() + self.scale * (self.lora_B @ self.lora_A))
            if self.bias is not None:
                made.bias.copy_(self.bias)
        return made
