"""Attention whose keys and values begin with a learned prefix.

Li and Liang 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", section 4.2: the
activations of the prefix are free parameters, and every position may attend to them. He et al.
2022, "Towards a Unified View of Parameter-Efficient Transfer Learning", section 2.2, equation 2:
they stand before the keys and the values of each head.
"""

import math

import torch
import torch.nn as nn


class PrefixAttention(nn.Module):
    """Multi-head self-attention, frozen, with trained keys and values before those of the content.

    Attributes:
        q_proj, k_proj, v_proj, o_proj    nn.Linear(d_model, d_model) with bias: frozen
        prefix_k, prefix_v                Parameter (num_heads, prefix_len, d_head): start random,
                                          non-zero, std below 1.5

    d_head is d_model / num_heads; head h has the features h * d_head to (h + 1) * d_head - 1 of the
    queries, keys and values and of o_proj's input. prefix_k and prefix_v are put, as they are (not
    through k_proj and v_proj), before the keys and values of every row of the batch, and they
    alone train. With prefix_len=0 this is plain attention; prefix_k and prefix_v are then empty or
    absent. No dropout, no positions. Each call uses the values of the moment. train() and eval()
    change nothing, and return the module. Starts on the default device and dtype, and works after
    .to().

    Raises ValueError naming `d_model` or `num_heads` if d_model is no multiple of num_heads.
    """

    def __init__(self, d_model: int, num_heads: int, prefix_len: int) -> None:
        super().__init__()
        raise NotImplementedError

    def forward(self, x: torch.Tensor, causal: bool = False) -> torch.Tensor:
        """Attention of x to the prefix and to itself, scaled by 1 / sqrt(d_head).

        x: (B, L, d_model), three dimensions only; left unchanged. Returns (B, L, d_model) in x's
        dtype. With causal every query sees the whole prefix, and of the content itself and what
        stands before it. Scores in the hundreds give no NaN; a softmax in float32 is fine.
        """
        raise NotImplementedError
