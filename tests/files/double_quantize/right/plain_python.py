"""Lists of numbers; the tensors are made at the end."""
import math
import statistics

import torch


def double_quantize(absmax: torch.Tensor, block_size: int = 256):
    numbers = absmax.tolist()
    mean = statistics.fmean(numbers)
    codes, scales = [], []
    for start in range(0, len(numbers), block_size):
        block = [v - mean for v in numbers[start : start + block_size]]
        top = max(map(abs, block))
        scales.append(top / 127.0)
        codes += [math.floor(v * 127 / top + 0.5) if top else 0 for v in block]
    where = absmax.device
    return [
        torch.tensor(codes, dtype=torch.int8, device=where),
        torch.tensor(scales, dtype=torch.float32, device=where),
        torch.tensor(mean, dtype=torch.float32, device=where),
    ]


def dequantize_absmax(codes, scales, mean, block_size=256):
    factors = scales.tolist()
    numbers = [c * factors[i // block_size] + mean.item() for i, c in enumerate(codes.tolist())]
    return torch.tensor(numbers, dtype=torch.float32, device=codes.device)


def bits_per_param(block_size=64, absmax_block_size=256, double=True):
    return 4 + (32 / block_size, 8 / block_size + 32 / block_size / absmax_block_size)[bool(double)]
