# wrong: without a bias ids are clamped, not checked
# bug: -
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
        # BEGIN SOLUTION
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(base.weight.new_empty(num_adapters, rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(num_adapters, base.out_features, rank))
        # Not kaiming_uniform_: it takes rank * in_features for the fan-in of a stack.
        nn.init.normal_(self.lora_A, std=base.in_features**-0.5)
        self.scale = alpha / rank
        # END SOLUTION

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
        # BEGIN SOLUTION
        if adapter_ids.shape != x.shape[:1]:
            raise ValueError(f"adapter_ids must have length {len(x)}, not {len(adapter_ids)}")
        last = len(self.lora_A) - 1
        if self.base.bias is not None and ((adapter_ids < -1) | (adapter_ids > last)).any():
            raise IndexError(f"adapter_ids must be in -1..{last}, got {adapter_ids.tolist()}")
        ids = adapter_ids.to(x.device)
        some = ids.clamp(min=0, max=last)  # -1 takes any adapter here and is masked below
        # Much quicker than self.lora_A[some]. (B, rank, in), (B, out, rank)
        down, up = self.lora_A.index_select(0, some), self.lora_B.index_select(0, some)
        rows = x.reshape(len(x), -1, x.shape[-1])  # (B, L, in)
        update = rows @ down.mT @ up.mT  # (B, L, out)
        update = update.masked_fill((ids < 0).view(-1, 1, 1), 0.0)
        return self.base(x) + self.scale * update.view(*x.shape[:-1], -1)
        # END SOLUTION
