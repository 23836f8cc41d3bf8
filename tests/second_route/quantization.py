"""Numeric answers of questions/quantization.yaml, by storing a tensor and counting."""

from collections.abc import Callable

import torch


def _double_quantized_bits(block: int, outer: int) -> float:
    """Bits of all but the codes that is stored for a weight of whole blocks, over its values."""
    values = 3 * block * outer
    scales = torch.empty(len(torch.arange(0, values, block)), dtype=torch.int8, device="meta")
    constants = torch.empty(len(torch.arange(0, len(scales), outer)), device="meta")
    stored = sum(t.numel() * t.element_size() for t in (scales, constants))
    return stored * 8 / values


def _paged_state_bytes(r: int, state_bits: int) -> float:
    """The factors of every block on meta, and two moments of each."""
    d, d_ff = 8192, 22016
    linears = [(d, d)] * 4 + [(d, d_ff)] * 2 + [(d_ff, d)]  # q k v o, gate up, down
    dtype = {8: torch.uint8, 32: torch.float32}[state_bits]
    total = 0
    for _ in range(80):
        for d_in, d_out in linears:
            for shape in ((r, d_in), (d_out, r)):
                for _moment in ("first", "second"):
                    state = torch.empty(shape, dtype=dtype, device="meta")
                    total += state.numel() * state.element_size()
    return total


ROUTES: dict[str, Callable[..., float]] = {
    "double-quantization-bits": _double_quantized_bits,
    "paged-optimizer-state": _paged_state_bytes,
}
