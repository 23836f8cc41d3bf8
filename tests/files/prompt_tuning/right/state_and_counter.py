# A counter in a buffer, extra state, a helper that counts tokens, and frozen again at each train().

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
            start = weight[list(init_ids)].detach().clone()
        self.prompt = nn.Parameter(start)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long), persistent=False)

    def train(self, mode=True):
        super().train(mode)
        self.embedding.weight.requires_grad = False
        return self

    def get_extra_state(self):
        return {"num_tokens": self.num_tokens}

    def set_extra_state(self, state):
        assert state["num_tokens"] == self.num_tokens

    @property
    def num_tokens(self):
        return len(self.prompt)

    def forward(self, input_ids, attention_mask=None):
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        B, P = input_ids.shape[0], self.prompt.shape[0]
        tokens = self.embedding(input_ids)
        prompt = self.prompt.expand(B, -1, -1)
        embeds = torch.cat([prompt, tokens], dim=1)
        mask = torch.cat([attention_mask.new_ones(B, P), attention_mask], dim=1)
        self.calls += 1
        return embeds, mask
