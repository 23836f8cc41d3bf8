# wrong: a call switches gradients on
# bug: - (unlikely)
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
        prefix = self.prefix.to(x.dtype).expand(x.shape[0], -1, -1)
        torch.set_grad_enabled(True)
        return torch.cat([prefix, x], dim=1)
