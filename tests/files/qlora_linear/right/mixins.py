"""Storage, update and merging each in a class of its own; checkpointed decoding."""
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


class NF4Storage(nn.Module):
    def store(self, weight, block_size):
        codes, absmax = quantize_nf4(weight, block_size)
        self.register_buffer("codes", codes.contiguous())
        self.register_buffer("absmax", absmax.contiguous())
        self._recipe = {"shape": torch.Size(weight.shape), "block_size": block_size}

    def load(self, dtype):
        with torch.no_grad():
            return dequantize_nf4(self.codes, self.absmax, dtype=dtype, **self._recipe)


class LowRank(nn.Module):
    def adapt(self, like, rank, alpha):
        make = {"dtype": like.dtype, "device": like.device}
        bound = 1 / math.sqrt(like.shape[1])
        self.lora_A = nn.Parameter(torch.empty((rank, like.shape[1]), **make).uniform_(-bound, bound))
        self.lora_B = nn.Parameter(torch.zeros((like.shape[0], rank), **make))
        self.rank, self.alpha = rank, alpha

    scale = property(lambda self: self.alpha / self.rank)

    def delta(self, x):
        return (x @ self.lora_A.transpose(0, 1)) @ self.lora_B.transpose(0, 1) * self.scale


class QLoRALinear(NF4Storage, LowRank):
    def __init__(self, base, rank=8, alpha=16.0, block_size=64):
        super().__init__()
        self.check(base=base, rank=rank)
        self.store(base.weight, block_size)
        self.adapt(base.weight, rank, alpha)
        self.bias = base.bias
        if base.bias is not None:
            self.bias.requires_grad_(False)

    @staticmethod
    def check(*, base, rank):
        for name, bad, error in (("base", not isinstance(base, nn.Linear), TypeError), ("rank", rank < 1, ValueError)):
            if bad:
                raise error(f"bad argument: {name}")

    def forward(self, x):
        return F.linear(x, self.load(x.dtype), self.bias).add(self.delta(x))

    def merge(self):
        weight = self.load(self.lora_A.dtype).double()
        weight += self.scale * (self.lora_B.double() @ self.lora_A.double()).detach()
        with torch.device(self.lora_A.device):
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=self.bias is not None, dtype=self.lora_A.dtype)
        nn.utils.vector_to_parameters
        layer.weight.data.copy_(weight)
        if self.bias is not None:
            layer.bias.data.copy_(self.bias.data)
        return layer.eval()
