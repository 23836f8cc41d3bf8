# wrong: kept until autograd counts a change, which .data does not
# bug: prefix-cached
import torch
import torch.nn as nn

class LearnablePrefix(nn.Module):

    def __init__(self, prefix_len: int, d_model: int) -> None:
        super().__init__()
        if prefix_len < 1:
            raise ValueError(f'prefix_len must be at least 1, not {prefix_len}')
        self.prefix = nn.Parameter(0.02 * torch.randn(prefix_len, d_model))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() != 3 or x.shape[-1] != self.prefix.shape[1]:
            raise ValueError(f'x must be (B, L, {self.prefix.shape[1]}), not {tuple(x.shape)}')
        if not torch.is_grad_enabled() and x.dtype != self.prefix.dtype:
            key = (x.dtype, self.prefix._version)
            if getattr(self, '_key', None) != key:
                self._key, self._kept = key, self.prefix.detach().to(x.dtype).clone()
            prefix = self._kept.expand(x.shape[0], -1, -1)
        else:
            prefix = self.prefix.to(x.dtype).expand(x.shape[0], -1, -1)
        return torch.cat([prefix, x], dim=1)
