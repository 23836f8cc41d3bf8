"""LoRA's figure 3 in small: do adapters of rank 8 and rank 64 find the same directions?

    python benchmarks/subspace.py [FILE.svg]

A one-block transformer learns to look up the value of a key among pairs. Then the rules change
for a few keys and values, and LoRA (the `lora_linear` solution) is trained on W_q and W_v, once
at rank 8 and once at rank 64, from other starting values. Drawn is
phi(A_r8, A_r64, i, j) of the `subspace_similarity` solution: how much of the top i directions of
the one lies in the top j of the other; below it the same for two Gaussian matrices. Half a minute
of one core; a seed gives the same picture again.
"""

import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from side_by_side import solution
from torch import Tensor, nn

WIDTH, SYMBOLS, PAIRS, CHANGED, BATCH = 256, 32, 8, 4, 128
LOW, HIGH = 8, 64
PICTURE = Path(__file__).with_name("subspace.svg")
Rules = tuple[Tensor, Tensor]


class Lookup(nn.Module):
    """Attention from a query key to PAIRS of a key and a value, and an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.value = nn.Embedding(SYMBOLS, WIDTH), nn.Embedding(SYMBOLS, WIDTH)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.mlp = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
        self.head = nn.Linear(WIDTH, SYMBOLS)

    def forward(self, keys: Tensor, values: Tensor, asked: Tensor) -> Tensor:
        pairs = self.norm1(self.key(keys) + self.value(values))  # (N, PAIRS, WIDTH)
        query = self.key(asked)[:, None]  # (N, 1, WIDTH)
        found = F.scaled_dot_product_attention(
            self.q(self.norm1(query)), self.k(pairs), self.v(pairs)
        )
        h = query + self.o(found)
        h = h + self.mlp(self.norm2(h))
        logits: Tensor = self.head(h[:, 0])
        return logits


def batch(rules: Rules, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs, the key asked for, and the answer. rules: what each key asks for, and what each value
    is called."""
    meant, called = rules
    keys = torch.rand(BATCH, SYMBOLS, generator=draw).argsort(1)[:, :PAIRS]
    values = torch.randint(SYMBOLS, (BATCH, PAIRS), generator=draw)
    at = torch.randint(PAIRS, (BATCH,), generator=draw)
    row = torch.arange(BATCH)
    asked = meant.argsort()[keys[row, at]]
    return keys, values, asked, called[values[row, at]]


def train(model: Lookup, rules: Rules, steps: int, lr: float, seed: int) -> float:
    """Adam on what trains; the share of right answers over the last 20 batches."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr)
    draw, right = torch.Generator().manual_seed(seed), []
    for _ in range(steps):
        *given, answer = batch(rules, draw)
        logits = model(*given)
        optimizer.zero_grad()
        F.cross_entropy(logits, answer).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        right.append(float((logits.argmax(-1) == answer).float().mean()))
    return sum(right[-20:]) / 20


def changed() -> Tensor:
    """The first few symbols take each other's place, the others keep theirs."""
    return torch.cat([torch.arange(CHANGED).roll(1), torch.arange(CHANGED, SYMBOLS)])


def adapted(state: dict[str, Tensor], rank: int, seed: int) -> tuple[Lookup, float]:
    """The model with LoRA of this rank on W_q and W_v, trained on the changed rules."""
    torch.manual_seed(seed)
    model = Lookup().requires_grad_(False)
    model.load_state_dict(state)
    layer = solution("lora_linear").LoRALinear
    model.q, model.v = (layer(m, rank=rank, alpha=rank) for m in (model.q, model.v))
    return model, train(model, (changed(), changed()), 400, 2e-3, seed)


# Drawing: paths of one colour each, in a file that needs nothing but a browser

_CELL, _LEFT, _TOP, _LEVELS = 10, 70, 64, 32
_DARK, _LIGHT = (8, 48, 107), (247, 251, 255)


