# Scatter of the mask.
from collections.abc import Sequence
import torch
import torch.nn as nn
import torch.nn.functional as F

class PromptTuning(nn.Module):
    def __init__(self, embedding: nn.Embedding, num_tokens: int, init_ids: Sequence[int] | None = None) -> None:
        if num_tokens < 1:
            raise ValueError(f"num_tokens must be at least 1, got {num_tokens}")
        if init_ids is not None and len(init_ids) != num_tokens:
            raise ValueError(f"init_ids has {len(init_ids)} ids for num_tokens={num_tokens}")
        super().__init__()
        weight = embedding.weight
        self.embedding = embedding
        embedding.weight.requires_grad_(False)
        if init_ids is None:
            start = torch.randn(num_tokens, weight.shape[1], dtype=weight.dtype, device=weight.device) * 0.02
        else:
            start = weight.detach()[list(init_ids)].clone()
        self.prompt = nn.Parameter(start)

    def forward(self, input_ids, attention_mask=None):
        B, L = input_ids.shape
        P = self.prompt.shape[0]
        tokens = self.embedding(input_ids)
        prompt = self.prompt.unsqueeze(0).expand(B, -1, -1)
        embeds = torch.cat([prompt, tokens], dim=1)
        if attention_mask is None:
            mask = torch.ones(B, P + L, dtype=torch.int64, device=input_ids.device)
        else:
            mask = torch.ones((B, P + L), dtype=attention_mask.dtype, device=attention_mask.device).scatter(1, torch.arange(P, P + L, device=attention_mask.device).expand(B, L), attention_mask)
        return embeds, mask
