import torch
from torch import nn


class IA3Linear(nn.Module):
    def __init__(self, base: nn.Linear):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError(f"`base` is a {type(base)}")
        self.base = base.requires_grad_(False)
        self.register_parameter("scale", nn.Parameter(torch.ones(base.weight.size(0), device=base.weight.device, dtype=base.weight.dtype)))

    def forward(self, x):
        return torch.einsum("...o,o->...o", self.base(x), self.scale)

    @torch.no_grad()
    def to_linear(self):
        w = self.base.weight
        out = nn.Linear(w.shape[1], w.shape[0], self.base.bias is not None, w.device, w.dtype)
        out.load_state_dict({k: (v.T * self.scale).T for k, v in self.base.state_dict().items()})
        return out
