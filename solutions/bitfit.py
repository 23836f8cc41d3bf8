"""BitFit: of a whole model only the bias terms are trained.

Ben Zaken, Goldberg and Ravfogel 2022, "BitFit: Simple Parameter-efficient Fine-tuning for
Transformer-based Masked Language-models", section 3. The paper trains the task's new head as
well; here that is left to the caller.
"""

import torch.nn as nn


def apply_bitfit(model: nn.Module) -> list[nn.Parameter]:
    """Let the biases of a model train and freeze all its other parameters, in place.

    A bias is a parameter whose last name component in model.named_parameters() is `bias`, of
    whatever kind of module (a norm's is one, and so is the model's own) and of any shape. So
    `in_proj_bias`, `bias_ih_l0`, `rel_bias` and a parametrised bias
    (`parametrizations.bias.original`) are none and are frozen, nor does a submodule called
    `bias...` make biases of its parameters, or a buffer called `bias` count.

    Afterwards exactly the biases train, also those that arrive frozen. Nothing else about the
    model changes.

    Returns the list of the biases, themselves and no copies, each once, in the order of
    model.named_parameters(); [] if there is none.
    """
    # BEGIN SOLUTION
    biases = []
    for name, parameter in model.named_parameters():
        is_bias = name.rpartition(".")[2] == "bias"  # the root's own has no dot before it
        parameter.requires_grad_(is_bias)
        if is_bias:
            biases.append(parameter)
    return biases
    # END SOLUTION
