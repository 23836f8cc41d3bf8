import torch
from torch import nn


def steps(model, params, batches, loss_fn, accumulate, max_grad_norm, optimizer):
    batches = iter(batches)
    for pair in batches:
        group = [pair, *(next(batches, None) for _ in range(accumulate - 1))]
        group = [one for one in group if one is not None]
        losses = []
        for x, y in group:
            losses.append(loss_fn(model(x), y))
            (losses[-1] / len(group)).backward()
        if max_grad_norm is not None:
            nn.utils.clip_grad_norm_(params, max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        yield sum(loss.item() for loss in losses) / len(losses)


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
    params = tuple(params)
    was = {name: module.training for name, module in model.named_modules()}
    try:
        model.zero_grad()
        return list(
            steps(
                model.train(),
                params,
                batches,
                loss_fn,
                accumulate,
                max_grad_norm,
                torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay),
            )
        )
    finally:
        model.zero_grad()
        for name, module in model.named_modules():
            module.training = was[name]
