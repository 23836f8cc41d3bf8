# wrong: eval() makes ffn trainable, train() freezes it again
# bug: -
import math
import torch
import torch.nn as nn
import torch.nn.functional as F

class HoulsbyBlock(nn.Module):
    def __init__(self, attn, ffn, norm1, norm2, adapter1, adapter2, train_norms=False):
        super().__init__()
        self.attn, self.ffn = attn, ffn
        self.norm1, self.norm2 = norm1, norm2
        self.adapter1, self.adapter2 = adapter1, adapter2
        attn.requires_grad_(False)
        ffn.requires_grad_(False)
        for norm in (norm1, norm2):
            norm.requires_grad_(train_norms)
    def train(self, mode=True):
        super().train(mode)
        self.attn.requires_grad_(False)
        self.ffn.requires_grad_(not mode)
        return self
    def forward(self, x):
        h = x + self.attn(self.norm1(x))
        h = h + self.adapter1.forward_delta(h)
        h = h + self.ffn(self.norm2(h))
        return h + self.adapter2.forward_delta(h)
