"""A small transformer for tests, and the reference solutions as modules."""

import importlib.util
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from grader import content


def solution(slug: str) -> Any:
    """A fresh module of the kata's reference solution."""
    spec = importlib.util.spec_from_file_location(f"solution_{slug}", content.solution(slug))
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Block(nn.Module):
    """Pre-norm self-attention and feed-forward, all of it in plain nn.Linear layers."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(d, d) for _ in range(4))
        self.up, self.down = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)

    def forward(self, x: Tensor) -> Tensor:
        B, L, d = x.shape
        h = self.norm1(x)
        q, k, v = (
            proj(h).view(B, L, self.heads, d // self.heads).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.o_proj(mixed.transpose(1, 2).reshape(B, L, d))
        out: Tensor = x + self.down(nn.functional.gelu(self.up(self.norm2(x))))
        return out


class Encoder(nn.Module):
    """Tokens (B, L) to class logits (B, classes): embeddings, blocks, mean, head."""

    def __init__(
        self, vocabulary: int = 11, d: int = 16, layers: int = 2, classes: int = 3
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, d)
        self.blocks = nn.ModuleList([Block(d, heads=2) for _ in range(layers)])
        self.head = nn.Linear(d, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x.mean(1))
        return logits


def toy_task(rows: int = 64) -> tuple[Tensor, Tensor]:
    """Sequences of 6 tokens, labelled by their first token modulo 3."""
    tokens = torch.randint(0, 11, (rows, 6))
    return tokens, tokens[:, 0] % 3
