import torch


class AdapterSwitcher:
    def __init__(self, linear):
        self.linear = linear
        self.weights = {None: linear.weight.detach().clone()}
        self.active = None

    def register(self, name, lora_A, lora_B, scale):
        out_features, in_features = self.weights[None].shape
        fits = lora_A.shape[1:] == (in_features,) and lora_B.shape == (out_features, lora_A.shape[0])
        if not fits:
            raise ValueError(f"{name} does not fit")
        self.weights[name] = self.weights[None] + scale * torch.einsum("or,ri->oi", lora_B.detach(), lora_A.detach())

    def activate(self, name):
        if name not in self.weights:
            raise KeyError(f"unknown adapter {name}")
        with torch.no_grad():
            self.linear.weight[...] = self.weights[name]
        self.active = name
