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
    if max_grad_norm is not None:
        opt.register_step_pre_hook(lambda *a: torch.nn.utils.clip_grad_norm_(params, max_grad_norm) and None)
    history = []
    it = iter(batches)
    while group := list(islice(it, accumulate)):
        losses = []
        for x, y in group:
            loss = loss_fn(model(x), y)
            (loss / len(group)).backward(inputs=params)
            losses.append(loss.item())
        opt.step()
        opt.zero_grad()
        history.append(sum(losses) / len(losses))
    for m, t in modes:
        m.training = t
    for p in model.parameters():
        p.grad = None
    return history
