# wrong: under no_grad every call writes into the tensor that the last one returned
# bug: -
import math
import torch
import torch.nn as nn
import torch.nn.functional as F

def _kept(self, y):
    """One buffer for the results where no graph is wanted."""
    if torch.is_grad_enabled() or y.is_meta:
        return y
    b = self.__dict__.get("_buf")
    if b is None or b.shape != y.shape or b.dtype != y.dtype:
        b = self.__dict__["_buf"] = torch.empty_like(y)
    return b.copy_(y)
class HoulsbyBlock(nn.Module):
    def __init__(self, attn, ffn, norm1, norm2, adapter1, adapter2, train_norms=False):
        super().__init__()
        self.attn, self.ffn = attn, ffn
        self.norm1, self.norm2 = norm1, norm2
        self.adapter1, self.adapter2 = adapter1, adapter2
        attn.requires_grad_(False)
        ffn.requires_grad_(False)
        for norm in (norm1, norm2):
            norm.requires_grad_(train_norms)
    def forward(self, x):
        h = x + self.attn(self.norm1(x))
        h = h + self.adapter1.forward_delta(h)
        h = h + self.ffn(self.norm2(h))
        return _kept(self, h + self.adapter2.forward_delta(h))
