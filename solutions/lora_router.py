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
        # BEGIN SOLUTION
        if not 1 <= top_k <= num_adapters:
            raise ValueError(f"top_k must be in 1..{num_adapters}, got {top_k}")
        self.base = base.requires_grad_(False)
        weight = base.weight
        self.router = nn.Linear(
            base.in_features, num_adapters, bias=False, device=weight.device, dtype=weight.dtype
        )
        self.lora_A = nn.Parameter(weight.new_empty(num_adapters, rank, base.in_features))
        self.lora_B = nn.Parameter(weight.new_zeros(num_adapters, base.out_features, rank))
        # Not kaiming_uniform_: it takes rank * in_features for the fan-in of a stack.
        nn.init.normal_(self.lora_A, std=base.in_features**-0.5)
        self.scale = alpha / rank
        self.top_k = top_k
        # END SOLUTION

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
        # BEGIN SOLUTION
        logits = self.router(x)  # (..., n)
        largest, chosen = logits.topk(self.top_k, dim=-1)
        gates = torch.zeros_like(logits).scatter(-1, chosen, largest.softmax(dim=-1))
        low = torch.einsum("...i,nri->...nr", x, self.lora_A) * gates.unsqueeze(-1)
        return self.base(x) + self.scale * torch.einsum("...nr,nor->...o", low, self.lora_B)
        # END SOLUTION
