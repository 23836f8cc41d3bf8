import torch
import torch.nn as nn

# Given


class IA3Linear(nn.Module):
    """A frozen `nn.Linear` whose outputs are rescaled by a trainable vector.

    Attributes:
        base     the very layer passed in
        scale    Parameter (out_features,): starts at ones

    The scale has the device and dtype of base.weight. Arguments are not checked.
    """

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = nn.Parameter(base.weight.new_ones(base.out_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """base(x) * scale: (..., in) -> (..., out)"""
        return self.base(x) * self.scale


def inject_ia3(model, linear_names):
    names = [n for n in linear_names]
    found = []
    for n in names:
        try:
            found.append(model.get_submodule(n))
        except AttributeError as e:
            raise KeyError(f"{n} ({e})")
        if isinstance(found[-1], IA3Linear) or not isinstance(found[-1], nn.Linear):
            raise TypeError("cannot adapt " + n)
    for p in model.parameters():
        p.requires_grad = False
    done = []
    for n, old in zip(names, found):
        new = next((m for m in done if m.base is old), None)
        if new is None:
            new = IA3Linear(old)
            done.append(new)
        model.set_submodule(n, new)
    return model, [m.scale for m in done]
