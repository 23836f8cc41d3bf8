# wrong: Factors that do not fit raise TypeError.
# bug: other-exception
"""Switching between adapters by merging them into the weight.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1: with the update
merged there is no extra latency, and a task is changed by taking one B A out and adding another.
"""

import torch
import torch.nn as nn


class AdapterSwitcher:
    """Holds low-rank updates for one `nn.Linear` and merges at most one of them at a time.

    Attributes:
        active    the name of the adapter whose update is in linear.weight, or None
    """

    def __init__(self, linear: nn.Linear) -> None:
        self.linear = linear
        # Adding an update and subtracting it again rounds twice: only a copy comes back exactly.
        self.original = linear.weight.detach().clone()
        self.adapters: dict[str, tuple[torch.Tensor, torch.Tensor, float]] = {}
        self.active: str | None = None

    def register(self, name: str, lora_A: torch.Tensor, lora_B: torch.Tensor, scale: float) -> None:
        """Make an adapter known; linear.weight does not change.

        lora_A: (rank, in_features); lora_B: (out_features, rank).
        Raises ValueError if the factors do not fit the layer or each other; nothing is changed.
        """
        out_features, in_features = self.linear.weight.shape
        rank = lora_A.shape[0]
        if lora_A.shape != (rank, in_features) or lora_B.shape != (out_features, rank):
            raise TypeError(
                f"lora_A {tuple(lora_A.shape)} and lora_B {tuple(lora_B.shape)} of {name!r} "
                f"do not fit a weight {(out_features, in_features)}"
            )
        self.adapters[name] = (lora_A.detach(), lora_B.detach(), scale)

    def activate(self, name: str | None) -> None:
        """Make linear.weight W0 + scale * lora_B @ lora_A of that adapter, or W0 at None.

        W0 is the weight as it was when the switcher was made; back at None it is bit-identical,
        after any number of switches. The weight stays the same Parameter, its requires_grad as
        it was. Raises KeyError naming an unknown name; nothing is changed.
        """
        if name is not None and name not in self.adapters:
            raise KeyError(f"no adapter is called {name!r}")
        with torch.no_grad():
            self.linear.weight.copy_(self.original)
            if name is not None:
                lora_A, lora_B, scale = self.adapters[name]
                self.linear.weight += scale * (lora_B @ lora_A)
        self.active = name
