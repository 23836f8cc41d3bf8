# wrong: the decoded weight is kept in training mode, by version, and dropped in eval mode
# bug: decoded-weight-kept
"""QLoRA on one linear layer: a 4-bit base, a LoRA branch beside it.

Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs", section 3, equation 5:
Y = X dequant(c, W) + X L1 L2. Storage is NF4, computation in the layer's own dtype; the weight is
decoded for each product and forgotten. (The second quantization is left out here.)
"""

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


# The kata


class QLoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0, block_size=64):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError("base must be an nn.Linear")
        if rank < 1:
            raise ValueError("rank must be >= 1")
        self.in_features = base.in_features
        self.out_features = base.out_features
        self.block_size = block_size
        self.scale = alpha / rank
        codes, absmax = quantize_nf4(base.weight.detach(), block_size)
        self.register_buffer("codes", codes)
        self.register_buffer("absmax", absmax)
        bias = None if base.bias is None else base.bias.detach().clone()
        self.register_buffer("bias", bias)
        kw = dict(device=base.weight.device, dtype=base.weight.dtype)
        self.lora_A = nn.Parameter(torch.randn(rank, base.in_features, **kw) * 0.02)
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, **kw))

    def _weight(self, dtype):
        shape = (self.out_features, self.in_features)
        key = (dtype, self.codes._version, self.absmax._version)
        if not self.training:
            self._c = None
            return dequantize_nf4(self.codes, self.absmax, shape, self.block_size, dtype)
        if getattr(self, '_c', None) is None or self._c[0] != key:
            self._c = (key, dequantize_nf4(self.codes, self.absmax, shape, self.block_size, dtype))
        return self._c[1]

    def forward(self, x):
        base = F.linear(x, self._weight(x.dtype), self.bias)
        return base + self.scale * (x @ self.lora_A.T @ self.lora_B.T)

    @torch.no_grad()
    def merge(self):
        w = self._weight(self.lora_A.dtype) + self.scale * self.lora_B @ self.lora_A
        new = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None,
                        device=self.codes.device, dtype=self.lora_A.dtype)
        new.weight.copy_(w)
        if self.bias is not None:
            new.bias.copy_(self.bias)
        return new
