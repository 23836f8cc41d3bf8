import torch
from torch import nn
import torch.nn.functional as F


class LearnablePrefix(nn.Module):
    """The vectors are looked up by number."""

    def __init__(self, prefix_len, d_model):
        super().__init__()
        if not prefix_len > 0:
            raise ValueError(f"prefix_len={prefix_len}")
        self.prefix = nn.Parameter(nn.Embedding(prefix_len, d_model).weight.detach().clone() * 0.3)
        self.register_buffer("ids", torch.arange(prefix_len), persistent=False)

    def forward(self, x):
        if x.dim() != 3 or x.shape[2] != self.prefix.shape[1]:
            raise ValueError("bad shape", tuple(x.shape))
        ids = self.ids.unsqueeze(0).repeat(x.size(0), 1)
        return torch.concat((F.embedding(ids, self.prefix).to(dtype=x.dtype), x), dim=-2)
