import contextlib, dataclasses, statistics, typing as t
import torch
from torch import nn

@dataclasses.dataclass(slots=True)
class Group:
    losses: list = dataclasses.field(default_factory=list)

@contextlib.contextmanager
def training(model):
    was = {m: m.training for m in model.modules()}
    model.train()
    try:
        yield
    finally:
        for m in was:
            m.training = was[m]

def finetune(model: nn.Module, params: t.Iterable, batches: t.Iterable, loss_fn: t.Callable, lr: float = 1e-3, weight_decay: float = 0.0, accumulate: int = 1, max_grad_norm: t.Optional[float] = None):
    chosen = tuple(params)
    opt = torch.optim.AdamW(chosen, lr, weight_decay=weight_decay, foreach=True)
    model.zero_grad()
    out, g = [], Group()
    def step():
        for p in chosen:
            p.grad.div_(len(g.losses))
        if max_grad_norm is not None:
            nn.utils.clip_grad_norm_(chosen, max_grad_norm, foreach=False)
        opt.step()
        model.zero_grad()
        out.append(statistics.fmean(g.losses))
        g.losses.clear()
    with training(model), torch.enable_grad():
        for x, y in batches:
            loss = loss_fn(model(x), y)
            loss.backward()
            g.losses.append(float(loss.detach()))
            if len(g.losses) == accumulate:
                step()
        if g.losses:
            step()
    model.zero_grad()
    return out
