"""Works through large weights in pieces, to spare memory; the pieces are large."""
import math
import torch

_PIECE = 1 << 14


def nf4_codebook():
    probs = torch.linspace(0.9677083, 0.5, 9, dtype=torch.double), torch.linspace(0.9677083, 0.5, 8, dtype=torch.double)
    up, down = (torch.special.ndtri(p) for p in probs)
    levels = torch.empty(16)
    levels[8:] = (up[:8] / up[0]).flip(0)
    levels[7] = 0
    levels[:7] = -down[:7] / down[0]
    return levels


def quantize_nf4(weight, block_size=64):
    if block_size < 1:
        raise ValueError("block_size < 1")
    if (weight - weight).ne(0).any():  # inf - inf and nan - nan are NaN
        raise ValueError("weight has inf or nan")
    flat = weight.reshape(-1)
    blocks_at_once = max(1, _PIECE // block_size)
    codes, tops = [], []
    table = nf4_codebook().to(weight.device)
    edges = torch.nextafter((table[1:] + table[:-1]) / 2, table[1:])
    for piece in flat.split(blocks_at_once * block_size):
        piece = piece.float()
        whole = torch.zeros(math.ceil(len(piece) / block_size), block_size, device=piece.device)
        whole.view(-1)[: len(piece)] = piece
        top = whole.abs().max(1, keepdim=True)[0]
        inverse = torch.where(top == 0, 0, 1 / top.double())
        v = (whole * inverse).float().view(-1)[: len(piece)]
        codes.append(torch.searchsorted(edges, v, right=True))
        tops.append(top[:, 0])
    codes = torch.cat(codes)
    packed = torch.full((math.ceil(len(codes) / 2), 2), 7, dtype=torch.uint8, device=codes.device)
    packed.view(-1)[: len(codes)] = codes.to(torch.uint8)
    return packed[:, 0] * 16 | packed[:, 1], torch.cat(tops)


def dequantize_nf4(codes, absmax, shape, block_size=64, dtype=torch.float32):
    n = math.prod(shape)
    wide = torch.stack([codes.to(torch.int32) // 16, codes.to(torch.int32) % 16], -1).view(-1)[:n]
    levels = torch.nn.functional.embedding(wide, nf4_codebook().to(codes.device)[:, None])[:, 0]
    scale = absmax[:, None].expand(-1, block_size).reshape(-1)[:n]
    return torch.mul(levels, scale).to(dtype).reshape(shape)
