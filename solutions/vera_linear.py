"""VeRA on one linear layer: trained vectors around a frozen random pair that all layers share.

Kopiczko et al. 2024, "VeRA: Vector-based Random Matrix Adaptation", section 3.1, equation 2:
h = W0 x + diag(b) B diag(d) A x, with A and B random, frozen and shared by all layers.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F


class VeRALinear(nn.Module):
    """A frozen `nn.Linear` with an update beside it of which only two vectors are its own.

    Arguments:
        base         an nn.Linear
        shared_A     tensor (r, in_features)
        shared_B     tensor (out_features, r), both in the dtype and on the device of base.weight
        d_initial    where vera_d starts

    Attributes:
        base         the very layer passed in; its weight and bias frozen, their values untouched
        vera_d       Parameter (r,): starts at d_initial
        vera_b       Parameter (out_features,): starts at zero, so that the layer starts as its base

    Only vera_d and vera_b train. They have the device and dtype of base.weight.
    The shared tensors are used as they are: never copied, changed or trained, so that changing
    one in place changes every layer built on it. They may be kept under any name, as attributes,
    buffers or frozen parameters, in the state dict or not. An nn.Parameter passed as one is used
    detached: it gets no gradient from here, and its requires_grad stays as it was. After .to()
    the layer works, and may hold copies of its own. Works with and without a bias in `base`.
    train() and eval() change nothing. State is loaded only between layers built on equal shared
    tensors.

    Raises ValueError naming `shared_A` or `shared_B`, before anything is changed, if their shapes
    do not fit `base` or each other; larger ones, and another number of dimensions, do not fit
    either: nothing is sliced.
    """

    def __init__(
        self,
        base: nn.Linear,
        shared_A: torch.Tensor,
        shared_B: torch.Tensor,
        d_initial: float = 0.1,
    ) -> None:
        super().__init__()
        # BEGIN SOLUTION
        if shared_A.ndim != 2 or shared_A.shape[1] != base.in_features:
            shape = tuple(shared_A.shape)
            raise ValueError(f"shared_A must be (r, {base.in_features}), not {shape}")
        r = len(shared_A)
        if shared_B.shape != (base.out_features, r):
            shape = tuple(shared_B.shape)
            raise ValueError(f"shared_B must be ({base.out_features}, {r}), not {shape}")
        self.base = base.requires_grad_(False)
        # Buffers move with the layer; detach() shares the storage and leaves autograd out.
        self.register_buffer("shared_A", shared_A.detach(), persistent=False)
        self.register_buffer("shared_B", shared_B.detach(), persistent=False)
        self.vera_d = nn.Parameter(base.weight.new_full((r,), d_initial))
        self.vera_b = nn.Parameter(base.weight.new_zeros(base.out_features))
        # END SOLUTION

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """base(x) + vera_b * (shared_B @ (vera_d * (shared_A @ x))), for each vector x

        x: (..., in_features), any number of leading dimensions, also none; left unchanged.
        Returns (..., out_features). Base, vectors and shared tensors are read anew in every
        call: what was changed in place shows. Gradients flow to x through both terms.
        """
        # BEGIN SOLUTION
        low = F.linear(x, self.shared_A) * self.vera_d  # (..., r)
        return self.base(x) + F.linear(low, self.shared_B) * self.vera_b
        # END SOLUTION
