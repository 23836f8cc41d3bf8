# wrong: embeddings get a hook that makes their outputs require a gradient
# bug: -
import torch
import torch.nn as nn


def apply_bitfit(model: nn.Module) -> list[nn.Parameter]:
    biases = []
    for name, p in model.named_parameters():
        is_bias = name.rpartition(".")[2] == "bias"

        p.requires_grad_(is_bias)
        if is_bias:
            biases.append(p)
    for m in model.modules():
        if isinstance(m, nn.Embedding):
            m.register_forward_hook(lambda mod, args, out: out.requires_grad_(True))
    return biases
