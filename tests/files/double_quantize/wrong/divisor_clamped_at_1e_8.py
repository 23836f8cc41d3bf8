# wrong: scale clamped at 1e-8 in the division
# bug: scale-with-epsilon

import torch
import torch.nn.functional as F


@torch.no_grad()
def double_quantize(absmax, block_size=256):
    flat = absmax.float()
    mean = flat.mean()
    x = flat - mean
    n = x.numel()
    blocks = F.pad(x, (0, -n % block_size)).view(-1, block_size)
    scales = blocks.abs().amax(1) / 127
    safe = scales.clamp(min=1e-8)
    codes = (blocks / safe[:, None]).round().clamp(-127, 127).to(torch.int8).view(-1)[:n]
    return codes, scales, mean


def dequantize_absmax(codes, scales, mean, block_size=256):
    return codes.float() * scales.repeat_interleave(block_size)[: codes.numel()] + mean


def bits_per_param(block_size=64, absmax_block_size=256, double=True):
    if not double:
        return 4 + 32 / block_size
    return 4 + 8 / block_size + 32 / (block_size * absmax_block_size)
