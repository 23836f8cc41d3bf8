from torch import nn
import torch


class AdapterBlock(nn.Module):
    """A buffer, a private helper and *args."""

    def __init__(self, sublayer: nn.Module, adapter: nn.Module, *, note: str = "") -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(1, dtype=torch.int64))
        self.note = note
        self.sublayer, self.adapter = sublayer, adapter
        self._freeze()

    def _freeze(self):
        for module in self.sublayer.modules():
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)

    def extra_repr(self):
        return self.note

    def forward(self, x, *args, **kwargs):
        self.steps += 1
        h = x + self.sublayer(x)
        delta = self.adapter.forward_delta(h)
        return sum([h, delta])
