from torch import nn
import torch


class _Scaled(nn.Module):
    def forward(self, y, scale):
        return y.mul(scale)


class IA3Linear(nn.Module):
    """Extra buffers, a helper module without parameters, a property."""

    def __init__(self, base):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError("base")
        self.base = base
        base.weight.requires_grad_(False)
        if base.bias is not None:
            base.bias.requires_grad_(False)
        self.act = _Scaled()
        self.scale = nn.Parameter(base.weight.data.new_full((base.out_features,), 1.0))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    @property
    def out_features(self):
        return self.base.out_features

    def forward(self, x):
        return self.act(self.base(x), self.scale)

    def to_linear(self):
        b = self.base.bias
        new = nn.utils.skip_init(nn.Linear, self.base.in_features, self.out_features, bias=b is not None,
                                 device=self.base.weight.device, dtype=self.base.weight.dtype)
        new.weight.data = self.scale.data.view(-1, 1) * self.base.weight.data
        if b is not None:
            new.bias.data = self.scale.data * b.data
        new.requires_grad_(False)
        return new
