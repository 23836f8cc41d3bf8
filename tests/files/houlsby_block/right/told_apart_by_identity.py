import torch.nn as nn


class HoulsbyBlock(nn.Module):
    def __init__(self, attn, ffn, norm1, norm2, adapter1, adapter2, train_norms=False):
        super().__init__()
        self.attn, self.ffn, self.norm1, self.norm2 = attn, ffn, norm1, norm2
        self.adapter1, self.adapter2 = adapter1, adapter2
        learned = {id(p) for a in (adapter1, adapter2) for p in a.parameters()}
        norms = {id(p) for n in (norm1, norm2) for p in n.parameters()}
        for p in self.parameters():
            if id(p) not in learned:
                p.requires_grad_(train_norms and id(p) in norms)

    def forward(self, x):
        h = x + self.attn(self.norm1(x))
        h = h + self.adapter1.forward_delta(h)
        h = h + self.ffn(self.norm2(h))
        return h + self.adapter2.forward_delta(h)
