# wrong: a second call on a model in a row only lists; a head put in since then trains
# bug: -
import torch
import torch.nn as nn


def apply_bitfit(model: nn.Module) -> list[nn.Parameter]:
    if getattr(apply_bitfit, "seen", None) is model:
        return [p for n, p in model.named_parameters() if n.rpartition(".")[2] == "bias"]
    apply_bitfit.seen = model
    biases = []
    for name, p in model.named_parameters():
        is_bias = name.rpartition(".")[2] == "bias"

        p.requires_grad_(is_bias)
        if is_bias:
            biases.append(p)

    return biases
