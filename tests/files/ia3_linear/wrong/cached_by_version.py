# wrong: the folded layer is kept in eval mode until a version counter moves: .data moves none
# bug: weight-cached
import torch
import torch.nn as nn


class IA3Linear(nn.Module):
    def __init__(self, base):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError(f"base must be an nn.Linear, not {type(base).__name__}")
        self.base = base.requires_grad_(False)
        self.scale = nn.Parameter(base.weight.new_ones(base.out_features))

    def forward(self, x):
        if self.training or torch.is_grad_enabled():
            return self.base(x) * self.scale
        key = [(p.data_ptr(), p._version) for p in self.parameters()]
        if getattr(self, "key", None) != key:
            self.key, self.kept = key, [self.to_linear()]
        return self.kept[0](x)

    @torch.no_grad()
    def to_linear(self):
        w, b, s = self.base.weight, self.base.bias, self.scale
        new = nn.Linear(w.shape[1], w.shape[0], bias=b is not None, device=w.device, dtype=w.dtype)
        new.weight.copy_(w * s[:, None])
        if b is not None:
            new.bias.copy_(b * s)
        return new
