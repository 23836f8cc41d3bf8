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
    params = [*params]
    optimizer = torch.optim.AdamW(params, lr, weight_decay=weight_decay)
    modes = [m.training for m in model.modules()]
    model.zero_grad()
    model.train()
    losses, seen, end = [], [], object()
    stream = iter(batches)
    pair = next(stream, end)
    while pair is not end:
        x, y = pair
        pair = next(stream, end)
        loss = loss_fn(model(x), y)
        loss.backward()
        seen.append(loss.detach())
        if len(seen) < accumulate and pair is not end:
            continue
        for p in params:
            p.grad = p.grad / len(seen)
        if max_grad_norm is not None:
            nn.utils.clip_grad_norm_(params, max_grad_norm, foreach=False)
        optimizer.step()
        model.zero_grad()
        losses.append(torch.stack(seen).mean().item())
        seen = []
    for m, was in zip(model.modules(), modes):
        m.training = was
    return losses
