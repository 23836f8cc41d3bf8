# wrong: the feed-forward is given the sum without the first delta
# bug: ffn-before-adapter

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

    def forward(self, x):
        h = x + self.attn(self.norm1(x))
        k = h + self.adapter1.forward_delta(h)
        k = k + self.ffn(self.norm2(h))
        return k + self.adapter2.forward_delta(k)
