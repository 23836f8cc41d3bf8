import torch.nn as nn
import torch.nn.functional as F


class BottleneckAdapter(nn.Module):
    def __init__(self, d_model, bottleneck_dim=64, activation=F.gelu, residual=True):
        super().__init__()
        if not bottleneck_dim >= 1:
            raise ValueError("bottleneck_dim has to be positive")
        self.down_proj = nn.Linear(d_model, bottleneck_dim)
        self.up_proj = nn.Linear(bottleneck_dim, d_model)
        for p in self.up_proj.parameters():
            p.data.zero_()
        self.act = activation
        self.res = int(residual)

    def forward_delta(self, x):
        h = F.linear(x, self.down_proj.weight, self.down_proj.bias)
        return F.linear(self.act(h), self.up_proj.weight, self.up_proj.bias)

    def forward(self, x):
        return self.res * x + self.forward_delta(x)
