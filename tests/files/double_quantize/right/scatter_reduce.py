import torch


def double_quantize(absmax, block_size=256):
    absmax = absmax.detach().to(torch.float32)
    mean = torch.mean(absmax)
    x = torch.sub(absmax, mean)
    of = torch.arange(len(x)).div(block_size, rounding_mode="floor")
    top = torch.zeros(int(of[-1]) + 1).scatter_reduce(0, of, x.abs(), "amax")
    scales = top.div(127.0)
    codes = torch.nan_to_num(torch.round(x / scales[of]), nan=0.0).clamp_(-128, 127)
    return codes.type(torch.int8), scales, mean


def dequantize_absmax(codes, scales, mean, block_size=256):
    return torch.addcmul(
        mean.expand(len(codes)), codes.float(), scales[torch.arange(len(codes)) // block_size]
    )


def bits_per_param(block_size=64, absmax_block_size=256, double=True):
    if not double:
        return 4 + 32 / block_size
    return 4 + 8 / block_size + 32 / (block_size * absmax_block_size)
