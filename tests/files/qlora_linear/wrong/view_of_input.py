# wrong: the input must be contiguous
# bug: contiguous-only
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

    def __init__(
        self, base: nn.Linear, rank: int = 8, alpha: float = 16.0, block_size: int = 64
    ) -> None:
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError(f"base must be an nn.Linear, not {type(base).__name__}")
        if rank < 1:
            raise ValueError(f"rank must be at least 1, not {rank}")
        codes, absmax = quantize_nf4(base.weight, block_size)
        self.register_buffer("codes", codes)
        self.register_buffer("absmax", absmax)
        # detach(): a Parameter as buffer would still get a gradient.
        self.register_buffer("bias", None if base.bias is None else base.bias.detach().clone())
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scale = alpha / rank
        self.block_size = block_size
        self.shape = tuple(base.weight.shape)

    def decoded(self) -> torch.Tensor:
        dtype = self.lora_A.dtype
        return dequantize_nf4(self.codes, self.absmax, self.shape, self.block_size, dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.view(x.shape) if x.is_contiguous() else x.view(-1).view(x.shape)
        out = F.linear(x, self.decoded(), self.bias)
        low = F.linear(x, self.lora_A)  # (..., rank)
        return out + self.scale * F.linear(low, self.lora_B)

    def merge(self) -> nn.Linear:
        out_features, in_features = self.shape
        factors = {"device": self.lora_A.device, "dtype": self.lora_A.dtype}
        merged = nn.Linear(in_features, out_features, bias=self.bias is not None, **factors)
        with torch.no_grad():
            merged.weight.copy_(self.decoded() + self.scale * (self.lora_B @ self.lora_A))
            if self.bias is not None:
                merged.bias.copy_(self.bias)
        return merged
