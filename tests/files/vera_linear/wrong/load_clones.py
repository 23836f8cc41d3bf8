# wrong: loading a state clones the shared tensors
# bug: -
import torch
import torch.nn as nn
import torch.nn.functional as F


class VeRALinear(nn.Module):
    def __init__(
        self,
        base: nn.Linear,
        shared_A: torch.Tensor,
        shared_B: torch.Tensor,
        d_initial: float = 0.1,
    ) -> None:
        super().__init__()
        if shared_A.ndim != 2 or shared_A.shape[1] != base.in_features:
            raise ValueError(f"shared_A must be (r, {base.in_features}), not {tuple(shared_A.shape)}")
        r = len(shared_A)
        if shared_B.shape != (base.out_features, r):
            raise ValueError(f"shared_B must be ({base.out_features}, {r}), not {tuple(shared_B.shape)}")
        self.base = base.requires_grad_(False)
        self.register_buffer("shared_A", shared_A.detach(), persistent=False)
        self.register_buffer("shared_B", shared_B.detach(), persistent=False)
        self.vera_d = nn.Parameter(base.weight.new_full((r,), d_initial))
        self.vera_b = nn.Parameter(base.weight.new_zeros(base.out_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = F.linear(x, self.shared_A) * self.vera_d
        return self.base(x) + F.linear(low, self.shared_B) * self.vera_b

    def load_state_dict(self, *a, **k):
        self.shared_A = self.shared_A.clone()
        return super().load_state_dict(*a, **k)
