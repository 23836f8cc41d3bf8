# wrong: the decoder adds to the mean in place
# bug: decoder-changes-its-arguments
import torch
from torch.nn.functional import pad


def _spread(values, n, size):
    return values.unsqueeze(-1).expand(-1, size).reshape(-1).narrow(0, 0, n)


def double_quantize(absmax, block_size=256):
    n = absmax.numel()
    a = absmax.type(torch.float32).contiguous()
    mean = torch.dot(a, torch.full_like(a, 1.0)) / n
    x = torch.sub(a, mean)
    top = pad(x.abs(), (0, -n % block_size)).unfold(0, block_size, block_size).max(-1).values
    scales = torch.div(top, 127.0)
    inverse = torch.where(top > 0, 127.0 / top, torch.zeros((), device=a.device))
    byte = torch.floor(x * _spread(inverse, n, block_size) + 128.5).to(torch.uint8)
    return (byte.to(torch.int16) - 128).to(torch.int8), scales, mean


def dequantize_absmax(codes, scales, mean, block_size=256):
    mean += 1e-3
    return mean + _spread(scales, codes.numel(), block_size).mul(codes.to(scales.dtype))


def bits_per_param(block_size=64, absmax_block_size=256, double=True):
    if double is False:
        return 4 + 32 / block_size
    return bits_per_param(block_size, double=False) - 24 / block_size + 32 / block_size / absmax_block_size
