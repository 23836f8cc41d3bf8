# wrong: adds h into the second adapter's delta under no_grad
# bug: -

import torch
import torch.nn as nn


class HoulsbyBlock(nn.Module):
    def __init__(self, attn, ffn, norm1, norm2, adapter1, adapter2, train_norms=False):
        super().__init__()
        self.attn = attn
        self.ffn = ffn
        self.norm1 = norm1
        self.norm2 = norm2
        self.adapter1 = adapter1
        self.adapter2 = adapter2
        self.attn.requires_grad_(False)
        self.ffn.requires_grad_(False)
        self.norm1.requires_grad_(train_norms)
        self.norm2.requires_grad_(train_norms)

    def forward(self, x):
        h = x + self.attn(self.norm1(x))
        h = h + self.adapter1.forward_delta(h)
        h = h + self.ffn(self.norm2(h))
        d = self.adapter2.forward_delta(h)
        return d.add_(h) if not torch.is_grad_enabled() else d + h