def _colour(level: int) -> str:
    share = level / _LEVELS
    mixed = (round(low + (high - low) * share) for low, high in zip(_LIGHT, _DARK))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _cells(phi: Callable[[int, int], float], top: int) -> list[str]:
    """i downwards from 1 to LOW, j to the right from 1 to HIGH."""
    paths: dict[int, list[str]] = {}
    for i, j in product(range(1, LOW + 1), range(1, HIGH + 1)):
        x, y = _LEFT + (j - 1) * _CELL, top + (i - 1) * _CELL
        paths.setdefault(round(phi(i, j) * _LEVELS), []).append(f"M{x} {y}h10v10h-10z")
    return [f'<path fill="{_colour(n)}" d="{"".join(d)}"/>' for n, d in sorted(paths.items())]


def _text(x: int, y: int, words: str, more: str = "") -> str:
    return f'<text x="{x}" y="{y}"{more}>{words}</text>'


def picture(panels: Sequence[tuple[str, Callable[[int, int], float]]]) -> str:
    """One heat map under the other, and a bar of the colours."""
    right, step = _LEFT + HIGH * _CELL, LOW * _CELL + 48
    height = _TOP + len(panels) * step + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right + 90} {height}" '
        'font-family="sans-serif" font-size="12" fill="#222" shape-rendering="crispEdges">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        _text(_LEFT, 24, f"phi(A_r{LOW}, A_r{HIGH}, i, j)", ' font-size="16"'),
    ]
    for n, (title, phi) in enumerate(panels):
        top = _TOP + n * step
        parts += [_text(_LEFT, top - 8, title), *_cells(phi, top)]
        for i in (1, LOW):
            y = top + i * _CELL - 1
            parts.append(_text(_LEFT - 8, y, f"i = {i}", ' text-anchor="end"'))
        for j in (1, 8, 16, 32, 48, 64):
            x = _LEFT + j * _CELL - _CELL // 2
            words = f"j = {j}" if j == 1 else str(j)
            parts.append(_text(x, top + LOW * _CELL + 14, words, ' text-anchor="middle"'))
    tall = LOW * _CELL // _LEVELS * _LEVELS
    for level in range(_LEVELS + 1):
        y = _TOP + tall - level * tall // _LEVELS
        parts.append(
            f'<rect x="{right + 20}" y="{y}" width="14" height="3" fill="{_colour(level)}"/>'
        )
    parts += [_text(right + 40, _TOP + 8, "1"), _text(right + 40, _TOP + tall + 4, "0")]
    return "\n".join([*parts, "</svg>\n"])


def _strengths(A: Tensor) -> str:
    return " ".join(f"{float(s):.2f}" for s in torch.linalg.svdvals(A.detach())[:LOW])


def main(file: Path) -> None:
    torch.set_num_threads(1)
    measure = solution("subspace_similarity")
    torch.manual_seed(0)
    model = Lookup()
    same = torch.arange(SYMBOLS)
    print(f"first rules: {train(model, (same, same), 1000, 1e-3, 0):.1%} right")
    state = model.state_dict()
    low, right_low = adapted(state, LOW, 1)
    high, right_high = adapted(state, HIGH, 2)
    print(f"changed rules: {right_low:.1%} at rank {LOW}, {right_high:.1%} at rank {HIGH}")
    layers: tuple[tuple[str, Any, Any], ...] = ("W_q", low.q, high.q), ("W_v", low.v, high.v)
    panels: list[tuple[str, Tensor, Tensor]] = []
    for name, one, other in layers:
        panels.append((name, one.lora_A, other.lora_A))
        W, B, A = one.base.weight, one.lora_B, one.lora_A
        print(f"{name}: amplification {measure.amplification(W, B, A):.1f} at rank {LOW}")
    random = torch.Generator().manual_seed(3)
    noise = [torch.randn(r, WIDTH, generator=random) for r in (LOW, HIGH)]
    panels.append(("two Gaussian matrices of these shapes", noise[0], noise[1]))

    def similarity(A1: Tensor, A2: Tensor) -> Callable[[int, int], float]:
        return lambda i, j: float(measure.phi(A1, A2, i, j))

    for title, A1, A2 in panels:
        phi = similarity(A1, A2)
        print(f"{title}: phi(i, i)", *(f"{phi(i, i):.2f}" for i in range(1, LOW + 1)))
        print("    strengths", *(_strengths(A) for A in (A1, A2)), sep=" | ")
    file.write_text(picture([(title, similarity(A1, A2)) for title, A1, A2 in panels]))
    print(f"drawn: {file}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE)
