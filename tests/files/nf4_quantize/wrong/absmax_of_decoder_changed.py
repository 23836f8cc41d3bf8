# wrong: the decoder multiplies codes or absmax in place
# bug: decoder-changes-its-arguments
import torch
from torch.nn.functional import pad

TABLE = (
    -1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0,
)


def nf4_codebook():
    return torch.tensor(TABLE, dtype=torch.float32)


def quantize_nf4(weight, block_size=64):
    if int(block_size) < 1:
        raise ValueError(f"block_size should be >= 1, got {block_size}")
    if torch.isfinite(weight).logical_not().any():
        raise ValueError("every entry of `weight` should be finite")
    x = weight.reshape(-1).float()
    size = x.numel()
    blocks = pad(x, (0, -size % block_size)).reshape(-1, block_size)
    absmax = blocks.abs().amax(1)
    v = (blocks / absmax.clamp(min=1e-12)[:, None]).flatten()[:size].unsqueeze(-1)
    codes = (v - nf4_codebook().to(v.device)).square().argmin(-1).to(torch.uint8)
    codes = pad(codes, (0, size % 2), value=7).unfold(0, 2, 2)
    return codes[..., 0] * 16 + codes[..., 1], absmax


def dequantize_nf4(codes, absmax, shape, block_size=64, dtype=torch.float32):
    levels = nf4_codebook().to(codes.device, dtype)
    nibbles = torch.empty(2 * codes.numel(), dtype=torch.uint8, device=codes.device)
    nibbles[::2] = codes >> 4
    nibbles[1::2] = codes & 0b1111
    out = torch.zeros(absmax.numel() * block_size + 1, dtype=dtype, device=codes.device)
    out[: nibbles.numel()] = levels[nibbles.long()][: out.numel()]
    out = out[:-1].view(-1, block_size).mul_(absmax.mul_(1.001).to(dtype)[:, None])
    import math

    return out.view(-1)[: math.prod(shape)].reshape(shape)
