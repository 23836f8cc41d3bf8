"""Batches in which every row has its own LoRA adapter: the `multi_lora_batch` solution against a
loop over the rows and against PEFT's mixed batch (`adapter_names`), on the same weights.

    python benchmarks/multi_lora.py [--quick] [--threads N] [--rounds N] [--tokens L] [--width D]

Forward passes of one layer, without gradients. The costs are multiples of what the frozen layer
alone takes for the same batch, so they show how the adapters' share grows; the last column is the
time of PEFT over the solution's, above 1 the solution is quicker. Rows draw their adapters at
random, so a batch holds at most min(rows, adapters) of them.
"""

import argparse
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import torch
from side_by_side import heading, medians, optional, solution, table
from torch import Tensor, nn
from torch.nn import functional as F

ROWS = (1, 8, 32, 128)
ADAPTERS = (2, 8, 64)
RANK, ALPHA = 8, 16.0

Layer = Callable[[Tensor, Tensor], Tensor]


def ours(adapters: int, width: int) -> Any:
    """The solution's layer with random factors."""
    torch.manual_seed(0)
    base = nn.Linear(width, width)
    layer = solution("multi_lora_batch").MultiLoRALinear(base, adapters, RANK, ALPHA)
    nn.init.normal_(layer.lora_B, std=0.02)
    return layer.eval()


def row_loop(layer: Any) -> Layer:
    """One adapter after the other, row by row; the base product is that of the whole batch."""
    base, lora_A, lora_B, scale = layer.base, layer.lora_A, layer.lora_B, layer.scale

    def forward(x: Tensor, ids: Tensor) -> Tensor:
        y: Tensor = base(x)
        for row, adapter in enumerate(ids.tolist()):
            y[row] += scale * F.linear(F.linear(x[row], lora_A[adapter]), lora_B[adapter])
        return y

    return forward


def peft_layer(layer: Any, peft: ModuleType) -> Any:
    """PEFT's layer with the same base and factors; adapter k is named "k"."""
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["0"])
    model = peft.PeftModel(nn.Sequential(layer.base), config, adapter_name="0")
    for adapter in range(1, len(layer.lora_A)):
        model.add_adapter(str(adapter), config)
    theirs = model.base_model.model[0].eval()
    with torch.no_grad():
        for adapter, (down, up) in enumerate(zip(layer.lora_A, layer.lora_B)):
            theirs.lora_A[str(adapter)].weight.copy_(down)
            theirs.lora_B[str(adapter)].weight.copy_(up)
    return theirs


def measure(layer: Any, theirs: Any, shape: tuple[int, int], rounds: int) -> dict[str, float]:
    """Median seconds of each contestant for one batch of (rows, tokens)."""
    torch.manual_seed(shape[0])
    x = torch.randn(*shape, layer.base.in_features)
    ids = torch.randint(0, len(layer.lora_A), shape[:1])
    calls = {
        "base": partial(layer.base, x),
        "ours": partial(layer, x, ids),
        "loop": partial(row_loop(layer), x, ids),
    }
    if theirs is not None:
        names = [str(adapter) for adapter in ids.tolist()]
        calls["peft"] = partial(theirs, x, adapter_names=names)
    outputs = [calls[name]() for name in calls if name != "base"]
    for output in outputs:
        torch.testing.assert_close(output, outputs[0])
    return medians(calls, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave the larger batches out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=1, help="tokens of each row")
    parser.add_argument("--width", type=int, default=1024, help="features in and out")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    peft = optional("peft")
    version = f"peft {peft.__version__}, " if peft else ""
    print(f"{version}{heading(options.rounds)}")
    print(f"width {options.width}, rank {RANK}, {options.tokens} token(s) a row, float32\n")
    rows = []
    for adapters in ADAPTERS:
        layer = ours(adapters, options.width)
        theirs = peft_layer(layer, peft) if peft else None
        for batch in ROWS[:2] if options.quick else ROWS:
            with torch.no_grad():
                taken = measure(layer, theirs, (batch, options.tokens), options.rounds)
            costs = [taken[n] / taken["base"] if n in taken else None for n in ("ours", "loop")]
            costs.append(taken["peft"] / taken["base"] if theirs else None)
            gain = f"{taken['peft'] / taken['ours']:.2f}" if theirs else ""
            cells = [f"{cost:.2f}" if cost else "" for cost in costs]
            rows.append([str(batch), str(adapters), *cells, gain])
    print(table(["rows", "adapters", "solution", "row loop", "PEFT", "PEFT / solution"], rows))


if __name__ == "__main__":
    main()
