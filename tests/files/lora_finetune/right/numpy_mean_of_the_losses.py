import numpy as np
import torch
from torch import nn


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
    optimizer = torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay)
    modes = {module: module.training for module in model.modules()}
    model.zero_grad()
    model.train()
    losses, pending = [], []

    def step():
        for p in params:
            p.grad.div_(len(pending))
        if max_grad_norm is not None:
            nn.utils.clip_grad_norm_(params, max_grad_norm)
        optimizer.step()
        model.zero_grad()
        losses.append(np.mean(pending))
        pending.clear()

    for x, y in batches:
        loss = loss_fn(model(x), y)
        loss.backward()
        pending.append(loss.item())
        if len(pending) == accumulate:
            step()
    if pending:
        step()
    for module, training in modes.items():
        module.training = training
    return losses
