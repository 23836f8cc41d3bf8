"""Decodes a few rows at a time, by its own helpers."""
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
        if not isinstance(base, nn.Linear):
            raise TypeError("base")
        if rank < 1:
            raise ValueError("rank")
        super().__init__()
        self.rank, self.alpha, self.block_size = rank, alpha, block_size
        self.out_features, self.in_features = base.out_features, base.in_features
        self.codes: torch.Tensor
        self.absmax: torch.Tensor
        for k, v in dict(zip(["codes", "absmax"], quantize_nf4(base.weight, block_size))).items():
            self.register_buffer(k, v)
        self.register_buffer("bias", base.bias.data.clone() if base.bias is not None else None)
        A = torch.empty(base.in_features, rank, dtype=base.weight.dtype, device=base.weight.device)
        nn.init.xavier_normal_(A)
        self.lora_A = nn.Parameter(A.t())
        self.lora_B = nn.Parameter(torch.zeros(rank, base.out_features).to(A).t())

    @property
    def scale(self):
        return self.alpha / self.rank

    def values(self, first, last):
        """Decoded values first..last-1 of the flattened weight."""
        at = torch.arange(first, last, device=self.codes.device)
        byte = self.codes[at // 2].to(torch.long)
        index = torch.where(at % 2 == 0, byte >> 4, byte & 15)
        return nf4_codebook().to(index.device)[index] * self.absmax[at // self.block_size]

    def decoded(self):
        for row in range(0, self.out_features, 4):
            last = min(row + 4, self.out_features)
            piece = self.values(row * self.in_features, last * self.in_features)
            yield piece.view(-1, self.in_features).to(self.lora_A.dtype)

    def forward(self, x):
        y = torch.cat([x @ rows.mT for rows in self.decoded()], dim=-1)
        y = y + self.scale * (x @ self.lora_A.mT @ self.lora_B.mT)
        return y if self.bias is None else y + self.bias

    def merge(self):
        layer = nn.Linear(self.in_features, self.out_features, self.bias is not None)
        layer = layer.to(self.lora_A.device, self.lora_A.dtype)
        weight = torch.cat(list(self.decoded())) + self.lora_B.detach() @ self.lora_A.detach() * self.scale
        layer.weight = nn.Parameter(weight, requires_grad=False)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.clone(), requires_grad=False)
        return layer
