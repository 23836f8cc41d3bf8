"""What adapters cost at inference: table 1 of the LoRA paper (Hu et al. 2021) on this machine.

    python benchmarks/latency.py [--quick] [--threads N] [--rounds N]

A forward pass of a small stack of transformer layers, as overhead in percent over the stack as it
is: with LoRA on the query and value projections, merged and not, and with serial adapters, one in
each layer (Adapter^L in the paper) or two (Adapter^H). Rank, and bottlenecks relative to the
width, as in the paper, where all adapters together have the same number of parameters.
"""

import argparse
import copy
from collections.abc import Callable
from functools import partial

import torch
from side_by_side import heading, medians, solution, table
from torch import Tensor, nn
from torch.nn import functional as F

SHAPES = ((32, 512), (16, 256), (1, 128))  # batch and sequence
PAPER = {  # overhead in percent at those; the paper measured LoRA merged only
    "LoRA, merged": (0.0, 0.0, 0.0),
    "LoRA, not merged": None,
    "serial adapter, 1 a layer": (2.2, 5.0, 20.7),
    "serial adapter, 2 a layer": (3.0, 8.4, 30.3),
}
RANK = 4


class Attention(nn.Module):
    """Normalised self-attention without the residual: (B, L, d) to (B, L, d)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.heads = d // 64
        self.norm = nn.LayerNorm(d)
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(d, d) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (
            proj(h).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(-2))
        return out


class Residual(nn.Module):
    """x + sublayer(x)."""

    def __init__(self, sublayer: nn.Module) -> None:
        super().__init__()
        self.sublayer = sublayer

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.sublayer(x)
        return out


def base(d: int, layers: int) -> nn.Sequential:
    """Pre-norm layers; attention and feed-forward in turn, each in its residual."""
    torch.manual_seed(0)
    sublayers: list[nn.Module] = []
    for _ in range(layers):
        feed_forward = (nn.LayerNorm(d), nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        sublayers += [Attention(d), nn.Sequential(*feed_forward)]
    return nn.Sequential(*map(Residual, sublayers)).eval()


def with_lora(model: nn.Sequential, merged: bool) -> nn.Sequential:
    """A copy with LoRA on every q_proj and v_proj."""
    model, kata = copy.deepcopy(model), solution("lora_linear")
    for attention in (m for m in model.modules() if isinstance(m, Attention)):
        for name in ("q_proj", "v_proj"):
            layer = kata.LoRALinear(getattr(attention, name), rank=RANK)
            nn.init.normal_(layer.lora_B, std=0.02)
            if merged:
                layer.merge()
            setattr(attention, name, layer)
    return model.eval()


def with_adapters(model: nn.Sequential, each: int, d: int) -> nn.Sequential:
    """A copy with an adapter behind each feed-forward, and with each=2 behind attention too."""
    model = copy.deepcopy(model)
    block, adapter = solution("adapter_block"), solution("bottleneck_adapter")
    bottleneck = round(0.22 * d / each)  # 11 million parameters in 24 layers of width 1024
    for number, residual in enumerate(model):
        if each == 2 or number % 2:
            inside = adapter.BottleneckAdapter(d, bottleneck)
            nn.init.normal_(inside.up_proj.weight, std=0.02)
            model[number] = block.AdapterBlock(residual.sublayer, inside)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="narrower, without the largest batch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    d, layers = (256, 2) if options.quick else (512, 2)
    plain = base(d, layers)
    models: dict[str, Callable[[Tensor], Tensor]] = {
        "base": plain,
        "LoRA, merged": with_lora(plain, merged=True),
        "LoRA, not merged": with_lora(plain, merged=False),
        "serial adapter, 1 a layer": with_adapters(plain, 1, d),
        "serial adapter, 2 a layer": with_adapters(plain, 2, d),
    }
    print(f"{heading(options.rounds)}\n{layers} layers of width {d}, float32\n")
    columns = {}
    for number, shape in enumerate(SHAPES):
        if options.quick and number == 0:
            continue
        x = torch.randn(*shape, d)
        # A short pass is disturbed more: it gets more rounds.
        rounds = options.rounds * (5 if shape[0] == 1 else 1)
        with torch.inference_mode():
            taken = medians({name: partial(model, x) for name, model in models.items()}, rounds)
        columns[number] = {name: 100 * (taken[name] / taken["base"] - 1) for name in models}
    rows = []
    for name, paper in PAPER.items():
        row = [name]
        for number, column in columns.items():
            row += [f"{column[name]:+.1f} %", f"{paper[number]:+.1f} %" if paper else "–"]
        rows.append(row)
    head = ["overhead at batch, sequence"]
    for number in columns:
        head += ["{}, {}".format(*SHAPES[number]), "paper"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
