import torch.nn as nn


class HoulsbyBlock(nn.Module):
    def __init__(self, attn, ffn, norm1, norm2, adapter1, adapter2, train_norms=False):
        super().__init__()
        self.attn, self.ffn = attn, ffn
        self.norm1, self.norm2 = norm1, norm2
        self.adapter1, self.adapter2 = adapter1, adapter2
        for module in (attn, ffn):
            for parameter in module.parameters():
                parameter.requires_grad = False
        for module in (norm1, norm2):
            for parameter in module.parameters():
                parameter.requires_grad = bool(train_norms)

    def forward(self, x):
        h = x + self.attn(self.norm1(x))
        h = h + self.adapter1.forward_delta(h)
        h = h + self.ffn(self.norm2(h))
        return h + self.adapter2.forward_delta(h)
