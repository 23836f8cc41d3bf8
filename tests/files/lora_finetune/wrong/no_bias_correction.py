# wrong: AdamW by hand without bias correction
# bug: -

import torch


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
    first = [torch.zeros_like(p) for p in params]
    second = [torch.zeros_like(p) for p in params]
    modes = [(m, m.training) for m in model.modules()]
    for p in model.parameters():
        p.grad = None
    model.train()
    losses, group = [], []
    batches = list(batches)
    for start in range(0, len(batches), accumulate):
        group = batches[start : start + accumulate]
        total, sums = 0.0, [torch.zeros_like(p) for p in params]
        for x, y in group:
            loss = loss_fn(model(x), y)
            for s, g in zip(sums, torch.autograd.grad(loss, params)):
                s += g
            total += float(loss.detach())
        grads = [s / len(group) for s in sums]
        if max_grad_norm is not None:
            norm = torch.sqrt(sum(g.square().sum() for g in grads))
            if norm > max_grad_norm:
                grads = [g * (max_grad_norm / norm) for g in grads]
        with torch.no_grad():
            for p, m, v, g in zip(params, first, second, grads):
                m.mul_(0.9).add_(g, alpha=0.1)
                v.mul_(0.999).addcmul_(g, g, value=0.001)
                p.mul_(1 - lr * weight_decay)
                p -= lr * m / (v.sqrt() + 1e-8)
        losses.append(total / len(group))
    for m, training in modes:
        m.training = training
    return losses
