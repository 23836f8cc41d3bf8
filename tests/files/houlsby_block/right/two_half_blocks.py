import torch.nn as nn


class Half(nn.Module):
    def __init__(self, sublayer, norm, adapter):
        super().__init__()
        self.sublayer, self.norm, self.adapter = sublayer.requires_grad_(False), norm, adapter

    def forward(self, x):
        h = x + self.sublayer(self.norm(x))
        return h + self.adapter.forward_delta(h)


class HoulsbyBlock(nn.Module):
    def __init__(self, attn, ffn, norm1, norm2, adapter1, adapter2, train_norms=False):
        super().__init__()
        self.attn = attn.requires_grad_(False)
        self.ffn = ffn.requires_grad_(False)
        self.norm1 = norm1.requires_grad_(train_norms)
        self.norm2 = norm2.requires_grad_(train_norms)
        self.adapter1 = adapter1
        self.adapter2 = adapter2
        self.halves = nn.Sequential(Half(attn, norm1, adapter1), Half(ffn, norm2, adapter2))

    def forward(self, x):
        return self.halves(x)
