"""A small class collects all that is wrong before it raises; returns the model."""
from dataclasses import dataclass, field

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


@dataclass
class Adapter:
    tensors: dict[str, Tensor]
    faults: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, model: nn.Module) -> "Adapter":
        wanted = filter(lambda kv: kv[0].rpartition(".")[-1] in {"lora_A", "lora_B"}, model.state_dict().items())
        return cls(dict(wanted))

    def check(self, other: "Adapter") -> None:
        for name in sorted({*self.tensors, *other.tensors}):
            match self.tensors.get(name), other.tensors.get(name):
                case None, _:
                    self.faults.append(f"{name} is not wanted")
                case _, None:
                    self.faults.append(f"{name} is missing")
                case a, b if a.shape != b.shape:
                    self.faults.append(f"{name} is {tuple(b.shape)}, not {tuple(a.shape)}")
        if self.faults:
            raise ValueError("\n".join(self.faults))


@torch.no_grad()
def save_adapter(model, path):
    save_file({k: v.clone(memory_format=torch.contiguous_format) for k, v in Adapter.of(model).tensors.items()}, path)


@torch.no_grad()
def load_adapter(model, path):
    mine, theirs = Adapter.of(model), Adapter(load_file(path))
    mine.check(theirs)
    for name, tensor in mine.tensors.items():
        tensor.copy_(theirs.tensors[name])
    return model
