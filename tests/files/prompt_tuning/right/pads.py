# Both are padded with zeros and added; the mask is padded with ones.

import torch
import torch.nn as nn
import torch.nn.functional as F


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
            start = weight[list(init_ids)].detach().clone()
        self.prompt = nn.Parameter(start)

    def forward(self, input_ids, attention_mask=None):
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        B, P = input_ids.shape[0], self.prompt.shape[0]
        tokens = self.embedding(input_ids)
        L = input_ids.shape[1]
        embeds = F.pad(tokens, (0, 0, P, 0)) + F.pad(self.prompt, (0, 0, 0, L))
        mask = F.pad(attention_mask, (P, 0), value=1)
        return embeds, mask
