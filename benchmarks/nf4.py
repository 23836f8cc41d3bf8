"""NF4 quantise and dequantise of the `nf4_quantize` solution against bitsandbytes on the CPU.

    python benchmarks/nf4.py [--quick] [--threads N] [--rounds N]

Ratios of time, ours / theirs, on the same weight in the same run; below 1 ours is quicker.
"""

import argparse
from functools import partial
from typing import Any

import torch
from side_by_side import heading, medians, optional, solution, table

SHAPES = ((256, 256), (1024, 1024), (4096, 4096), (4096, 11008))
BLOCK = 64
AIMS = {"quantise": 1.0, "dequantise": 3.0}


def ratios(shape: tuple[int, int], dtype: torch.dtype, rounds: int, theirs: Any) -> list[float]:
    """Ours / theirs for quantising and for dequantising one weight."""
    ours = solution("nf4_quantize")
    torch.manual_seed(0)
    weight = (0.02 * torch.randn(shape)).to(dtype)
    quantise = {
        "ours": partial(ours.quantize_nf4, weight, BLOCK),
        "theirs": partial(theirs.quantize_4bit, weight, blocksize=BLOCK, quant_type="nf4"),
    }
    codes, absmax = quantise["ours"]()
    packed, state = quantise["theirs"]()
    dequantise = {
        "ours": partial(ours.dequantize_nf4, codes, absmax, shape, BLOCK, dtype),
        "theirs": partial(theirs.dequantize_4bit, packed, state),
    }
    taken = [medians(calls, rounds) for calls in (quantise, dequantise)]
    return [seconds["ours"] / seconds["theirs"] for seconds in taken]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave the largest weight out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    bnb = optional("bitsandbytes")
    if bnb is None:
        return
    torch.set_num_threads(options.threads)
    print(f"bitsandbytes {bnb.__version__}, {heading(options.rounds)}\n")
    rows = []
    for shape in SHAPES[:-1] if options.quick else SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            found = ratios(shape, dtype, options.rounds, bnb.functional)
            words = ["ok" if r <= aim else "missed" for r, aim in zip(found, AIMS.values())]
            cells = [f"{r:.2f} {word}" for r, word in zip(found, words)]
            rows.append([f"{shape[0]} × {shape[1]}", str(dtype)[6:], *cells])
    aims = [f"{what}, aim {aim}" for what, aim in AIMS.items()]
    print(table(["weight", "dtype", *aims], rows))


if __name__ == "__main__":
    main()
