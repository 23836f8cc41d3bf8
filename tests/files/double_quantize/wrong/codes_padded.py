# wrong: the codes of the padding are kept
# bug: padding-kept
import torch
import torch.nn as nn


class Blocks(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, values, fill):
        rows = -(-values.numel() // self.size)
        out = fill.new_ones(rows * self.size) * fill
        out[: values.numel()] = values
        return out.reshape(rows, self.size)


def double_quantize(absmax, block_size=256):
    mean = torch.mean(absmax, dtype=torch.float32)
    x = Blocks(block_size)(absmax.float(), mean) - mean
    scale = torch.linalg.vector_norm(x, ord=float("inf"), dim=-1, keepdim=True).div(127)
    code = torch.where(scale > 0, x / scale, torch.zeros_like(x)).round().clamp(-127, 127)
    return code.reshape(-1).to(dtype=torch.int8), scale[:, 0], mean


def dequantize_absmax(codes, scales, mean, block_size=256):
    rows = Blocks(block_size)(codes.float(), torch.zeros((), device=codes.device))
    return torch.einsum("bi,b->bi", rows, scales).reshape(-1).float() + mean


def bits_per_param(block_size=64, absmax_block_size=256, double=True):
    bits = 4.0
    if double:
        bits += 8.0 / block_size
        bits += 32.0 / block_size / absmax_block_size
        return bits
    bits += 32.0 / block_size
    return bits
