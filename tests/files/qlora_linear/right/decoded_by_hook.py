"""A pre-hook puts the decoded weight in place for the time of one call, a hook takes it out."""
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
            raise TypeError("base must be nn.Linear")
        if rank < 1:
            raise ValueError("rank must be 1 or more")
        codes, absmax = quantize_nf4(base.weight, block_size)
        self.register_buffer("codes", codes)
        self.register_buffer("absmax", absmax)
        self.bias = None if base.bias is None else nn.Parameter(base.bias.detach().clone(), False)
        self.lora_A = nn.Parameter(torch.empty_like(base.weight.detach()[0].repeat(rank, 1)))
        self.lora_B = nn.Parameter(torch.zeros_like(base.weight.detach()[:, 0].repeat(rank, 1).T))
        nn.init.orthogonal_(self.lora_A) if self.lora_A.dtype == torch.float32 and self.lora_A.device.type == "cpu" else nn.init.normal_(self.lora_A, std=0.1)
        self.scale = alpha / rank
        out, inn = base.weight.shape
        self.decode = lambda: dequantize_nf4(self.codes, self.absmax, (out, inn), block_size, self.lora_A.dtype)
        self.weight = None
        self.register_forward_pre_hook(lambda module, args: setattr(module, "weight", module.decode()))
        self.register_forward_hook(lambda module, args, output: setattr(module, "weight", None))

    def forward(self, x):
        return F.linear(x, self.weight, self.bias) + self.scale * ((x @ self.lora_A.T) @ self.lora_B.T)

    def merge(self):
        weight = self.decode() + self.scale * (self.lora_B @ self.lora_A).detach()
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta", dtype=weight.dtype)
        layer.weight = nn.Parameter(weight)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.detach().clone())
        return layer
