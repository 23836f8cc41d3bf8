"""A router that mixes LoRA adapters, token by token.

Shazeer et al. 2017, "Outrageously Large Neural Networks", section 2.1, equations 3 and 5, without
their noise: G(x) = softmax(KeepTopK(x W_g, k)), all gates but k being zero. Li et al. 2024,
"MixLoRA", section 3: the experts are LoRA adapters beside a frozen layer that all of them share.
"""

import torch
import torch.nn as nn


class RoutedLoRALinear(nn.Module):
    """A frozen `nn.Linear` with num_adapters low-rank updates, of which each token uses top_k.

    Attributes:
        base      the very layer passed in; its weight and bias frozen, their values untouched
        router    nn.Linear(in_features, num_adapters, bias=False), any start
        lora_A    Parameter (num_adapters, rank, in_features): starts random,
                  0 < std < 1.5, each adapter's of full row rank
        lora_B    Parameter (num_adapters, out_features, rank): starts at zero

    Only lora_A, lora_B and the router train. All have the device and dtype of base.weight.
    Works with and without a bias in `base`. Each call uses the values of the moment: parameters
    and base may have been changed in place or loaded. train() and eval() change nothing.

    Raises ValueError naming `top_k` if it is not in 1..num_adapters, before anything is changed.
    """

    def __init__(
        self,
        base: nn.Linear,
        num_adapters: int,
        rank: int = 8,
        alpha: float = 16.0,
        top_k: int = 1,
    ) -> None:
        super().__init__()
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """base(x) + scale * the sum over the chosen k of gate[k] * (x @ lora_A[k].T @ lora_B[k].T)

        For each token (vector of the last dimension): the top_k adapters with the largest router
        logits are chosen, and their gates are the softmax over those logits alone. scale is
        alpha / rank. The same in training and eval: no noise, no balancing loss, no capacity.
        x: (..., in_features), any number of leading dimensions, also none; left unchanged.
        Returns (..., out_features).

        The gradient to x runs through base, adapters and router. Adapters that no token has chosen
        get a zero gradient. At top_k=1 the only gate is 1, and the router's gradient zero or None.
        """
        raise NotImplementedError
