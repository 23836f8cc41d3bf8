# wrong: the first rows of the table, whatever init_ids says
# bug: -

import torch
import torch.nn as nn


class PromptTuning(nn.Module):
    def __init__(self, embedding, num_tokens, init_ids=None):
        super().__init__()
        if num_tokens < 1:
            raise ValueError(f"num_tokens must be at least 1, not {num_tokens}")
        if init_ids is not None and len(init_ids) != num_tokens:
            raise ValueError(f"init_ids has {len(init_ids)} ids, num_tokens is {num_tokens}")
        self.embedding = embedding.requires_grad_(False)
        weight = embedding.weight
        if init_ids is None:
            start = torch.randn_like(weight[:1].expand(num_tokens, -1)) * 0.02
        else:
            start = weight[:num_tokens].clone()
        self.prompt = nn.Parameter(start)

    def forward(self, input_ids, attention_mask=None):
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        B, P = input_ids.shape[0], self.prompt.shape[0]
        tokens = self.embedding(input_ids)
        prompt = self.prompt.expand(B, -1, -1)
        embeds = torch.cat([prompt, tokens], dim=1)
        mask = torch.cat([attention_mask.new_ones(B, P), attention_mask], dim=1)
        return embeds, mask
