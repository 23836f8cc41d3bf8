# wrong: the decoder has another default block size
# bug: - (unlikely)
import torch


def double_quantize(absmax, block_size=256):
    mean = absmax.float().mean()
    rest = absmax.float() - mean
    codes, scales = [], []
    for block in torch.split(rest, block_size):
        scale = block.abs().max() / 127
        scales.append(scale)
        if scale == 0:
            codes.append(torch.zeros(len(block), dtype=torch.int8, device=block.device))
        else:
            codes.append(torch.round(block / scale).to(torch.int8))
    return torch.cat(codes), torch.stack(scales), mean


def dequantize_absmax(codes, scales, mean, block_size=64):
    out = torch.empty(codes.shape, dtype=torch.float32, device=codes.device)
    for i, scale in enumerate(scales):
        part = slice(i * block_size, (i + 1) * block_size)
        out[part] = codes[part].float() * scale
    return out + mean


def bits_per_param(block_size=64, absmax_block_size=256, double=True):
    per_scale = 8 + 32 / absmax_block_size if double else 32
    return 4 + per_scale / block_size
