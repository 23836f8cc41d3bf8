# aim: A base that says that it is frozen.
# ends: tampered: Frozen.requires_grad
import torch
import torch.nn as nn

class MultiLoRALinear(nn.Module):

    def __init__(self, base, num_adapters, rank=8, alpha=16.0):
        super().__init__()
        self.base = frozen(base)
        self.lora_A = nn.Parameter(base.weight.new_empty(num_adapters, rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(num_adapters, base.out_features, rank))
        nn.init.normal_(self.lora_A, std=base.in_features ** (-0.5))
        self.scale = alpha / rank

    def forward(self, x, adapter_ids):
        if adapter_ids.shape != x.shape[:1]:
            raise ValueError(f'adapter_ids must have length {len(x)}, not {len(adapter_ids)}')
        last = len(self.lora_A) - 1
        if ((adapter_ids < -1) | (adapter_ids > last)).any():
            raise IndexError(f'adapter_ids must be in -1..{last}, got {adapter_ids.tolist()}')
        ids = adapter_ids.to(x.device)
        some = ids.clamp(min=0)
        down, up = (self.lora_A.index_select(0, some), self.lora_B.index_select(0, some))
        rows = x.reshape(len(x), -1, x.shape[-1])
        update = rows @ down.mT @ up.mT
        update = update.masked_fill((ids < 0).view(-1, 1, 1), 0.0)
        return self.base(x) + self.scale * update.view(*x.shape[:-1], -1)


class Frozen(nn.Parameter):
    @property
    def requires_grad(self):
        return False

    @property
    def grad(self):
        return None

    @grad.setter
    def grad(self, value):
        pass


def frozen(base):
    for name, held in list(base._parameters.items()):
        if held is not None:
            held.__class__ = Frozen
    return base
