"""Many LoRA adapters beside one layer, each row of a batch with its own.

Chen et al. 2023, "Punica: Multi-Tenant LoRA Serving", section 4, and Sheng et al. 2023, "S-LoRA",
section 4.1: the base product is shared by the whole batch; only the two thin products beside it
differ from row to row, and they are batched too.
"""

import torch
import torch.nn as nn


class MultiLoRALinear(nn.Module):
    """A frozen `nn.Linear` with num_adapters trainable low-rank updates, chosen row by row.

    Attributes:
        base      the very layer passed in; its weight and bias frozen, their values untouched
        lora_A    Parameter (num_adapters, rank, in_features): starts random
        lora_B    Parameter (num_adapters, out_features, rank): starts at zero
        scale     alpha / rank

    Only lora_A and lora_B train. They have the device and dtype of base.weight.
    Works with and without a bias in `base`.
    """

    def __init__(
        self, base: nn.Linear, num_adapters: int, rank: int = 8, alpha: float = 16.0
    ) -> None:
        super().__init__()
        raise NotImplementedError

    def forward(self, x: torch.Tensor, adapter_ids: torch.Tensor) -> torch.Tensor:
        """Row i: base(x[i]) + scale * x[i] @ lora_A[k].T @ lora_B[k].T with k = adapter_ids[i]

        x: (B, ..., in_features), any number of dimensions between, also none.
        adapter_ids: int64 (B,), in any order; -1 means the base alone. It is on the device of x,
        or on the CPU where x is on meta. Both are left unchanged.
        Returns (B, ..., out_features). Only adapters in the batch get a gradient that is not zero.

        The number of operators grows neither with B nor with num_adapters (from 2 up), and no
        tensor (B, out_features, in_features) or (num_adapters, out_features, in_features) is made.

        Raises ValueError naming `adapter_ids` if its length is not B, and IndexError naming it if
        an id is not in -1..num_adapters-1; a negative id does not count from the end.
        """
        raise NotImplementedError
