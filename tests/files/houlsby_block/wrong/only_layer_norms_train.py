# wrong: train_norms reaches nn.LayerNorm modules alone
# bug: -

import torch.nn as nn


class HoulsbyBlock(nn.Module):
    def __init__(self, attn, ffn, norm1, norm2, adapter1, adapter2, train_norms=False):
        super().__init__()
        self.attn = attn.requires_grad_(False)
        self.ffn = ffn.requires_grad_(False)
        self.norm1 = norm1.requires_grad_(False)
        self.norm2 = norm2.requires_grad_(False)
        self.adapter1 = adapter1
        self.adapter2 = adapter2
        for norm in (norm1, norm2):
            for module in norm.modules():
                if isinstance(module, nn.LayerNorm):
                    module.requires_grad_(train_norms)

    def forward(self, x):
        h = x + self.attn(self.norm1(x))
        h = h + self.adapter1.forward_delta(h)
        h = h + self.ffn(self.norm2(h))
        return h + self.adapter2.forward_delta(h)
