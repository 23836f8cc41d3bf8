"""A subclass of nn.Linear that shares the base's weight, factors turned in memory, extra state."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class MultiLoRALinear(nn.Linear):
    def __init__(self, base, num_adapters, rank=8, alpha=16.0):
        super().__init__(base.in_features, base.out_features, bias=False, device="meta")
        del self.weight
        self.base = base.requires_grad_(False)
        w = base.weight
        A = w.new_empty(num_adapters, base.in_features, rank).uniform_(-0.2, 0.2)
        self.lora_A = nn.Parameter(A.transpose(1, 2))
        self.lora_B = nn.Parameter(w.new_zeros(num_adapters, rank, base.out_features).transpose(1, 2))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.scale = alpha / rank

    def get_extra_state(self):
        return {"rank": self.lora_A.shape[1]}

    def set_extra_state(self, state):
        assert state["rank"] == self.lora_A.shape[1]

    def forward(self, x, adapter_ids):
        if adapter_ids.shape[0] != x.shape[0]:
            raise ValueError("adapter_ids")
        if ((adapter_ids < -1) | (adapter_ids >= len(self.lora_A))).any():
            raise IndexError("adapter_ids")
        index = adapter_ids.clamp(min=0).to(x.device).view(-1, 1, 1)
        A = self.lora_A.gather(0, index.expand(-1, *self.lora_A.shape[1:]))
        B = self.lora_B.gather(0, index.expand(-1, *self.lora_B.shape[1:]))
        flat = x.flatten(1, -2) if x.dim() > 2 else x.unsqueeze(1)
        delta = (flat @ A.transpose(1, 2)) @ B.transpose(1, 2)
        delta = delta.reshape(x.shape[:-1] + (self.out_features,))
        off = (adapter_ids == -1).to(x.device).view(-1, *[1] * (x.dim() - 1))
        return F.linear(x, self.base.weight, self.base.bias) + self.scale * delta.masked_fill(off, 0)
