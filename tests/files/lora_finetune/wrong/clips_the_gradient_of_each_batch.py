# wrong: each batch's own gradient is clipped, then the mean is taken
# bug: clip-per-batch

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
    losses, group, t = [], [], 0
    batches = list(batches)
    for start in range(0, len(batches), accumulate):
        group = batches[start : start + accumulate]
        total, sums = 0.0, [torch.zeros_like(p) for p in params]
        for x, y in group:
            loss = loss_fn(model(x), y)
            grads = torch.autograd.grad(loss, params)
            norm = torch.sqrt(sum(g.square().sum() for g in grads))
            factor = 1.0 if max_grad_norm is None else min(1.0, max_grad_norm / float(norm))
            for s, g in zip(sums, grads):
                s += factor * g
            total += float(loss.detach())
        grads = [s / len(group) for s in sums]
        t = t + 1
        with torch.no_grad():
            for p, m, v, g in zip(params, first, second, grads):
                m.mul_(0.9).add_(g, alpha=0.1)
                v.mul_(0.999).addcmul_(g, g, value=0.001)
                p.mul_(1 - lr * weight_decay)
                p -= lr * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        losses.append(total / len(group))
    for m, training in modes:
        m.training = training
    return losses
