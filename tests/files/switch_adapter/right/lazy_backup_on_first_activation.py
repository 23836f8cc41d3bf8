import torch


class AdapterSwitcher:
    """The copy is taken at the first activation, when nothing is merged yet."""

    def __init__(self, linear):
        self.linear = linear
        self.known = []
        self.saved = None
        self.active = None

    def register(self, name, lora_A, lora_B, scale):
        w = self.linear.weight
        if tuple(lora_A.shape[1:]) != tuple(w.shape[1:]) or len(lora_B) != len(w):
            raise ValueError("factors do not fit")
        if lora_B.shape[-1] != lora_A.shape[0]:
            raise ValueError("factors do not fit each other")
        self.known.append((name, lora_A, lora_B, scale))

    def activate(self, name):
        found = [k for k in self.known if k[0] == name]
        if name is not None and not found:
            raise KeyError(name)
        if name == self.active:
            return
        with torch.no_grad():
            if self.saved is None:
                self.saved = self.linear.weight.clone()
            self.linear.weight.set_(self.saved.clone())
            for _, A, B, s in found[-1:]:
                self.linear.weight.add_(B @ A, alpha=s)
        self.active = name
