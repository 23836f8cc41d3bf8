import torch
import torch.nn as nn


class ParallelAdapterBlock(nn.Module):
    def __init__(self, sublayer, adapter):
        super().__init__()
        self.sublayer = sublayer
        self.adapter = adapter
        self.sublayer.requires_grad_(False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.steps.add_(1)
        return self.sublayer(x) + self.adapter.forward_delta(x)

    def get_extra_state(self):
        return {"kind": "block"}

    def set_extra_state(self, state):
        assert state["kind"] == "block"
