"""Turn a full fine-tune into an adapter: the best factors of rank r of what training has changed.

Eckart and Young 1936, "The approximation of one matrix by another of lower rank": the truncated
singular value decomposition. Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models",
section 4.1: the update as BA.
"""

import torch


def extract_lora(
    W0: torch.Tensor, W1: torch.Tensor, rank: int
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Factors B, A of this rank whose product is as near to W1 - W0 as can be (Frobenius norm).

    W0, W1: (out, in), the weight before and after training, of one shape, dtype (float32, float64
    or bfloat16) and device. They may be nn.Parameters and are left alone. In bfloat16 the
    decomposition is done in float32 or better.

    Returns (B, A, rel_error), a tuple of any kind:
        B            (out, rank)  in the dtype and on the device of W0
        A            (rank, in)   likewise; signs and how the singular values are split between B
                                  and A are free, and so is the choice where they tie at the cut
        rel_error    ||W1 - W0 - BA||_F / ||W1 - W0||_F, a Python float, of the factors before or
                     after they are rounded to their dtype

    Where nothing has changed BA is zero and rel_error 0.0.

    BA and rel_error are right to within 1e-8 (rel_error 1e-7) in float64, 1e-4 in float32, 4e-2 in
    bfloat16; BA in units of ||W1 - W0||_F.

    Raises ValueError, naming rank, unless 1 <= rank <= min(out, in), also where nothing has
    changed.
    """
    raise NotImplementedError
