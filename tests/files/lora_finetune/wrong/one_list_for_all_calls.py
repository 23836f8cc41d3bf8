# wrong: every call empties and fills the list that the last one returned
# bug: -
import math
import torch
import torch.nn as nn
import torch.nn.functional as F

from itertools import islice
def finetune(model, params, batches, loss_fn, lr=1e-3, weight_decay=0.0, accumulate=1, max_grad_norm=None):
    params = list(params)
    opt = torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay)
    modes = [(m, m.training) for m in model.modules()]
    model.train()
    model.zero_grad()
    out = finetune.__dict__.setdefault('out', [])
    out.clear()
    it = iter(batches)
    while group := list(islice(it, accumulate)):
        total = 0.0
        for x, y in group:
            loss = loss_fn(model(x), y)
            (loss / len(group)).backward()
            total += loss.item()
        if max_grad_norm is not None:
            nn.utils.clip_grad_norm_(params, max_grad_norm)
        opt.step()
        model.zero_grad()
        out.append(total / len(group))
    for m, t in modes:
        m.training = t
    return out
