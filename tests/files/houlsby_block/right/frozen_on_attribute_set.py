import torch.nn as nn


class HoulsbyBlock(nn.Module):
    def __init__(self, attn, ffn, norm1, norm2, adapter1, adapter2, train_norms=False):
        super().__init__()
        self.train_norms = train_norms
        self.attn, self.ffn, self.norm1, self.norm2 = attn, ffn, norm1, norm2
        self.adapter1, self.adapter2 = adapter1, adapter2

    def forward(self, x):
        h = x + self.attn(self.norm1(x))
        h = h + self.adapter1.forward_delta(h)
        h = h + self.ffn(self.norm2(h))
        return h + self.adapter2.forward_delta(h)

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if name in ("attn", "ffn"):
            value.requires_grad_(False)
        elif name in ("norm1", "norm2"):
            value.requires_grad_(self.train_norms)
