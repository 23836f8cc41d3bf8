"""A subclass of nn.Linear as router, second names, a property and extra state."""
import torch
import torch.nn as nn


class Router(nn.Linear):
    def forward(self, x):
        return x @ self.weight.t()


class RoutedLoRALinear(nn.Module):
    def __init__(self, base, num_adapters, rank=8, alpha=16.0, top_k=1):
        super().__init__()
        if top_k not in range(1, num_adapters + 1):
            raise ValueError("top_k must lie between 1 and num_adapters")
        base.requires_grad_(False)
        self.base = self.wrapped = base
        self.gate = Router(base.in_features, num_adapters, bias=False).to(base.weight)
        self.router = self.gate
        self.A = self.lora_A = nn.Parameter(torch.empty(num_adapters, rank, base.in_features).uniform_(-0.2, 0.2).to(base.weight))
        self.register_parameter("lora_B", nn.Parameter(torch.zeros_like(self.lora_A[:, :, :1]).mT.repeat(1, base.out_features, 1)))
        self.register_buffer("scale", torch.tensor(alpha / rank, dtype=torch.float64))
        self.config = {"top_k": top_k}

    @property
    def top_k(self):
        return self.config["top_k"]

    def get_extra_state(self):
        return dict(self.config)

    def set_extra_state(self, state):
        self.config.update(state)

    def forward(self, x):
        logits = self.router(x)
        picked = logits.topk(self.top_k, dim=-1)
        gates = torch.zeros_like(logits).scatter(-1, picked.indices, torch.softmax(picked.values, -1))
        low = torch.einsum("...i,nri->...nr", x, self.A)
        low = (low * gates[..., None]).flatten(-2)
        wide = self.lora_B.transpose(0, 1).flatten(1)  # (out, n * r)
        return self.wrapped(x) + (low @ wide.T) * self.scale.to(x.dtype)
