# wrong: no gradient to x where the prefix is frozen
# bug: input-gradient-cut
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
        
        return Cat.apply(self.prefix, x)
class Cat(torch.autograd.Function):
    @staticmethod
    def forward(ctx, p, x):
        ctx.n, ctx.dt = p.shape[0], p.dtype
        return torch.cat([p.to(x.dtype).expand(x.shape[0], -1, -1), x], 1)
    @staticmethod
    def backward(ctx, g):
        if not ctx.needs_input_grad[0]:
            return None, None
        return g[:, :ctx.n].sum(0).to(ctx.dt), g[:, ctx.n:]

