"""Numeric answers of questions/frontier_b.yaml, by counting FLOPs, messages and modules."""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def _prefill_ms(context: int, skills: int) -> float:
    """PyTorch's own count of a forward pass on meta, once for each skill."""
    with torch.device("meta"):
        weights = nn.Linear(69_800, 100_000, bias=False)
        tokens = torch.empty(context, 69_800)
    with FlopCounterMode(display=False) as counter:
        for _skill in range(skills):
            weights(tokens)
    return float(counter.get_total_flops() / 400e12 * 1000)


def _sent_in_a_gather(gpus: int, size: int) -> int:
    """What one GPU sends in a ring: its own share first, then what came in, until all have all."""
    sent, held = 0, 1
    while held < gpus:
        sent += size // gpus
        held += 1
    return sent


def _sent_in_a_reduce(gpus: int, size: int) -> int:
    """A reduce-scatter sends one share in each step, a gather spreads the sums."""
    scattered = sum(size // gpus for _step in range(gpus - 1))
    return scattered + _sent_in_a_gather(gpus, size)


def _times_fewer(n: int, h: int, r: int) -> float:
    """The messages of a block of 1,000 tokens."""
    tokens = 1000
    base = _sent_in_a_reduce(n, tokens * h)
    lora = sum(_sent_in_a_gather(n, tokens * r) for _projection in "qkv")
    lora += _sent_in_a_reduce(n, tokens * r)
    return base / lora


def _convolution_parameters(r: int, c_in: int, c_out: int, k: int) -> float:
    """Both factors as convolutions on meta, which must be able to run one after the other."""
    with torch.device("meta"):
        A = nn.Conv2d(c_in, r, k, stride=2, padding=1, bias=False)
        B = nn.Conv2d(r, c_out, 1, bias=False)
        image = torch.empty(1, c_in, 32, 32)
        whole = nn.Conv2d(c_in, c_out, k, stride=2, padding=1, bias=False)
    assert B(A(image)).shape == whole(image).shape
    return sum(p.numel() for module in (A, B) for p in module.parameters())


ROUTES: dict[str, Callable[..., float]] = {
    "alora-and-prefix-cache": _prefill_ms,
    "tensor-parallel-lora": _times_fewer,
    "lora-beyond-linear": _convolution_parameters,
}
