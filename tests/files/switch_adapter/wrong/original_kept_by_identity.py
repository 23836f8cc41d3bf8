# wrong: the original is kept by the layer's identity
# bug: shared-between-switchers
import torch
import torch.nn as nn

class AdapterSwitcher:

    def __init__(self, linear: nn.Linear) -> None:
        self.linear = linear
        self.original = _w0.setdefault(id(linear), (linear, linear.weight.detach().clone()))[1]
        self.adapters: dict[str, tuple[torch.Tensor, torch.Tensor, float]] = {}
        self.active: str | None = None

    def register(self, name: str, lora_A: torch.Tensor, lora_B: torch.Tensor, scale: float) -> None:
        out_features, in_features = self.linear.weight.shape
        rank = lora_A.shape[0]
        if lora_A.shape != (rank, in_features) or lora_B.shape != (out_features, rank):
            raise ValueError(f'lora_A {tuple(lora_A.shape)} and lora_B {tuple(lora_B.shape)} of {name!r} do not fit a weight {(out_features, in_features)}')
        self.adapters[name] = (lora_A.detach(), lora_B.detach(), scale)

    def activate(self, name: str | None) -> None:
        if name is not None and name not in self.adapters:
            raise KeyError(f'no adapter is called {name!r}')
        with torch.no_grad():
            self.linear.weight.copy_(self.original)
            if name is not None:
                lora_A, lora_B, scale = self.adapters[name]
                self.linear.weight += scale * (lora_B @ lora_A)
        self.active = name
_w0 = {}
