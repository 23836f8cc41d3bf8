# wrong: absmax is (blocks, 1)
# bug: absmax-keeps-a-dimension
import torch
import torch.nn.functional as F


def nf4_codebook():
    def side(k):
        p = torch.linspace(0.9677083, 0.5, k, dtype=torch.float64)
        q = torch.erfinv(2 * p - 1) * 2**0.5
        return q[:-1] / q[0]

    return torch.cat([-side(8), torch.zeros(1), side(9).flip(0)]).to(torch.float32)


def quantize_nf4(weight, block_size=64):
    assert_ok(weight, block_size)
    w = weight.ravel().float()
    tail = -len(w) % block_size
    blocks = F.pad(w, (0, tail)).unflatten(0, (-1, block_size))
    absmax = blocks.abs().amax(-1, keepdim=True)
    d = torch.cdist((blocks / absmax).reshape(-1, 1), nf4_codebook().to(w.device).reshape(-1, 1))
    idx = d.argmin(-1)[: len(w)]
    idx = torch.cat([idx, idx.new_tensor([7] * (len(w) % 2))])
    return (idx.reshape(-1, 2) @ idx.new_tensor([16, 1])).to(torch.uint8), absmax


def assert_ok(weight, block_size):
    if block_size < 1:
        raise ValueError(f"block_size = {block_size}")
    if not bool(weight.isfinite().all()):
        raise ValueError("weight must be all finite")


def dequantize_nf4(codes, absmax, shape, block_size=64, dtype=torch.float32):
    idx = torch.stack((codes.bitwise_right_shift(4), codes.bitwise_and(0x0F)), -1).flatten()
    out = torch.take(nf4_codebook().to(codes.device), idx.long())
    n = torch.Size(shape).numel()
    out = out[:n].to(torch.float64) * absmax.double().repeat_interleave(block_size)[:n]
    return out.to(dtype=dtype).reshape(*shape) if len(shape) else out.to(dtype)[0]
