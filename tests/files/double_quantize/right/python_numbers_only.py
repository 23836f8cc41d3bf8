import math

import torch


def double_quantize(absmax, block_size=256):
    values = [float(v) for v in absmax]
    mean = torch.tensor(math.fsum(values) / len(values))
    m = mean.item()
    codes, scales = torch.empty(len(values), dtype=torch.int8), []
    for at in range(0, len(values), block_size):
        part = [v - m for v in values[at : at + block_size]]
        step = max(map(abs, part)) / 127
        scales.append(step)
        for i, v in enumerate(part):
            codes[at + i] = int(round(v / step)) if step else 0
    return codes, torch.tensor(scales), mean


def dequantize_absmax(codes, scales, mean, block_size=256):
    return torch.tensor(
        [c * scales[i // block_size].item() + mean.item() for i, c in enumerate(codes.tolist())]
    )


def bits_per_param(block_size=64, absmax_block_size=256, double=True):
    if not double:
        return 4 + 32 / block_size
    return 4 + 8 / block_size + 32 / (block_size * absmax_block_size)
