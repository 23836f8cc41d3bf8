# wrong: a shared tensor that equals an earlier one is replaced by it
# bug: shared-copied
import math
import torch
import torch.nn as nn
import torch.nn.functional as F

POOL = {}
class VeRALinear(nn.Module):
    def __init__(self, base, shared_A, shared_B, d_initial=0.1):
        super().__init__()
        if shared_A.ndim != 2 or shared_A.shape[1] != base.in_features:
            raise ValueError("shared_A does not fit base")
        if shared_B.shape != (base.out_features, shared_A.shape[0]):
            raise ValueError("shared_B does not fit")
        self.base = base
        base.requires_grad_(False)
        key = (tuple(shared_A.shape), shared_A.dtype)
        POOL.setdefault(key, shared_A.detach())
        self.register_buffer("shared_A", POOL[key] if torch.equal(POOL[key].cpu() if not POOL[key].is_meta else torch.zeros(1), shared_A.detach().cpu() if not shared_A.is_meta else torch.zeros(1)) else shared_A.detach(), persistent=False)
        self.register_buffer("shared_B", shared_B.detach(), persistent=False)
        kw = {"dtype": base.weight.dtype, "device": base.weight.device}
        self.vera_d = nn.Parameter(torch.full((shared_A.shape[0],), d_initial, **kw))
        self.vera_b = nn.Parameter(torch.zeros(base.out_features, **kw))
    def forward(self, x):
        out = self.base(x)
        h = F.linear(x, self.shared_A) * self.vera_d
        return out + F.linear(h, self.shared_B) * self.vera_b
