"""The training loop of parameter-efficient fine-tuning.

Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2 (AdamW), which
the experiments of LoRA (Hu et al. 2021, appendix D) use; with gradient accumulation and with
clipping to a global norm (Pascanu et al. 2013, "On the difficulty of training recurrent neural
networks", algorithm 1).
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import torch
import torch.nn as nn


def finetune(
    model: nn.Module,
    params: Iterable[nn.Parameter],
    batches: Iterable[tuple[Any, Any]],
    loss_fn: Callable[[Any, Any], torch.Tensor],
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    accumulate: int = 1,
    max_grad_norm: float | None = None,
) -> list[float]:
    """Train `params`, and nothing else of the model, by one pass over the batches.

    params: any iterable of parameters of the model, a one-shot one too; not empty, each once, all
    with requires_grad. batches: any iterable of pairs (x, y), generators included; each runs
    forward once, in order. The loss of a batch is loss_fn(model(x), y).

    One step of AdamW (decoupled weight decay, torch's default betas and eps) for each
    `accumulate` batches, with the unweighted mean of their gradients; a last short group steps
    too, divided by its own size. With max_grad_norm the mean is first clipped, once per step, to
    that global norm over `params`.

    Returns for each step the mean of its batches' losses before the step, as floats; [] without
    batches. The model runs in train mode throughout; afterwards each of its modules is in the
    mode it was in before. All other parameters stay bit-identical, and every requires_grad as it
    was. Gradients present before the call count for nothing; afterwards every .grad in the model
    is None or zero.
    """
    raise NotImplementedError
