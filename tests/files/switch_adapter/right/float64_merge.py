import torch


class AdapterSwitcher:
    def __init__(self, linear: torch.nn.Linear):
        self.linear = linear
        self._w0 = linear.weight.detach().clone().double()
        self._adapters = {}
        self._name = None

    active = property(lambda self: self._name)

    def register(self, name, lora_A, lora_B, scale):
        probe = self._w0
        if lora_A.dim() != 2 or lora_B.dim() != 2 or lora_A.size(0) != lora_B.size(1):
            raise ValueError(lora_A.shape, lora_B.shape)
        if probe.shape != (lora_B.size(0), lora_A.size(1)):
            raise ValueError(probe.shape)
        self._adapters[name] = scale, lora_B.detach().double(), lora_A.detach().double()

    def activate(self, name):
        if name is None:
            w = self._w0
        else:
            s, B, A = self._adapters[name]
            w = self._w0 + s * B.mm(A)
        self.linear.weight.data.copy_(w)
        self._name = name
