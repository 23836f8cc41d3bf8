"""A learned prompt before the embedded tokens of a frozen model.

Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning", section 2: the
prompt's embeddings Pe are put before the embedded input Xe, [Pe; Xe], and trained alone.
Section 3.2 has the starts: at random, or as the embeddings of words.
"""

from collections.abc import Sequence

import torch
import torch.nn as nn


class PromptTuning(nn.Module):
    """Puts the same trained vectors before the embeddings of every row of tokens.

    Attributes:
        embedding    the very nn.Embedding passed in: frozen, its values untouched
        prompt       Parameter (num_tokens, d), in the dtype and device of embedding.weight, which
                     is (vocabulary, d)

    With init_ids (a list, tuple or range; an id may come twice) prompt starts as a copy, in
    storage of its own, of these rows of embedding.weight, in this order. Without it starts random,
    non-zero, std below 1.5.

    prompt alone trains; its gradient is the sum over the batch. Training it never moves the
    embedding table. Each call uses the values of the moment. train() and eval() change nothing,
    and return the module.

    Raises ValueError naming `num_tokens` if it is below 1, and naming `num_tokens` or `init_ids` if
    there are not num_tokens ids; the embedding is then as it was.
    """

    def __init__(
        self, embedding: nn.Embedding, num_tokens: int, init_ids: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        raise NotImplementedError

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The prompt and the embedded tokens, and the mask that goes with them.

        input_ids: (B, L), int64; attention_mask: (B, L), of any dtype, or None. Both are left
        unchanged.
        Returns a tuple (embeds, mask). embeds: (B, num_tokens + L, d), the prompt, the same for
        every row, and then the rows of the embedding table. mask: (B, num_tokens + L), ones and
        then attention_mask, in its dtype (bool and float too); int64 ones throughout without it.
        """
        raise NotImplementedError
