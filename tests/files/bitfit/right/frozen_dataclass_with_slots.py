"""A callable object."""

import torch
import torch.nn as nn


from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _BitFit:
    last: str = "bias"

    def __call__(self, model):
        model.requires_grad_(False)
        return [p.requires_grad_() for n, p in model.named_parameters() if n.rsplit(".", 1)[-1] == self.last]


apply_bitfit = _BitFit()
