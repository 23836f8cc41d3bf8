
from itertools import islice
import torch
import torch.nn as nn


def finetune(model, params, batches, loss_fn, lr=1e-3, weight_decay=0.0, accumulate=1, max_grad_norm=None):
    params = list(params)
    modes = [(m, m.training) for m in model.modules()]
    for p in model.parameters():
        p.grad = None
    model.train()
    opt = torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay)
    history = []
    it = iter(batches)
    while group := list(islice(it, accumulate)):
        losses = []
        for x, y in group:
            loss = loss_fn(model(x.to(params[0].device)), y)
            (loss / len(group)).backward()
            losses.append(loss.item())
        if max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(params, max_grad_norm)
        opt.step()
        opt.zero_grad()
        history.append(sum(losses) / len(losses))
    for m, t in modes:
        m.training = t
    for p in model.parameters():
        p.grad = None
    return history
