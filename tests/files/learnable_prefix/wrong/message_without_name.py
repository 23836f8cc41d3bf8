# wrong: The message does not name prefix_len.
# bug: error-without-name
"""A learned prefix before a sequence of embeddings.

Li and Liang 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", and Lester et
al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning", section 2: free vectors,
trained by themselves, stand before the input of a frozen model.
"""

import torch
import torch.nn as nn


class LearnablePrefix(nn.Module):
    """Puts the same trained vectors before every sequence of a batch.

    Attributes:
        prefix    Parameter (prefix_len, d_model): starts random, non-zero, std below 1.5

    Raises ValueError naming `prefix_len` if it is below 1.
    """

    def __init__(self, prefix_len: int, d_model: int) -> None:
        super().__init__()
        if prefix_len < 1:
            raise ValueError("too short")
        self.prefix = nn.Parameter(0.02 * torch.randn(prefix_len, d_model))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The prefix, then x.

        x: (B, L, d_model); left unchanged. Returns (B, prefix_len + L, d_model) in x's dtype,
        also where the prefix has another one.
        Raises ValueError if x has another number of dimensions or another last dimension.
        """
        if x.dim() != 3 or x.shape[-1] != self.prefix.shape[1]:
            raise ValueError(f"x must be (B, L, {self.prefix.shape[1]}), not {tuple(x.shape)}")
        prefix = self.prefix.to(x.dtype).expand(x.shape[0], -1, -1)  # (B, prefix_len, d_model)
        return torch.cat([prefix, x], dim=1)
