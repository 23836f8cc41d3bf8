# the pair in plain attributes, brought to x at each call
import torch
from torch import nn
from torch.nn import functional as F


class VeRALinear(nn.Module):
    def __init__(self, base, shared_A, shared_B, d_initial=0.1):
        super().__init__()
        out, into = base.weight.shape
        if shared_A.dim() != 2 or shared_A.size(1) != into:
            raise ValueError(f"shared_A does not fit: {list(shared_A.shape)}")
        if shared_B.dim() != 2 or shared_B.size(0) != out or shared_B.size(1) != shared_A.size(0):
            raise ValueError(f"shared_B does not fit: {list(shared_B.shape)}")
        self.base = base
        for p in base.parameters():
            p.requires_grad = False
        self.pair = (shared_A, shared_B)
        like = {"dtype": base.weight.dtype, "device": base.weight.device}
        self.vera_d = nn.Parameter(torch.full((shared_A.size(0),), float(d_initial), **like))
        self.vera_b = nn.Parameter(torch.zeros(out, **like))

    def forward(self, x):
        A, B = (t.detach().to(x) for t in self.pair)
        return self.base(x) + self.vera_b * F.linear(self.vera_d * F.linear(x, A), B)
