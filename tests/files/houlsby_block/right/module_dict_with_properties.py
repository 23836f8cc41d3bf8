import torch.nn as nn


class HoulsbyBlock(nn.Module):
    def __init__(self, attn, ffn, norm1, norm2, adapter1, adapter2, train_norms=False):
        super().__init__()
        names = ("attn", "ffn", "norm1", "norm2", "adapter1", "adapter2")
        given = (attn, ffn, norm1, norm2, adapter1, adapter2)
        for name, module in zip(names, given):
            self.add_module(name, module)
        self.norms_train = train_norms
        self._freeze()

    def forward(self, x):
        h = x + self.attn(self.norm1(x))
        h = h + self.adapter1.forward_delta(h)
        h = h + self.ffn(self.norm2(h))
        return h + self.adapter2.forward_delta(h)

    def _freeze(self):
        for name, parameter in self.named_parameters():
            first = name.split(".")[0]
            if first in ("attn", "ffn"):
                parameter.requires_grad_(False)
            elif first in ("norm1", "norm2"):
                parameter.requires_grad_(self.norms_train)
