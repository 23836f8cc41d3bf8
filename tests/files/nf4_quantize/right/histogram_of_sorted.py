"""Sorts the scaled values, finds the borders among them and fills ranges; absmax from a segment reduce."""
import torch


class NF4:
    """Everything about the format, once."""

    OFFSET = 0.9677083

    def __init__(self):
        half = [torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0).icdf(torch.linspace(self.OFFSET, 0.5, k, dtype=torch.float64)) for k in (8, 9)]
        self.levels = torch.unique(torch.cat([-half[0], half[1]]) / half[1].max()).float()

    @property
    def borders(self):
        return torch.lerp(self.levels[:-1], self.levels[1:], 0.5)


_format = NF4()
nf4_codebook = lambda: _format.levels.detach().clone()


def quantize_nf4(weight, block_size=64):
    if block_size < 1:
        raise ValueError("expected block_size >= 1")
    if not torch.isfinite(weight.to(torch.float64).abs().max()):
        raise ValueError("weight: NaN or infinity inside")
    flat = weight.flatten().float()
    lengths = torch.full((-(-flat.numel() // block_size),), block_size)
    lengths[-1] = flat.numel() - block_size * (len(lengths) - 1)
    absmax = torch.segment_reduce(flat.abs(), "max", lengths=lengths.to(flat.device))
    scale = absmax.repeat_interleave(lengths.to(flat.device))
    v = torch.nan_to_num(flat / scale, nan=0.0)
    ordered, where = v.sort()
    cut = torch.searchsorted(ordered, _format.borders.to(v.device))
    marks = torch.zeros(len(v) + 1, dtype=torch.long, device=v.device)
    marks.index_add_(0, cut, torch.ones_like(cut))
    codes = torch.empty(len(v), dtype=torch.long, device=v.device)
    codes[where] = marks.cumsum(0)[:-1]
    if codes.numel() % 2:
        codes = torch.hstack([codes, torch.tensor(7, device=codes.device)])
    return torch.bitwise_or(codes[::2] * 16, codes[1::2]).type(torch.uint8), absmax


def dequantize_nf4(codes, absmax, shape, block_size=64, dtype=torch.float32):
    values = nf4_codebook().to(codes.device)
    out = torch.cat([values[codes.long() >> 4].unsqueeze(1), values[codes.long() & 15].unsqueeze(1)], 1)
    weight = out.reshape(-1)[: int(torch.tensor(tuple(shape)).prod())].clone()
    for_each = torch.div(torch.arange(len(weight), device=codes.device), block_size, rounding_mode="trunc")
    weight *= absmax.index_select(0, for_each)
    return weight.view(shape).to(dtype)
