# wrong: the mean stays float64
# bug: float64-kept
import torch
from torch import Tensor


@torch.no_grad()
def double_quantize(absmax: Tensor, block_size: int = 256) -> tuple[Tensor, ...]:
    x = absmax.to(torch.float64)
    mean = x.sum() / x.numel()
    x = x - mean
    block = torch.arange(x.numel(), device=x.device) // block_size
    top = torch.zeros(int(block[-1]) + 1, dtype=x.dtype, device=x.device)
    top.index_reduce_(0, block, x.abs(), "amax")
    grid = torch.arange(-126.5, 127, 1, dtype=x.dtype, device=x.device)
    unit = torch.nan_to_num(x / top[block], nan=0.0) * 127
    codes = torch.bucketize(unit, grid) - 127
    return codes.char(), (top / 127).float(), mean


@torch.no_grad()
def dequantize_absmax(codes, scales, mean, block_size=256):
    n = codes.shape[0]
    table = torch.outer(scales, torch.arange(-128, 128, dtype=scales.dtype, device=scales.device))
    block = torch.arange(n, device=codes.device) // block_size
    return table[block, codes.long() + 128].add_(mean)


def bits_per_param(block_size=64, absmax_block_size=256, double=True):
    weights = block_size * absmax_block_size
    scales = weights // block_size
    bits = 4 * weights + (8 * scales + 32 if double else 32 * scales)
    return bits / weights
