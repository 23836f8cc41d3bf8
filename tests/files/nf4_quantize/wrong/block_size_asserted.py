# wrong: block_size is checked by assert
# bug: other-exception
import torch

NF4 = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])


def nf4_codebook():
    return NF4.clone()


def quantize_nf4(weight, block_size=64):
    assert block_size >= 1, "block_size must be positive"
    if not weight.isfinite().all():
        raise ValueError("weight holds values that are not finite")
    flat = weight.detach().reshape(-1).to(torch.float32)
    n = flat.numel()
    n_blocks = (n + block_size - 1) // block_size
    padded = flat.new_zeros(n_blocks * block_size)
    padded[:n] = flat
    blocks = padded.reshape(n_blocks, block_size)
    absmax = blocks.abs().max(dim=1).values
    safe = torch.where(absmax > 0, absmax, torch.ones_like(absmax))
    scaled = (blocks / safe[:, None]).reshape(-1)[:n]
    idx = (scaled[:, None] - NF4.to(flat.device)[None, :]).abs().argmin(dim=1).to(torch.uint8)
    if n % 2 == 1:
        idx = torch.cat([idx, idx.new_full((1,), 7)])
    return (idx[0::2] << 4) + idx[1::2], absmax


def dequantize_nf4(codes, absmax, shape, block_size=64, dtype=torch.float32):
    n = 1
    for s in shape:
        n *= s
    out = torch.empty(codes.numel() * 2, dtype=torch.long, device=codes.device)
    out[0::2] = codes // 16
    out[1::2] = codes % 16
    values = NF4.to(codes.device)[out[:n]]
    block = torch.arange(n, device=codes.device) // block_size
    return (values * absmax[block]).reshape(shape).to(dtype)
