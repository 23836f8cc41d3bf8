# wrong: The update is a parametrization of base.weight, and dropout is left out.
# bug: dropout-ignored

import math
import torch
from torch import nn
from torch.nn.utils import parametrize

class Update(nn.Module):

    def __init__(self, weight, rank, scale):
        super().__init__()
        self.lora_A = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        self.lora_B = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scale = scale

    def forward(self, weight):
        return weight + self.scale * self.lora_B @ self.lora_A

class LoRALinear(nn.Module):

    def __init__(self, base, rank=8, alpha=16.0, dropout=0.0):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError('base must be an nn.Linear')
        if rank < 1:
            raise ValueError('rank must be at least 1')
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        self.update = Update(base.weight, rank, self.scale)
        self.lora_A, self.lora_B = (self.update.lora_A, self.update.lora_B)
        parametrize.register_parametrization(base, 'weight', self.update)
        self.dropout = nn.Dropout(dropout)
        self.merged = False

    def forward(self, x):
        return self.base(x)

    def delta_weight(self):
        return self.scale * self.lora_B @ self.lora_A

    def merge(self):
        if not self.merged:
            parametrize.remove_parametrizations(self.base, 'weight', leave_parametrized=True)
            self.merged = True

    def unmerge(self):
        if self.merged:
            with torch.no_grad():
                self.base.weight -= self.delta_weight()
            parametrize.register_parametrization(self.base, 'weight', self.update)
            self.merged = False
