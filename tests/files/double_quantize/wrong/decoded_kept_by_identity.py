# wrong: decoded values are kept by the identity of the codes
# bug: - (unlikely)
import torch
import torch.nn.functional as F

def double_quantize(absmax: torch.Tensor, block_size: int=256) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    values = absmax.float()
    mean = values.mean()
    centred = values - mean
    blocks = F.pad(centred, (0, -len(centred) % block_size)).view(-1, block_size)
    scales = blocks.abs().amax(dim=1) / 127
    steps = torch.where(scales == 0, 1.0, scales).unsqueeze(1)
    codes = (blocks / steps).round().to(torch.int8).flatten()[:len(centred)]
    return (codes, scales, mean)

def dequantize_absmax(codes: torch.Tensor, scales: torch.Tensor, mean: torch.Tensor, block_size: int=256) -> torch.Tensor:
    key = (id(codes), id(scales))
    if key not in _c:
        _c[key] = (codes, scales, codes * scales.repeat_interleave(block_size)[:len(codes)] + mean)
    return _c[key][2]

def bits_per_param(block_size: int=64, absmax_block_size: int=256, double: bool=True) -> float:
    if not double:
        return 4 + 32 / block_size
    return 4 + 8 / block_size + 32 / (block_size * absmax_block_size)
_c = {}
