# wrong: scales are float64
# bug: float64-kept
from collections import namedtuple

import numpy as np
import torch

Coded = namedtuple("Coded", "codes scales mean")


def double_quantize(absmax, block_size=256):
    a = absmax.detach().cpu().double().numpy()
    mean = np.float32(a.mean())
    x = a - np.float64(mean)
    starts = np.arange(0, a.size, block_size)
    scales = np.maximum.reduceat(np.abs(x), starts) / 127
    per_value = scales.repeat(block_size)[: a.size]
    codes = np.zeros(a.size)
    np.divide(x, per_value, out=codes, where=per_value > 0)
    put = lambda v, t: torch.as_tensor(v).to(absmax.device, t)
    return Coded(put(np.rint(codes), torch.int8), put(scales, torch.float64), put(mean, torch.float32))


def dequantize_absmax(codes, scales, mean, block_size=256):
    where = torch.arange(codes.numel(), device=codes.device).div(block_size, rounding_mode="floor")
    return torch.addcmul(mean.expand(codes.numel()), codes.float(), scales[where])


def bits_per_param(block_size=64, absmax_block_size=256, double=True):
    from fractions import Fraction

    bits = Fraction(4)
    if double:
        bits += Fraction(8, block_size) + Fraction(32, block_size * absmax_block_size)
    else:
        bits += Fraction(32, block_size)
    return float(bits)
