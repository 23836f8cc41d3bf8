# the norms come from three small products; outputs are scaled after the matmuls
import torch
from torch import nn


class DoRALinear(nn.Module):
    def __init__(self, base: nn.Linear, rank: int = 8, alpha: float = 16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(torch.randn(rank, base.in_features).to(base.weight) * 0.1)
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank).to(base.weight))
        self.s = alpha / rank
        self.magnitude = nn.Parameter(base.weight.square().sum(1).sqrt())

    @torch.no_grad()
    def norms(self):
        W, A, B = self.base.weight, self.lora_A, self.lora_B
        cross = ((W @ A.T) * B).sum(1)
        own = ((B @ (A @ A.T)) * B).sum(1)
        return (W.square().sum(1) + 2 * self.s * cross + self.s**2 * own).sqrt()

    def forward(self, x):
        y = x @ self.base.weight.T + self.s * (x @ self.lora_A.T @ self.lora_B.T)
        y = y * (self.magnitude / self.norms())
        return y if self.base.bias is None else y + self.base.bias

    def to_linear(self):
        W = self.base.weight
        sizes, bias = (W.shape[1], W.shape[0]), self.base.bias is not None
        new = nn.utils.skip_init(nn.Linear, *sizes, bias, device=W.device, dtype=W.dtype)
        weight = (self.magnitude / self.norms())[:, None] * (W + self.s * self.lora_B @ self.lora_A)
        new.weight.data = weight.detach()
        if self.base.bias is not None:
            new.bias.data = self.base.bias.detach().clone()
        return new.requires_grad_(False)
