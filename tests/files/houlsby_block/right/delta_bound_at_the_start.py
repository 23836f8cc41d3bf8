import torch.nn as nn


class HoulsbyBlock(nn.Module):
    def __init__(self, attn, ffn, norm1, norm2, adapter1, adapter2, train_norms=False):
        super().__init__()
        self.attn = attn.requires_grad_(False)
        self.ffn = ffn.requires_grad_(False)
        self.norm1 = norm1.requires_grad_(train_norms)
        self.norm2 = norm2.requires_grad_(train_norms)
        self.adapter1 = adapter1
        self.adapter2 = adapter2
        self.deltas = adapter1.forward_delta, adapter2.forward_delta

    def forward(self, x):
        first, second = self.deltas
        h = x + self.attn(self.norm1(x))
        k = h + first(h) + 0.0
        k = self.ffn(self.norm2(k)) + k
        return second(k) + k
