# wrong: the custom backward decodes in blocks of 64
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


class MatMul4Bit(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, codes, absmax, shape, block_size):
        ctx.save_for_backward(codes, absmax)
        ctx.how = shape, block_size, x.dtype
        return x @ dequantize_nf4(codes, absmax, *ctx.how).t()

    @staticmethod
    def backward(ctx, grad):
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ dequantize_nf4(ctx.saved_tensors[0], torch.cat([ctx.saved_tensors[1]] * 64), ctx.how[0], 64, ctx.how[2])
        return grad_x, None, None, None, None


class QLoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0, block_size=64):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError(f"base: nn.Linear expected, got {base!r}")
        if rank < 1:
            raise ValueError(f"rank: {rank}")
        self.shape, self.block_size, self.scale = base.weight.shape, block_size, alpha / rank
        codes, absmax = quantize_nf4(base.weight, block_size)
        self.register_buffer("codes", codes)
        self.register_buffer("absmax", absmax)
        self.base_bias = None
        if base.bias is not None:
            self.base_bias = nn.Parameter(base.bias.detach(), requires_grad=False)
        self.lora_A = nn.Parameter(nn.init.normal_(base.weight.new_empty(rank, self.shape[1]), std=0.05))
        self.lora_B = nn.Parameter(base.weight.new_zeros(self.shape[0], rank))

    def forward(self, x):
        y = MatMul4Bit.apply(x, self.codes, self.absmax, self.shape, self.block_size)
        if self.base_bias is not None:
            y = y + self.base_bias
        return y + F.linear(F.linear(x, self.lora_A * self.scale), self.lora_B)

    def merge(self):
        eye = torch.eye(self.shape[1], device=self.lora_A.device, dtype=self.lora_A.dtype)
        merged = nn.utils.skip_init(nn.Linear, self.shape[1], self.shape[0], bias=self.base_bias is not None, device=eye.device, dtype=eye.dtype)
        with torch.no_grad():
            columns = MatMul4Bit.apply(eye, self.codes, self.absmax, self.shape, self.block_size)
            merged.weight.copy_((columns + self.scale * eye @ self.lora_A.T @ self.lora_B.T).T)
            if self.base_bias is not None:
                merged.bias.copy_(self.base_bias)
        return merged
