# wrong: the optimizer is kept from call to call
# bug: -

from itertools import islice
from weakref import WeakKeyDictionary

import torch
from torch import nn

KEPT = WeakKeyDictionary()


def finetune(
    model,
    params,
    batches,
    loss_fn,
    lr=1e-3,
    weight_decay=0.0,
    accumulate=1,
    max_grad_norm=None,
):
    params = list(params)
    if model not in KEPT:
        KEPT[model] = torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay)
    optimizer = KEPT[model]
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    model.zero_grad()
    losses = []
    remaining = iter(batches)
    while group := list(islice(remaining, accumulate)):
        mean = 0.0
        for x, y in group:
            loss = loss_fn(model(x), y) / len(group)
            loss.backward()
            mean += loss.item()
        if max_grad_norm is not None:
            nn.utils.clip_grad_norm_(params, max_grad_norm)
        optimizer.step()
        model.zero_grad()
        losses.append(mean)
    for module, training in modes:
        module.training = training
    return losses
