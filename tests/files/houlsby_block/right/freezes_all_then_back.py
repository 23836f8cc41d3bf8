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
        was = [(p, p.requires_grad) for a in (adapter1, adapter2) for p in a.parameters()]
        self.requires_grad_(False)
        for n in (self.norm2, self.norm1):
            n.requires_grad_(train_norms)
        for p, f in was:
            p.requires_grad_(f)

    def forward(self, x):
        h = x + self.attn(self.norm1(x))
        h = h + self.adapter1.forward_delta(h)
        h = h + self.ffn(self.norm2(h))
        return h + self.adapter2.forward_delta(h)
