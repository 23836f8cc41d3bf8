import torch.nn as nn


class BitFit:
    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.biases: list[nn.Parameter] = []

    def visit(self, path: list[str], p: nn.Parameter) -> None:
        match path:
            case [*_, "bias"]:
                self.biases.append(p)
                p.requires_grad_(True)
            case _:
                p.requires_grad_(False)

    def run(self) -> list[nn.Parameter]:
        for name, p in self.model.named_parameters():
            self.visit(name.split("."), p)
        return self.biases


def apply_bitfit(model):
    return BitFit(model).run()
