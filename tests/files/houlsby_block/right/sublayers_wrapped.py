import torch.nn as nn


class Half(nn.Module):
    def __init__(self, sub, norm, adapter):
        super().__init__()
        self.sub, self.norm, self.adapter = sub, norm, adapter

    def forward(self, x):
        h = x + self.sub(self.norm(x))
        return self.adapter.forward_delta(h) + h


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
        self.halves = nn.Sequential(Half(attn, norm1, adapter1), Half(ffn, norm2, adapter2))

    def forward(self, x):
        return self.halves(x)
