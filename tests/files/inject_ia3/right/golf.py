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
    M = dict(model.named_modules(remove_duplicate=False))
    N = [*dict.fromkeys(linear_names)]
    for n in N:
        if n not in M:
            raise KeyError(n)
        if not isinstance(M[n], nn.Linear):
            raise TypeError(n)
    W = {M[n]: IA3Linear(M[n]) for n in N}
    for n in N:
        setattr(M[n.rpartition(".")[0]], n.split(".")[-1], W[M[n]])
    S = [w.scale for w in W.values()]
    for p in model.parameters():
        p.requires_grad_(any(p is s for s in S))
    return model, S
