# wrong: the bias is a parameter that trains
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


class QLoRALinear(nn.Linear):
    def __init__(self, base, rank=8, alpha=16.0, block_size=64):
        if not isinstance(base, nn.Linear):
            raise TypeError("base has to be an nn.Linear")
        if not rank > 0:
            raise ValueError("rank has to be positive")
        kind = dict(device=base.weight.device, dtype=base.weight.dtype)
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.block_size = block_size
        for name, value in zip(("codes", "absmax"), quantize_nf4(base.weight.data, block_size)):
            self.register_buffer(name, value)
        if base.bias is not None:
            self.bias = nn.Parameter(base.bias.detach().clone())
        else:
            self.register_parameter("bias", None)
        self.lora_A = nn.Parameter(torch.randn(rank, base.in_features, **kind) / base.in_features**0.5)
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, **kind))
        self.scale = alpha / rank

    @property
    def weight(self):
        shape = self.out_features, self.in_features
        return dequantize_nf4(self.codes, self.absmax, shape, self.block_size, self.lora_A.dtype)

    def forward(self, x):
        return super().forward(x) + x @ self.lora_A.T @ self.lora_B.T * self.scale

    @torch.no_grad()
    def merge(self):
        has_bias = self.bias is not None
        out = nn.Linear(self.in_features, self.out_features, has_bias, self.codes.device, self.lora_A.dtype)
        out.weight.data = self.weight.add(self.lora_B.mm(self.lora_A), alpha=self.scale)
        if has_bias:
            out.bias.data.copy_(self.bias.data)
        return out
