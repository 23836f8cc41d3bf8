# right: properties over _buffers
import torch
import torch.nn as nn
import torch.nn.functional as F


def check(base, shared_A, shared_B):
    o, i = base.weight.shape
    if shared_A.dim() != 2 or shared_A.size(1) != i:
        raise ValueError("shared_A: bad shape")
    if shared_B.dim() != 2 or shared_B.size(0) != o or shared_B.size(1) != shared_A.size(0):
        raise ValueError("shared_B: bad shape")


class VeRALinear(nn.Module):
    def __init__(self, base, shared_A, shared_B, d_initial=0.1):
        super().__init__()
        check(base, shared_A, shared_B)
        self.base = base.requires_grad_(False)
        self._buffers["_a"] = shared_A.data
        self._buffers["_b"] = shared_B.data
        self._non_persistent_buffers_set |= {"_a", "_b"}
        kw = dict(dtype=base.weight.dtype, device=base.weight.device)
        self.vera_d = nn.Parameter(torch.full((shared_A.shape[0],), float(d_initial), **kw))
        self.vera_b = nn.Parameter(torch.zeros(base.out_features, **kw))

    A = property(lambda self: self._buffers["_a"])
    B = property(lambda self: self._buffers["_b"])

    def forward(self, x):
        return self.base(x) + self.vera_b * F.linear(self.vera_d * F.linear(x, self.A), self.B)
