# wrong: the update is sent through NF4
# bug: - (unlikely)
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
    """codes, absmax, lora_A, lora_B, scale."""

    def __init__(self, base, rank=8, alpha=16.0, block_size=64):
        super().__init__()
        match base:
            case nn.Linear():
                pass
            case _:
                raise TypeError("base is no nn.Linear")
        if rank <= 0:
            raise ValueError("rank is below 1")
        w = base.weight.detach()
        codes, absmax = quantize_nf4(w, block_size)
        self.register_buffer("codes", codes)
        self.register_buffer("absmax", absmax)
        self.register_buffer("frozen_bias", None if base.bias is None else base.bias.detach())
        self.register_buffer("geometry", torch.tensor([*w.shape, block_size]), persistent=True)
        self.config = tuple(w.shape), block_size, w.dtype
        self.lora_A = nn.Parameter(torch.empty_like(w[:1].expand(rank, -1)).uniform_(-0.2, 0.2))
        self.lora_B = nn.Parameter(torch.zeros_like(w[:, :1].expand(-1, rank)))
        self.register_buffer("scale", torch.tensor(alpha / rank, dtype=torch.float64), persistent=False)

    def effective(self):
        shape, block_size, dtype = self.config
        weight = dequantize_nf4(self.codes, self.absmax, shape, block_size, dtype)
        update = float(self.scale) * torch.einsum("or,ri->oi", self.lora_B, self.lora_A)
        coarse = dequantize_nf4(*quantize_nf4(update, block_size), shape, block_size, dtype)
        return weight + update + (coarse - update).detach()

    def forward(self, x):
        return F.linear(x, self.effective(), self.frozen_bias)

    def merge(self):
        weight = self.effective().detach()
        plain = nn.Linear(*weight.shape[::-1], bias=self.frozen_bias is not None).to(weight)
        state = {"weight": weight}
        if self.frozen_bias is not None:
            state["bias"] = self.frozen_bias
        plain.load_state_dict(state)
        return plain
