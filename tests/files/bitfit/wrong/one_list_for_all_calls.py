# wrong: every call empties and fills the list that the last one returned
# bug: -
import torch
import torch.nn as nn
def apply_bitfit(model):
    biases = apply_bitfit.__dict__.setdefault('b', [])
    biases.clear()
    for name, p in model.named_parameters():
        p.requires_grad_(name.split(".")[-1] == "bias")
        if p.requires_grad:
            biases.append(p)
    return biases
