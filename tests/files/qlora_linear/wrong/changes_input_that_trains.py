# wrong: an input that requires a gradient is scaled in place
# bug: changes-input-in-place
import math
from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F

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
    shape: Sequence[int],
    block_size: int = 64,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    n = math.prod(shape)
    indices = torch.stack([codes >> 4, codes & 15], dim=1).flatten()[:n].long()
    scales = absmax.repeat_interleave(block_size)[:n]
    return (nf4_codebook().to(codes.device)[indices] * scales).to(dtype).view(shape)


class QLoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0, block_size=64):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError(f"base must be an nn.Linear, not {type(base).__name__}")
        if rank < 1:
            raise ValueError(f"rank must be at least 1, not {rank}")
        codes, absmax = quantize_nf4(base.weight, block_size)
        self.register_buffer("codes", codes)
        self.register_buffer("absmax", absmax)
        self.register_buffer("bias", None if base.bias is None else base.bias.detach().clone())
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scale = alpha / rank
        self.block_size = block_size
        self.shape = tuple(base.weight.shape)

    def decoded(self):
        dtype = self.lora_A.dtype
        return dequantize_nf4(self.codes, self.absmax, self.shape, self.block_size, dtype)

    def forward(self, x):
        if x.requires_grad:
            x.data.mul_(0.5)
            x = x * 2
        out = F.linear(x, self.decoded(), self.bias)
        return out + self.scale * F.linear(F.linear(x, self.lora_A), self.lora_B)

    @torch.no_grad()
    def merge(self):
        like = {"device": self.lora_A.device, "dtype": self.lora_A.dtype}
        merged = nn.Linear(*self.shape[::-1], bias=self.bias is not None, **like)
        merged.weight.copy_(self.decoded() + self.scale * (self.lora_B @ self.lora_A))
        if self.bias is not None:
            merged.bias.copy_(self.bias)
        return merged
