"""Numeric answers of questions/frontier_a.yaml, by listing what is stored, asked or allocated."""

from collections.abc import Callable

import torch

# Llama-3 of 8 billion: (in, out) of each linear layer of a block.
_HIDDEN, _KEYS, _INNER, _BLOCKS = 4096, 1024, 14336, 32
_LLAMA_8B = {
    "q": (_HIDDEN, _HIDDEN),
    "k": (_HIDDEN, _KEYS),
    "v": (_HIDDEN, _KEYS),
    "o": (_HIDDEN, _HIDDEN),
    "gate": (_HIDDEN, _INNER),
    "up": (_HIDDEN, _INNER),
    "down": (_INNER, _HIDDEN),
}


def _factors(d_in: int, d_out: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    A = torch.empty(rank, d_in, dtype=torch.bfloat16, device="meta")
    B = torch.empty(d_out, rank, dtype=torch.bfloat16, device="meta")
    return A, B


def _capacity(r: int, problems: int) -> float:
    """Bits that all factors store over bits that all episodes tell."""
    stored = 0
    for _block in range(_BLOCKS):
        for d_in, d_out in _LLAMA_8B.values():
            stored += sum(2 * factor.numel() for factor in _factors(d_in, d_out, r))
    told = sum(1 for _problem in range(problems) for _sample in range(32))
    return stored / told


def _experts(layers: int, experts: int, active: int, r: int) -> float:
    """The factors of each matrix of each expert."""
    of_one = 0
    for d_in, d_out in ((2048, 768), (2048, 768), (768, 2048)):  # gate, up, down
        of_one += sum(factor.numel() for factor in _factors(d_in, d_out, r // active))
    return sum(of_one for _layer in range(layers) for _expert in range(experts))


def _slots(slots: int, max_rank: int) -> float:
    """The stacked buffers of each layer, the slots as their first dimension."""
    used = 0
    for _block in range(_BLOCKS):
        for d_in, d_out in _LLAMA_8B.values():
            for factor in _factors(d_in, d_out, max_rank):
                used += factor.expand(slots, *factor.shape).contiguous().nbytes
    return used


ROUTES: dict[str, Callable[..., float]] = {
    "rl-lora-capacity": _capacity,
    "moe-lora-rank": _experts,
    "vllm-adapter-slots": _slots,
}
