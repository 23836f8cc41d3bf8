import torch
from torch import nn, Tensor


class IA3Linear(nn.Module):
    def __init__(self, base: nn.Linear) -> None:
        nn.Module.__init__(self)
        if isinstance(base, nn.Linear):
            self.base = base
        else:
            raise TypeError("base: nn.Linear expected")
        self.base.requires_grad_(False)
        self.scale = nn.Parameter(torch.empty(base.out_features).to(base.weight))
        nn.init.ones_(self.scale)

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[:-1]
        y = x.reshape(-1, x.shape[-1]) @ self.base.weight.t()
        if self.base.bias is not None:
            y = y + self.base.bias
        columns = [y[:, i] * self.scale[i] for i in range(self.base.out_features)]
        return torch.stack(columns, dim=-1).reshape(*lead, self.base.out_features)

    def to_linear(self) -> nn.Linear:
        lin = nn.Linear(self.base.in_features, self.base.out_features, bias=self.base.bias is not None)
        lin = lin.to(self.base.weight)
        if self.base.weight.is_meta:
            return lin.to("meta")
        with torch.no_grad():
            for i in range(self.base.out_features):
                lin.weight[i] = self.base.weight[i] * self.scale[i]
                if self.base.bias is not None:
                    lin.bias[i] = self.base.bias[i] * self.scale[i]
        return lin
