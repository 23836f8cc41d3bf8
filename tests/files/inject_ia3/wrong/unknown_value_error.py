# wrong: an unknown name raises ValueError.
# bug: other-exception
"""Putting IA3 into a model that is already built.

Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context
Learning", section 3.3: keys, values and the inner activations of the feed-forward network are
rescaled by learned vectors; all the rest is frozen.
"""

from collections.abc import Iterable

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


def inject_ia3(
    model: nn.Module, linear_names: Iterable[str]
) -> tuple[nn.Module, list[nn.Parameter]]:
    """Replace the named linears of a model by IA3Linear layers, in place, and freeze all the rest.

    linear_names: dotted paths such as "blocks.0.attn.k_proj", also through nn.ModuleList,
        nn.Sequential and nn.ModuleDict. Any iterable, a one-shot iterator too. A name given twice
        counts once; a layer reached under two listed names is wrapped once and stays tied.

    Returns (model, ia3_params): the same model object, and the list of exactly the scales of the
    layers wrapped by this call, each once, in the order of linear_names.
    Every other parameter of the model is frozen afterwards, whatever it is called (`scale`, for
    one), also when linear_names is empty.

    Raises, with the model left as it was:
        KeyError     naming a listed name that the model does not have
        TypeError    naming a listed module that is no nn.Linear, an adapted layer included
    """
    # Without remove_duplicate=False a layer is found under the first of its names alone.
    modules = dict(model.named_modules(remove_duplicate=False))
    bases: dict[str, nn.Linear] = {}  # a name that comes again changes nothing
    for name in linear_names:
        if name not in modules:
            raise ValueError(f"unknown name {name!r}")
        base = modules[name]
        if not isinstance(base, nn.Linear):
            raise TypeError(f"{name!r} is a {type(base).__name__}, no nn.Linear")
        bases[name] = base

    model.requires_grad_(False)  # before there are scales that must train
    wrapped = {base: IA3Linear(base) for base in bases.values()}  # one for each layer, not name
    for name, base in bases.items():
        parent, _, child = name.rpartition(".")  # the root is called ""
        setattr(modules[parent], child, wrapped[base])
    return model, [layer.scale for layer in wrapped.values()]
