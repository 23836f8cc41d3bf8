"""AdaLoRA: a low-rank update kept as a singular value decomposition, and a budget shared by all.

Zhang et al. 2023, "AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning":
section 3.1, equation 3: W = W0 + P diag(E) Q; equation 4: the penalty that keeps P and Q close to
orthonormal; section 3.2, equation 6: the singular values that matter least are set to zero;
equation 7: the importance of a triplet; equation 8: the sensitivity |w * gradient| of an entry.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F


class SVDLinear(nn.Module):
    """A frozen `nn.Linear` with a trainable update P diag(E) Q beside it.

    Attributes:
        base      the very layer passed in; its weight and bias frozen, their values untouched
        lora_P    Parameter (out_features, rank): starts random
        lora_E    Parameter (rank,): starts at zero
        lora_Q    Parameter (rank, in_features): starts random

    Only these three train. They have the device and dtype of base.weight.
    Works with and without a bias in `base`. Each call uses the values of the moment: parameters
    and base may have been changed in place or loaded. train() and eval() change nothing.
    """

    def __init__(self, base: nn.Linear, rank: int = 8, alpha: float = 16.0) -> None:
        super().__init__()
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """base(x) + scale * ((x @ lora_Q.T) * lora_E) @ lora_P.T, where scale is alpha / rank

        The scale is fixed: it does not follow the number of singular values that are not zero.
        x: (..., in_features), any number of leading dimensions, also none; left unchanged.
        Returns (..., out_features).
        """
        raise NotImplementedError

    def orthogonality_penalty(self) -> torch.Tensor:
        """||P^T P - I||_F^2 + ||Q Q^T - I||_F^2, the sums of squares, whatever lora_E is.

        A 0-dimensional tensor, through which gradients flow to lora_P and lora_Q.
        """
        raise NotImplementedError


def importance(layer: SVDLinear) -> torch.Tensor:
    """How much each triplet (column of lora_P, entry of lora_E, row of lora_Q) matters: (rank,)

    Entry i is s(E_i) + mean over j of s(P_ji) + mean over j of s(Q_ij), where s(w) = |w * w.grad|:
    the paper's score without its smoothing over steps. For a layer after a backward pass, which
    has filled `.grad`; neither values nor gradients are changed. With or without a graph.
    """
    raise NotImplementedError


def prune_to_budget(layers: list[SVDLinear], scores: list[torch.Tensor], budget: int) -> int:
    """Set all but the `budget` most important singular values to zero, over all layers together.

    layers: at least one; their ranks may differ. scores: for each layer one value per entry of its
    lora_E, 0 or larger, as importance() gives them; left unchanged.
    Keeps exactly the min(budget, total) entries of lora_E with the highest scores, total being
    the sum of the ranks; among equal scores at the cut, any. Sets the rest to zero in place.
    lora_P and lora_Q stay as they are, and the whole of lora_E goes on training, so that what was
    pruned can come back.
    Returns how many were set to zero: max(0, total - budget).

    Raises ValueError naming `budget` if it is negative, and ValueError naming `layers` or `scores`
    if there are not as many of one as of the other; both before anything is changed.
    """
    raise NotImplementedError
